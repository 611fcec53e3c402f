"""The console script ``cadre``: the program that lies in the package takes this process's place."""

import os
import sys

from .engine_args import find_program


def main():
    program = find_program()
    if not program:
        sys.exit("cadre: the program is not in this package and not in PATH; set CADRE_BIN to its path")
    os.execv(program, [program, *sys.argv[1:]])
