"""Starts Python processes as a launcher would, and an independent numpy model of what `cadre demo` computes."""

import importlib.util
import os
import pathlib
import subprocess
import sys
import time

import pytest

from ports import free_port

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("CADRE_BIN", ROOT / "build/release/cadre")).resolve()
PACKAGE = BIN.parent / "python"
EXAMPLE = ROOT / "examples/expert_parallel"

needs_program = pytest.mark.skipif(not BIN.exists(), reason=f"{BIN} is not built")
needs_numpy = pytest.mark.skipif(importlib.util.find_spec("numpy") is None, reason="numpy is not installed")


def _package_reason():
    if not list(PACKAGE.glob("cadre/_engine*.so")):
        return f"the Python package is not in {PACKAGE}"
    done = subprocess.run([sys.executable, "-c", "import cadre"], env=environment(), capture_output=True, text=True)
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


def environment(**more):
    env = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")}
    env.update(PYTHONPATH=str(PACKAGE), PATH=f"{pathlib.Path(sys.executable).parent}:{env.get('PATH', '')}")
    env.update({k: str(v) for k, v in more.items()})
    return env


_reason = _package_reason()
needs_package = pytest.mark.skipif(bool(_reason), reason=_reason or "-")


class Ranks:
    """`size` processes that run `words` (default: Python code) with a launcher's variables."""

    def __init__(self, code, size, words=None, hosts=1, **more):
        per_host = size // hosts
        port = free_port()
        self.processes = []
        for rank in range(size):
            env = environment(
                RANK=rank, WORLD_SIZE=size, MASTER_ADDR="127.0.0.1", MASTER_PORT=port,
                LOCAL_RANK=rank % per_host, LOCAL_WORLD_SIZE=per_host, **more)
            self.processes.append(
                subprocess.Popen(
                    words or [sys.executable, "-c", code],
                    env=env, cwd=EXAMPLE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))

    def end(self, timeout=60):
        """[(exit status, stdout, stderr)]; whatever is still there at the end is killed."""
        until = time.monotonic() + timeout
        ends = []
        try:
            for process in self.processes:
                out, err = process.communicate(timeout=max(until - time.monotonic(), 0.1))
                ends.append((process.returncode, out, err))
        finally:
            for process in self.processes:
                if process.poll() is None:
                    process.kill()
                    process.communicate()
        return ends


def run(code, size, **more):
    """All ranks must succeed; their standard outputs."""
    ends = Ranks(code, size, **more).end()
    assert all(rc == 0 for rc, _, _ in ends), ends
    return [out for _, out, _ in ends]


def cadre(*words, rc=0, timeout=120, **more):
    done = subprocess.run(
        [str(BIN), *map(str, words)], capture_output=True, text=True, timeout=timeout, cwd=ROOT, env=environment(**more))
    assert done.returncode == rc, (done.returncode, done.stdout, done.stderr)
    return done
