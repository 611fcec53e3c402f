"""What a process spawned by a script under cadre.compat imports as vllm: cadre.compat takes its place."""

import sys

del sys.modules["vllm"]
import cadre.compat  # noqa: E402,F401

import vllm  # noqa: E402,F401
