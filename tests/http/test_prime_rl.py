"""`cadre rl`: the debug files run on the demo model and answer; what dies is named; all stop cleanly; and the wheel
cadre-compat, whose commands are prime-rl's and vLLM's."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import httpx
import pytest

from conftest import BIN, ROOT
from node import Node
from ports import free_port

pytestmark = pytest.mark.skipif(not BIN.exists(), reason="%s is not built" % BIN)

QUESTION = {"messages": [{"role": "user", "content": "What is 17 + 25?"}], "temperature": 0, "max_tokens": 8}


class Run:
    """A run of its own ports, output folder and log."""

    def __init__(self, folder, *words, env=None):
        self.port = free_port()
        self.folder = folder
        self.node = Node([BIN, "rl", *words, "--output-dir", folder], env=env)

    def wait(self, seconds=120):
        self.node.wait_for(r"run ready after", seconds)
        self.url = re.search(r"run ready after .*?(http://\S+)/v1", self.node.log()).group(1)
        return self

    def pid(self, title):
        return int(re.search(r"info %s is process (\d+)" % title, self.node.log()).group(1))

    def pids(self):
        return [int(pid) for pid in re.findall(r"is process (\d+)", self.node.log())]


@pytest.fixture
def run(tmp_path):
    made = []

    def start(*words, env=None):
        made.append(Run(tmp_path / "out", *words, env=env))
        return made[-1]

    yield start
    for one in made:
        pids = one.pids()
        one.node.kill()
        for pid in pids:
            assert gone(pid), "process %d is left behind" % pid


def gone(pid, seconds=10):
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        try:
            state = pathlib.Path("/proc/%d/stat" % pid).read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def pair_words():
    ports = ["--pd_disagg.%s" % key for key in ("proxy_port", "prefill_port", "decode_port", "prefill_kv_port", "decode_kv_port")]
    words = []
    for port in ports:
        words += [port, free_port()]
    return words


def ask(run):
    answer = httpx.post(run.url + "/v1/chat/completions", json=QUESTION, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"]


def test_expert_parallel_inference(run):
    one = run("@", "configs/debug/rl_ep.toml", "--inference.server.port", free_port()).wait()
    assert "EP 2 = TP 2 x DP 1, allgather_reducescatter" in one.node.log()
    assert "serves inference only" in one.node.log()
    assert ask(one) == "42"
    assert (one.folder / "logs/inference.stdout").read_text().count("ready after") == 1
    one.node.process.send_signal(signal.SIGTERM)
    assert one.node.end(60) == 0, one.node.log()
    assert not re.search(r"\berror\b", one.node.log())


@pytest.mark.parametrize("file", ["rl_pd_disagg.toml", "rl_pd_disagg_ep.toml"])
def test_pairs(run, file):
    one = run("@", "configs/debug/" + file, *pair_words()).wait()
    assert [ask(one) for _ in range(4)] == ["42"] * 4
    decode = re.search(r"\[decode 0\].*ready after .*(http://\S+)", one.node.log()).group(1)
    metrics = httpx.get(decode + "/metrics").text
    fetched = sum(float(value) for value in re.findall(r"^cadre:kv_fetched_tokens_total\{.*\} (\S+)$", metrics, re.M))
    assert fetched > 0  # handed over, not computed again
    if "ep" in file:
        assert "prefill 0: EP 2 = TP 1 x DP 2, deepep_high_throughput; rank 0 is id 0 on" in one.node.log()
        assert "decode 0: EP 2 = TP 1 x DP 2, deepep_low_latency; rank 0 is id 2 on" in one.node.log()
    one.node.process.send_signal(signal.SIGINT)
    assert one.node.end(60) == 0, one.node.log()


def test_requests_under_way_are_answered_when_all_stop(run):
    one = run("@", "configs/debug/rl_pd_disagg.toml", *pair_words()).wait()
    body = {"prompt": "We the People", "max_tokens": 600, "ignore_eos": True, "temperature": 0, "stream": True}
    text = ""
    with httpx.stream("POST", one.url + "/v1/completions", json=body, timeout=60) as answer:
        for number, line in enumerate(answer.iter_lines()):
            text += line
            if number == 10:
                one.node.process.send_signal(signal.SIGTERM)
    assert '"finish_reason":"length"' in text and text.endswith("data: [DONE]")
    assert one.node.end(60) == 0, one.node.log()


def test_a_process_that_dies_is_named_and_ends_the_run(run):
    one = run("@", "configs/debug/rl_pd_disagg.toml", *pair_words()).wait()
    victim, others = one.pid("decode 0"), one.pids()
    os.kill(victim, signal.SIGKILL)
    assert one.node.end(60) != 0
    assert re.search(r"error decode 0 \(process %d\) was killed by SIGKILL; all others are stopped" % victim, one.node.log())
    assert all(gone(pid) for pid in others)


def test_a_server_that_cannot_start_says_why(run):
    one = run("@", "configs/debug/rl_ep.toml", "--model.name", "models/nowhere")
    assert one.node.end(60) != 0
    assert re.search(r"error inference \(process \d+\) exited with code \d+", one.node.log())
    assert "It last said:" in one.node.log() and "models/nowhere" in one.node.log().split("It last said:")[1]


def script(folder, name, text):
    path = folder / name
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)


def test_training_ends_the_run_and_stops_the_server(run, tmp_path):
    script(tmp_path, "orchestrator", 'echo "client of $2"; grep base_url "$2"; sleep 1; exit 0\n')
    script(tmp_path, "torchrun", 'echo "words $*"; sleep 2; exit 0\n')
    env = {"PATH": "%s:%s" % (tmp_path, os.environ["PATH"])}
    port = free_port()
    one = run("@", "configs/debug/rl_ep.toml", "--inference.server.port", port, env=env)
    assert one.node.end(60) == 0, one.node.log()
    log = one.node.log()
    assert "[orchestrator] client of " in log and "http://127.0.0.1:%d/v1" % port in log
    assert "[trainer] words --standalone --nproc-per-node=1 -m prime_rl.trainer.rl.train @" in log
    assert "orchestrator has finished" in log and "trainer has finished" in log
    assert (one.folder / "configs/trainer.toml").read_text().count("models/demo") == 1


def test_a_trainer_that_fails_ends_the_run(run, tmp_path):
    script(tmp_path, "orchestrator", "sleep 60\n")
    script(tmp_path, "torchrun", "echo 'no data'; sleep 600 & exit 3\n")
    env = {"PATH": "%s:%s" % (tmp_path, os.environ["PATH"])}
    one = run("@", "configs/debug/rl_ep.toml", "--inference.server.port", free_port(), env=env)
    assert one.node.end(60) != 0
    assert re.search(r"error trainer \(process \d+\) exited with code 3", one.node.log())
    assert "no data" in one.node.log()


def cadre(*words):
    return subprocess.run([str(BIN), *map(str, words)], capture_output=True, text=True, cwd=ROOT, timeout=60)


def test_dry_run_and_dump(tmp_path):
    done = cadre("rl", "@", "configs/debug/rl_pd_disagg_ep.toml", "--dry-run", "--output-dir", tmp_path / "none")
    assert done.returncode == 0 and not (tmp_path / "none").exists()
    assert re.search(r"^# decode 0: EP 2 = TP 1 x DP 2, deepep_low_latency", done.stdout, re.M)
    assert re.search(r"^cadre router .*--prefill http://127\.0\.0\.1:\d+@0,", done.stdout, re.M)

    done = cadre("rl", "@", "configs/debug/rl_pd_disagg_ep.toml", "--dump-config", tmp_path / "dump")
    assert done.returncode == 0
    names = sorted(path.name for path in (tmp_path / "dump").glob("*.toml"))
    assert names == ["decode_inference_0.toml", "orchestrator.toml", "prefill_inference_0.toml", "trainer.toml"]
    assert "enable_expert_parallel = true" in (tmp_path / "dump/decode_inference_0.toml").read_text()
    again = cadre("inference", "@", tmp_path / "dump/decode_inference_0.toml", "--dry-run")
    line = next(line for line in done.stdout.splitlines() if "kv_consumer" in line)
    assert line.split(" cadre serve ")[1] in again.stdout


def test_errors_name_file_line_and_the_nearest_key(tmp_path):
    (tmp_path / "a.toml").write_text("[model]\nname = 'models/demo'\n[inference]\nenable_expert_paralel = true\n")
    done = cadre("rl", "@", tmp_path / "a.toml")
    assert done.returncode == 2
    assert re.search(r"a\.toml:4: inference\.enable_expert_paralel: unknown key; did you mean inference\.enable_expert_parallel\?",
                     done.stderr)


# ---- the wheel cadre-compat


@pytest.fixture(scope="module")
def compat(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compat")
    done = subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("no venv: " + done.stderr.strip().splitlines()[-1])
    source = shutil.copytree(ROOT / "python-compat", folder / "source")  # a build leaves folders behind
    done = subprocess.run([str(folder / "venv/bin/pip"), "install", "-q", str(source)], capture_output=True, text=True)
    if done.returncode != 0 and re.search(r"No matching distribution|Could not find a version|Temporary failure", done.stderr):
        pytest.skip("setuptools is not to be had: " + done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    return folder / "venv/bin"


def command(compat, *words, **env):
    return subprocess.run([str(compat / words[0]), *words[1:]], capture_output=True, text=True, cwd=ROOT, timeout=60,
                          env={**os.environ, "CADRE_BIN": str(BIN), **env})


def test_the_names_of_other_programs(compat):
    assert command(compat, "vllm", "--version").stdout.startswith("cadre ")
    done = command(compat, "rl", "@", "configs/debug/rl_ep.toml", "--dry-run")
    assert done.returncode == 0 and "cadre serve models/demo" in done.stdout
    done = command(compat, "inference", "--model.name", "models/demo", "--parallel.dp", "2", "--enable-expert-parallel", "--dry-run")
    assert done.returncode == 0 and "EP 2 = TP 1 x DP 2" in done.stdout
    done = command(compat, "vllm", "serve", "models/demo", "--no-such-flag")
    assert done.returncode == 2 and "--no-such-flag" in done.stderr
    done = command(compat, "rl", CADRE_BIN="/no/such/program")
    assert done.returncode == 1 and "/no/such/program" in done.stderr
