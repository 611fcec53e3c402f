"""Deployments over several nodes: `cadre serve` processes that meet on this machine's loopback."""

import json
import os
import pathlib
import re
import signal
import struct
import subprocess
import threading
import time

import httpx
import pytest

from conftest import BIN, MODEL
from node import Node
from ports import free_port

pytestmark = pytest.mark.skipif(not BIN.exists(), reason="%s is not built" % BIN)

GOLDEN = pathlib.Path(os.environ.get("CADRE_GOLDEN", pathlib.Path(__file__).resolve().parents[3] / "shared/golden"))
GOLDEN = GOLDEN / "models/deepseek_v3"
SMALL = ["--kv-cache-memory-bytes", "32M", "--enable-expert-parallel"]
QUESTION = {"temperature": 0, "messages": [{"role": "user", "content": "What is 17 + 25?"}]}


@pytest.fixture
def nodes():
    running = []

    def start(*flags):
        running.append(Node([BIN, "serve", MODEL, *SMALL, *flags]))
        return running[-1]

    yield start
    for node in running:
        node.kill()


def ask(port, **headers):
    answer = httpx.post("http://127.0.0.1:%d/v1/chat/completions" % port, json=QUESTION, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"]


def two_nodes(nodes, dp=4):
    """The seeds' two commands: (first, second, port)."""
    port, meet = free_port(), free_port()
    common = ["-dp", dp, "--data-parallel-size-local", dp // 2, "--data-parallel-address", "127.0.0.1",
              "--data-parallel-rpc-port", meet]
    first = nodes(*common, "--port", port)
    second = nodes(*common, "--data-parallel-start-rank", dp // 2, "--headless")
    first.wait_for("ready after")
    return first, second, port


def test_first_node_answers_for_all(nodes):
    port, meet = free_port(), free_port()
    common = ["-dp", 4, "-dpl", 2, "-dpa", "127.0.0.1", "-dpp", meet]
    first = nodes(*common, "--port", port)
    first.wait_for("waiting for ranks 2 and 3")
    assert first.log().count("waiting for ranks 2 and 3") == 1
    waiting = httpx.get("http://127.0.0.1:%d/health" % port)
    assert waiting.status_code == 503
    assert "waiting for ranks 2 and 3 (of 4 ranks in all)" in waiting.json()["error"]["message"]
    second = nodes(*common, "-dpr", 2, "--headless")
    first.wait_for("ready after")
    for node in (first, second):
        node.wait_for("Connected all rings: ")
    for rank in range(4):
        assert ask(port, **{"X-data-parallel-rank": str(rank)}) == "42"
    first.process.terminate()
    assert (first.end(), second.end()) == (0, 0)


@pytest.mark.parametrize("layout", [
    (["-tp", 2, "--nnodes", 2, "--node-rank", 0], ["-tp", 2, "--nnodes", 2, "--node-rank", 1]),
    (["-tp", 2, "-dp", 2, "-dpl", 1], ["-tp", 2, "-dp", 2, "-dpr", 1, "--headless"]),
], ids=["tp-over-nodes", "tp-in-nodes"])
def test_tensor_parallel(nodes, layout):
    port, meet = free_port(), free_port()
    first = nodes(*layout[0], "-dpp", meet, "--port", port)
    second = nodes(*layout[1], "-dpp", meet)
    first.wait_for("ready after")
    assert ask(port) == "42"
    first.process.terminate()
    assert (first.end(), second.end()) == (0, 0)


@pytest.mark.parametrize("flags", [
    lambda i: ["-dp", 2, "--data-parallel-rank", i],
    lambda i: ["-dp", 4, "-dpl", 2, "--data-parallel-hybrid-lb", "--data-parallel-start-rank", 2 * i],
], ids=["external", "hybrid"])
def test_every_node_answers(nodes, flags):
    meet, ports = free_port(), [free_port(), free_port()]
    both = [nodes(*flags(i), "-dpp", meet, "--port", ports[i]) for i in range(2)]
    for node in both:
        node.wait_for("ready after")
    for port in ports:
        assert ask(port) == "42"
    both[1].process.terminate()  # it drains its own requests, not the other's
    assert both[1].end() == 0
    assert both[0].end() == 7
    assert "another node has left the deployment" in both[0].log()


def test_a_first_node_that_only_answers(nodes):
    port, meet = free_port(), free_port()
    common = ["-dp", 4, "--data-parallel-address", "127.0.0.1", "--data-parallel-rpc-port", meet]
    first = nodes(*common, "--data-parallel-size-local", 0, "--port", port)
    first.wait_for(r"waiting for ranks 0 to 3 \(of 4 ranks in all\)")
    assert first.ranks() == []
    halves = [nodes(*common, "-dpl", 2, "-dpr", start, "--headless", "--fabric-connections", 1) for start in (0, 2)]
    first.wait_for("ready after")
    for rank in range(4):
        assert ask(port, **{"X-data-parallel-rank": str(rank)}) == "42"
    first.process.terminate()
    assert [node.end() for node in (first, *halves)] == [0, 0, 0]


@pytest.mark.parametrize("victim", ["rank", "first"])
def test_deaths_under_a_first_node_without_ranks(nodes, victim):
    port, meet = free_port(), free_port()
    common = ["-dp", 2, "-dpp", meet]
    first = nodes(*common, "-dpl", 0, "--port", port, "--api-server-count", 2)
    second = nodes(*common, "-dpl", 2, "--headless")  # as in vLLM's recipe: no start rank
    first.wait_for("ready after")
    lines = []
    client = threading.Thread(target=stream_until_cut, args=(port, lines))
    client.start()
    while len(lines) < 10:
        time.sleep(0.01)
    ranks = [*second.ranks(), *first.ranks()]
    if victim == "rank":
        subprocess.run(["kill", "-KILL", str(second.ranks()[-1])])
        assert (first.end(), second.end()) == (7, 7)
        for node in (first, second):
            assert "rank 1 was killed by SIGKILL" in node.log(), node.log()
    else:
        first.process.kill()
        assert second.end() == 7
        assert "the first host" in second.log()
    client.join(10)
    assert not client.is_alive()
    deadline = time.time() + 5
    while any(alive(pid) for pid in ranks):
        assert time.time() < deadline, "processes are left behind"
        time.sleep(0.05)


@pytest.mark.parametrize("transport", ["tcp", "ucx"])
def test_the_transport_can_be_forced(nodes, transport):
    port, meet = free_port(), free_port()
    common = ["-dp", 2, "-dpl", 1, "-dpp", meet, "--fabric-transport", transport, "--fabric-connections", 2]
    first = nodes(*common, "--port", port)
    second = nodes(*common, "-dpr", 1, "--headless")
    first.wait_for("ready after")
    assert "hosts are linked by %s (--fabric-transport)" % transport in first.log()
    assert "and %s between hosts" % transport in first.log()
    assert ("2 connection(s) an address" in first.log()) == (transport == "tcp")
    assert ask(port) == "42"
    second.process.terminate()


def test_transports_that_differ_are_refused(nodes):
    meet = free_port()
    common = ["-dp", 2, "-dpl", 1, "-dpp", meet]
    first = nodes(*common, "--port", free_port(), "--fabric-transport", "tcp")
    first.wait_for("waiting for rank 1")
    second = nodes(*common, "-dpr", 1, "--headless")
    assert second.end() == 2
    assert "--fabric-transport" in second.log()
    bad = nodes(*common, "--fabric-transport", "carrier-pigeon")
    assert bad.end() == 2 and "auto, tcp, ucx" in bad.log().replace(",", ", ").replace(",  ", ", ")


def test_settings_that_differ_are_named_on_both_sides(nodes):
    meet = free_port()
    common = ["-dp", 2, "-dpl", 1, "-dpp", meet]
    first = nodes(*common, "--port", free_port())
    first.wait_for("waiting for rank 1")
    second = nodes(*common, "-dpr", 1, "--headless", "--dtype", "float32")
    assert second.end() == 2
    assert "--dtype = 'float32'" in second.log() and "'bfloat16'" in second.log()
    first.wait_for("--dtype = 'float32'")


def test_address_of_another_machine_is_explained(nodes):
    node = nodes("-dp", 2, "-dpl", 1, "-dpa", "192.0.2.1", "--port", free_port())
    assert node.end() != 0
    assert "192.0.2.1" in node.log() and "its own interfaces are" in node.log() and "lo (127.0.0.1)" in node.log()


def golden():
    """The first golden prompt of DeepSeek-V3 and its greedy tokens: safetensors is a header and bytes."""
    raw = (GOLDEN / "golden.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:8 + size])

    def integers(name):
        begin, end = header[name]["data_offsets"]
        return list(struct.unpack("<%di" % ((end - begin) // 4), raw[8 + size + begin:8 + size + end]))

    return integers("prompt_0"), integers("greedy_0")


@pytest.mark.skipif(not (GOLDEN / "golden.json").exists(), reason="no golden DeepSeek-V3 at %s" % GOLDEN)
@pytest.mark.parametrize("prefill,decode", [
    ("deepep_high_throughput", "deepep_low_latency"),
    ("pplx", "mori"),
    ("naive", "flashinfer_all2allv"),
])
def test_exchanges_over_nodes_give_the_golden_tokens(prefill, decode):
    port, meet = free_port(), free_port()
    common = [BIN, "serve", GOLDEN, "-dp", 4, "-dpl", 2, "-dpa", "127.0.0.1", "-dpp", meet, "--enable-expert-parallel",
              "--prefill-all2all-backend", prefill, "--decode-all2all-backend", decode, "--dtype", "float32",
              "--skip-tokenizer-init", "--kv-cache-memory-bytes", "4M", "--max-model-len", 256,
              "--max-num-batched-tokens", 256, "--served-model-name", "golden"]
    first = Node([*common, "--port", port])
    second = Node([*common, "-dpr", 2, "--headless"])
    try:
        first.wait_for("ready after", 120)
        for node in (first, second):
            node.wait_for("prefill steps: %s: .*4 ranks on 2 hosts" % prefill)
            node.wait_for("decode steps: %s: .*4 ranks on 2 hosts" % decode)
        prompt, wanted = golden()
        for rank in range(4):
            body = {"model": "golden", "prompt": prompt, "max_tokens": len(wanted), "temperature": 0, "ignore_eos": True,
                    "return_token_ids": True}
            answer = httpx.post("http://127.0.0.1:%d/v1/completions" % port, json=body, timeout=120,
                                headers={"X-data-parallel-rank": str(rank)})
            assert answer.status_code == 200, answer.text
            assert answer.json()["choices"][0]["token_ids"] == wanted
        first.process.terminate()
        assert (first.end(), second.end()) == (0, 0)
    finally:
        first.kill()
        second.kill()


def alive(pid):
    try:
        return open("/proc/%d/stat" % pid).read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def stream_until_cut(port, result):
    body = {"prompt": "Once", "max_tokens": 4000, "ignore_eos": True, "stream": True}
    try:
        with httpx.stream("POST", "http://127.0.0.1:%d/v1/completions" % port, json=body, timeout=60) as answer:
            result.extend(answer.iter_lines())
    except httpx.HTTPError as error:
        result.append("broken: %r" % error)


@pytest.mark.parametrize("victim", ["rank", "node", "first", "stopped"])
def test_deaths_are_named_everywhere(nodes, victim):
    first, second, port = two_nodes(nodes)
    lines = []
    client = threading.Thread(target=stream_until_cut, args=(port, lines))
    client.start()
    while len(lines) < 10:
        time.sleep(0.01)
    ranks = second.ranks()
    begin = time.time()
    if victim == "rank":
        subprocess.run(["kill", "-KILL", str(ranks[-1])])
        survivors, words = [first, second], "rank 3 was killed by SIGKILL"
    elif victim == "node":
        second.process.kill()
        survivors, words = [first], r"\(ranks 2 and 3\)"
    elif victim == "first":
        first.process.kill()
        survivors, words = [second], "the first host"
    else:
        for pid in [second.process.pid, *ranks]:
            subprocess.run(["kill", "-STOP", str(pid)])
        survivors, words = [first], r"\(ranks 2 and 3\) gave no sign of life"
    for node in survivors:
        assert node.end() == 7, node.log()
        assert re.search(words, node.log()), node.log()
    assert time.time() - begin < 8
    client.join(10)
    assert not client.is_alive()
    if victim != "first":
        assert any('"code":503' in line for line in lines), lines[-3:]
    if victim == "stopped":
        for pid in ranks:
            subprocess.run(["kill", "-KILL", str(pid)])
    deadline = time.time() + 5
    while any(alive(pid) for pid in ranks):
        assert time.time() < deadline, "ranks are left behind"
        time.sleep(0.05)


def test_ranks_that_are_all_stopped_are_named(nodes):
    """Nobody is left on the host to miss them but their parent."""
    node = nodes("-dp", 2, "--port", free_port())
    node.wait_for("ready after")
    begin = time.time()
    for pid in node.ranks():
        os.kill(pid, signal.SIGSTOP)
    assert node.end(20) == 7
    assert time.time() - begin < 12
    assert "gave no sign of life for 5 s" in node.log()
