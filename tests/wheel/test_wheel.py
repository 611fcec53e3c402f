"""The wheel: built from the source tree, installed into an environment of its own, and used there from elsewhere.

Not part of ./test, because it compiles everything once more: ./test --wheel. CADRE_WHEEL names a wheel that is built already.
"""

import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = str(ROOT / "models/demo")
SMALL = {"max_model_len": 512, "num_gpu_blocks_override": 256, "log_level": "warning"}


def run(*words, rc=0, timeout=120, **more):
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "CADRE_BIN")}
    env["PATH"] = "/usr/local/bin:/usr/bin:/bin"
    done = subprocess.run(
        [str(w) for w in words], capture_output=True, text=True, timeout=timeout, env={**env, **more.pop("env", {})}, **more
    )
    assert done.returncode == rc, (words, done.stdout[-3000:], done.stderr[-3000:])
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    if "CADRE_WHEEL" in os.environ:
        return pathlib.Path(os.environ["CADRE_WHEEL"])
    folder = tmp_path_factory.mktemp("wheel")
    # The compiler by the name that CMake finds by itself, so that its cache serves both builds.
    env = {
        "CC": "cc",
        "CXX": "c++",
        "CMAKE_BUILD_PARALLEL_LEVEL": os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", str(os.cpu_count())),
    }
    run(sys.executable, "-m", "pip", "wheel", ROOT, "--no-deps", "-w", folder, timeout=7200, env=env)
    (file,) = folder.glob("cadre-*.whl")
    return file


@pytest.fixture(scope="module")
def venv(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", folder)
    run(folder / "bin/pip", "install", "-q", "--no-index", wheel)
    return folder


@pytest.fixture
def python(venv, tmp_path):
    return lambda *words, **more: run(venv / "bin/python", *words, cwd=tmp_path, **more)


def test_what_is_in_it(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        modes = {info.filename: info.external_attr >> 16 for info in file.infolist()}
    for name in (
        "cadre/__init__.py",
        "cadre/py.typed",
        "cadre/_engine.pyi",
        "cadre/_settings.pyi",
        "cadre/compat/__main__.py",
        "cadre/compat/shim/vllm/__init__.py",
        "cadre/bin/cadre",
    ):
        assert name in names, name
    assert any(name.startswith("cadre/_engine.cpython") and name.endswith(".so") for name in names)
    assert modes["cadre/bin/cadre"] & 0o111
    top = {name.partition("/")[0] for name in names}
    assert all(name == "cadre" or name.endswith(".dist-info") for name in top), top


def test_the_console_script_is_the_program(venv, python):
    version = run(ROOT / "build/release/cadre", "version") if (ROOT / "build/release/cadre").exists() else None
    assert run(venv / "bin/cadre", "version") == (version or run(venv / "bin/cadre", "version"))
    assert "usage: cadre COMMAND" in run(venv / "bin/cadre", "help")
    run(venv / "bin/cadre", "serve", "--no-such-flag", rc=2)
    run(venv / "bin/pip", "check")


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_model_answers(python, ranks):
    code = f"""
from cadre import LLM, SamplingParams
llm = LLM({MODEL!r}, data_parallel_size={ranks}, enable_expert_parallel={ranks > 1}, **{SMALL!r})
print(llm.chat([{{"role": "user", "content": "What is 17 + 25?"}}], SamplingParams(temperature=0), use_tqdm=False)[0].outputs[0].text)
"""
    assert python("-c", code) == "42\n"


def test_scripts_for_vllm_run(python, tmp_path):
    (tmp_path / "script.py").write_text(f"""
import multiprocessing
from vllm import LLM, SamplingParams

def work(results):
    results.put(LLM({MODEL!r}, **{SMALL!r}).chat([{{"role": "user", "content": "Add 40 and 64."}}], SamplingParams(temperature=0), use_tqdm=False)[0].outputs[0].text)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    child = context.Process(target=work, args=(results,))
    child.start()
    print(results.get(timeout=60))
    child.join()
""")
    assert python("-m", "cadre.compat", "script.py") == "104\n"
