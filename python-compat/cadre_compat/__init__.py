"""Command names of prime-rl and vLLM. Each gives its process to the program cadre, which takes the words as they are."""

import os
import shutil
import sys
from pathlib import Path


def find_program():
    """CADRE_BIN; the wheel cadre's own program; cadre in PATH or beside this interpreter; a checkout's build. Or None."""
    named = os.environ.get("CADRE_BIN")
    if named:
        return named
    try:
        from cadre.engine_args import find_program as of_the_wheel

        found = of_the_wheel()
        if found:
            return str(found)
    except ImportError:
        pass
    beside = Path(sys.executable).parent
    found = shutil.which("cadre", path=os.pathsep.join([str(beside), os.environ.get("PATH", os.defpath)]))
    if found:
        return found
    # An editable install lies in a checkout; else this is where `uv run` was typed.
    for root in (Path(__file__).resolve().parents[2], Path.cwd()):
        built = root / "build" / "release" / "cadre"
        if os.access(built, os.X_OK):
            return str(built)
    return None


def _become(*words):
    program = find_program()
    if program is None:
        sys.exit("%s: the program cadre is not found; install the wheel cadre beside cadre-compat, build it (./quickstart), "
                 "or set CADRE_BIN to its path" % Path(sys.argv[0]).name)
    try:
        os.execv(program, [program, *words, *sys.argv[1:]])
    except OSError as error:
        sys.exit("%s: cannot run '%s': %s" % (Path(sys.argv[0]).name, program, error.strerror))


def rl():
    _become("rl")


def inference():
    _become("inference")


def vllm():
    _become()
