"""python -m cadre.compat SCRIPT [ARGUMENTS...]: runs a script written for vLLM with Cadre."""

import os
import runpy
import sys

from . import MODULES

_USAGE = """usage: python -m cadre.compat SCRIPT [ARGUMENTS...]
       python -m cadre.compat -m MODULE [ARGUMENTS...]
       python -m cadre.compat -c CODE [ARGUMENTS...]

Runs a Python program in which `import vllm` means Cadre."""


def main():
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(_USAGE + "\nModules: " + ", ".join(sorted(MODULES)), file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    if words[0] in ("-m", "-c"):
        if len(words) < 2:
            print(_USAGE, file=sys.stderr)
            return 2
        sys.argv = [words[0], *words[2:]]
        if words[0] == "-m":
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})
        return 0
    if not os.path.exists(words[0]):
        print(f"python -m cadre.compat: no script '{words[0]}'", file=sys.stderr)
        return 3
    sys.argv = words
    sys.path[0] = os.path.dirname(os.path.abspath(words[0]))
    runpy.run_path(words[0], run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main())
