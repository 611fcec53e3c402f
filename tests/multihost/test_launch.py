"""The seeds' commands for two nodes, on two hosts made of network namespaces (as root)."""

import json
import os
import pathlib
import shutil
import subprocess

import pytest

from node import Node

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("CADRE_BIN", ROOT / "build/release/cadre"))
GOLDEN = pathlib.Path(os.environ.get("CADRE_GOLDEN", ROOT.parent / "shared/golden")) / "models/deepseek_v3"
NAME = "deepseek-ai/DeepSeek-V3-0324"
ADDRESSES = ["10.78.0.1", "10.78.0.2"]
PORT = 13345


def run(*command):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True)


@pytest.fixture
def hosts():
    """Names of two namespaces, joined by a cable whose ends are called eth0."""
    names = ["cadre%d-%s" % (os.getpid(), host) for host in "ab"]
    steps = [["ip", "netns", "add", name] for name in names]
    steps.append(["ip", "link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "name", "eth0", "netns", names[1]])
    for name, address in zip(names, ADDRESSES):
        inside = ["ip", "-n", name]
        steps += [[*inside, "addr", "add", address + "/24", "dev", "eth0"], [*inside, "link", "set", "eth0", "up"],
                  [*inside, "link", "set", "lo", "up"]]
    try:
        for step in steps:
            made = run(*step)
            if made.returncode != 0:
                pytest.skip("cannot make hosts of namespaces: %s" % made.stderr.strip())
        yield names
    finally:
        for name in names:
            run("ip", "netns", "del", name)


@pytest.fixture
def hub(tmp_path):
    """A Hugging Face cache in which the golden DeepSeek-V3 goes by the name of the seeds."""
    if not (GOLDEN / "golden.json").exists():
        pytest.skip("no golden DeepSeek-V3 at %s" % GOLDEN)
    repo = tmp_path / ("models--" + NAME.replace("/", "--"))
    (repo / "snapshots/abc").mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text("abc")
    for file in ("config.json", "model.safetensors"):
        (repo / "snapshots/abc" / file).symlink_to(GOLDEN / file)
    return str(tmp_path)


def prompt_and_greedy():
    """The first golden prompt and its greedy tokens, read without a library: safetensors is a header and bytes."""
    raw = (GOLDEN / "golden.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:8 + size])

    def integers(name):
        begin, end = header[name]["data_offsets"]
        data = raw[8 + size + begin:8 + size + end]
        return [int.from_bytes(data[i:i + 4], "little", signed=True) for i in range(0, len(data), 4)]

    return integers("prompt_0"), integers("greedy_0")


def on(host, *command):
    return ["ip", "netns", "exec", host, *command]


def greedy(host, port, rank, prompt, count):
    body = {"prompt": prompt, "max_tokens": count, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
    answer = run(*on(host, "curl", "-s", "http://%s:%d/v1/completions" % (ADDRESSES[0], port), "-H",
                     "Content-Type: application/json", "-H", "X-data-parallel-rank: %d" % rank, "-d", json.dumps(body)))
    return json.loads(answer.stdout)["choices"][0]["token_ids"]


def env(hub):
    small = "--skip-tokenizer-init --dtype float32 --kv-cache-memory-bytes 4M --max-model-len 256 --max-num-batched-tokens 256"
    return {"HF_HUB_CACHE": hub, "CADRE": str(BIN), "CADRE_ARGS": small, "VLLM_USE_DEEP_GEMM": "1",
            "NCCL_BUFFSIZE": "8388608"}


def expect_golden(first, second, hosts):
    first.wait_for("ready after", 300)
    for node in (first, second):
        node.wait_for("Connected all rings: ", 30)
    prompt, wanted = prompt_and_greedy()
    for rank in (0, 7, 8, 15):
        assert greedy(hosts[1], 8000, rank, prompt, len(wanted)) == wanted
    first.process.terminate()
    assert (first.end(60), second.end(60)) == (0, 0), first.log() + second.log()


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_scripts_of_seed_004(hosts, hub):
    words = [ADDRESSES[0], PORT, NAME, 16, 8, 8]
    first = Node(on(hosts[0], "bash", ROOT / "scripts/launch_vllm_node1.sh", *words), env(hub))
    first.wait_for("waiting for ranks 8 to 15")
    second = Node(on(hosts[1], "bash", ROOT / "scripts/launch_node2.sh", *words), env(hub))
    try:
        expect_golden(first, second, hosts)
        assert "over eth0" in first.log() and "over eth0" in second.log()
    finally:
        first.kill()
        second.kill()


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
@pytest.mark.parametrize("asc", ["--api-server-count=8", "--api-server-count 8"], ids=["seed_001", "seed_002"])
def test_two_node_lines_of_seeds_001_and_002(hosts, hub, asc):
    common = ("serve deepseek-ai/DeepSeek-V3-0324 --all2all-backend deepep_low_latency --tensor-parallel-size 1 "
              "--enable-expert-parallel --data-parallel-size 16 --data-parallel-size-local 8 "
              "--data-parallel-address %s --data-parallel-rpc-port %d" % (ADDRESSES[0], PORT)).split()
    small = env(hub)["CADRE_ARGS"].split()
    first = Node(on(hosts[0], BIN, *common, *asc.split(), *small), env(hub))
    second = Node(on(hosts[1], BIN, *common, "--data-parallel-start-rank", 8, "--headless", *small), env(hub))
    try:
        expect_golden(first, second, hosts)
        assert "deepep_low_latency" in first.log()
    finally:
        first.kill()
        second.kill()


def test_a_cable_that_is_pulled_is_named(hosts, hub):
    common = [BIN, "serve", NAME, "-dp", 2, "--data-parallel-size-local", 1, "--enable-expert-parallel",
              "--data-parallel-address", ADDRESSES[0], "--data-parallel-rpc-port", PORT, *env(hub)["CADRE_ARGS"].split()]
    first = Node(on(hosts[0], *common), env(hub))
    second = Node(on(hosts[1], *common, "--data-parallel-start-rank", 1, "--headless"), env(hub))
    try:
        first.wait_for("ready after")
        run("ip", "-n", hosts[1], "link", "set", "eth0", "down")
        assert first.end(10) == 7
        assert "(rank 1) gave no sign of life" in first.log()
        assert second.end(10) == 7
    finally:
        first.kill()
        second.kill()
