"""Balanced experts as an operator sees them: /eplb, /metrics, /health, --eplb-record, `cadre inspect --load`."""

import json
import os
import re
import signal
import subprocess
import threading
import time
import xml.etree.ElementTree

import httpx
import pytest

from conftest import BIN, MODEL

pytestmark = pytest.mark.skipif(not BIN.exists(), reason="%s is not built" % BIN)

FLAGS = ["-dp", "2", "-ep", "--kv-cache-memory-bytes", "32M", "--enable-eplb", "--eplb-config",
         '{"window_size":50,"step_interval":40,"num_redundant_experts":4}']


def metrics(server, name):
    """Label text -> value of all samples of a name."""
    text = httpx.get(server.url + "/metrics").text
    found = re.findall(r"^%s\{(.*)\} (\S+)$" % re.escape(name), text, re.M)
    return {labels: float(value) for labels, value in found}


def eplb(server):
    answer = httpx.get(server.url + "/eplb", timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


def work(server, count=1):
    # The same few tokens over and over: experts are chosen unevenly.
    for i in range(count):
        body = {"prompt": [7 + i % 3] * 8, "max_tokens": 60, "ignore_eos": True, "temperature": 0}
        assert httpx.post(server.url + "/v1/completions", json=body, timeout=120).status_code == 200


def until(check, seconds=60):
    deadline = time.time() + seconds
    while time.time() < deadline:
        found = check()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError("not within %d s" % seconds)


def rank_tokens(state, maps):
    """What each rank carries under `maps`, from the load alone."""
    first = state["layout"]["first_slot"]
    tokens = [0.0] * state["layout"]["ranks"]
    for slots, counts in zip(maps, state["load"]["counts"]):
        copies = [slots.count(expert) for expert in range(len(counts))]
        for rank in range(len(tokens)):
            tokens[rank] += sum(counts[e] / copies[e] for e in slots[first[rank]:first[rank + 1]])
    return tokens


def test_a_rebalance_is_seen_and_its_load_starts_the_next_server(start, tmp_path):
    record = tmp_path / "load.json"
    server = start(*FLAGS, "--eplb-record", str(record))
    before = eplb(server)
    assert before["epoch"] == 1 and before["maps"] == before["start_maps"] and before["balancedness"] == 0
    assert before["layout"] == {"ranks": 2, "slots": 36, "first_slot": [0, 18, 36]}
    assert httpx.get(server.url + "/health").text == ""

    def moved():
        work(server, 4)
        state = eplb(server)
        return state if state["epoch"] > 1 and state["counters"]["rebalances"] > 1 else None

    state = until(moved)
    assert state["maps"] != state["start_maps"] == before["maps"]
    assert max(state["layer_epochs"]) == state["epoch"]
    assert state["counters"]["moved_experts"] > 0 and state["counters"]["moved_bytes"] > 0
    assert state["counters"]["failed_waves"] == 0
    assert sum(rank_tokens(state, state["maps"])) == pytest.approx(sum(map(sum, state["load"]["counts"])))

    # /metrics is told a moment later, and then says the same.
    def agree():
        now = eplb(server)
        said = metrics(server, "cadre:eplb_rank_tokens")
        same = now["rank_tokens"] == pytest.approx([said[k] for k in sorted(said)])
        return now if same and not now["moving"] else None

    state = until(agree)
    assert state["rank_tokens"] == pytest.approx(rank_tokens(state, state["maps"]))
    for name, value in {"balancedness": state["balancedness"], "epoch": state["epoch"], "moving": 0, "stalled": 0,
                        "moved_experts_total": state["counters"]["moved_experts"],
                        "moved_bytes_total": state["counters"]["moved_bytes"],
                        "rebalances_total": state["counters"]["rebalances"], "failed_waves_total": 0}.items():
        assert list(metrics(server, "cadre:eplb_" + name).values()) == [pytest.approx(value)], name
    layers = metrics(server, "cadre:eplb_layer_balancedness")
    assert sorted(layers.values()) == pytest.approx(sorted(state["layer_balancedness"]))
    experts = metrics(server, "cadre:eplb_expert_tokens")
    assert len(experts) == 6 * 32 and sum(experts.values()) == sum(map(sum, state["load"]["counts"]))
    assert len(metrics(server, "cadre:eplb_moving_seconds_total")) == 2

    # Drawn from the running server.
    svg, html = tmp_path / "load.svg", tmp_path / "load.html"
    drawn = subprocess.run([BIN, "inspect", "--load", server.url, "--svg", svg, "--html", html],
                           capture_output=True, text=True, check=True)
    assert "6 MoE layers, 32 experts, 4 a token" in drawn.stdout and "start map" in drawn.stdout and "balancedness" in drawn.stdout
    assert "\x1b" not in drawn.stdout and max(map(len, drawn.stdout.splitlines())) <= 80
    assert xml.etree.ElementTree.parse(svg).getroot().tag.endswith("svg")
    assert "<table>" in html.read_text()

    assert server.stop() == 0, "".join(server.lines)
    recorded = json.loads(record.read_text())
    assert recorded["layers"] == 6 and recorded["experts"] == 32 and sum(map(sum, recorded["counts"])) > 0
    assert os.listdir(tmp_path).count("load.json.tmp") == 0

    # The record, looked at and used.
    looked = subprocess.run([BIN, "inspect", MODEL, "--load", record, "--json", *FLAGS], capture_output=True, text=True,
                            check=True)
    seen = json.loads(looked.stdout)
    assert seen["load"] == recorded and seen["after"]["balancedness"] > seen["before"]["balancedness"]
    again = start(*FLAGS, "--eplb-init", str(record))
    assert eplb(again)["start_maps"] == seen["after"]["maps"]


class Slowed:
    """A process that is stopped for three quarters of the time."""

    def __init__(self, pid):
        self.pid, self.over = pid, threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        while not self.over.is_set():
            os.kill(self.pid, signal.SIGSTOP)
            time.sleep(0.015)
            os.kill(self.pid, signal.SIGCONT)
            time.sleep(0.005)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def rank_pids(server):
    children = subprocess.run(["pgrep", "-P", str(server.process.pid)], capture_output=True, text=True).stdout.split()
    return [int(pid) for pid in children if b"\0rank\0" in open("/proc/%s/cmdline" % pid, "rb").read()]


def test_answers_stay_while_experts_move_and_a_rank_is_slow(start):
    def ask(server, i):
        body = {"prompt": [5 + i, 9, 7 + i % 3, 7], "max_tokens": 24, "ignore_eos": True, "temperature": 0}
        answer = httpx.post(server.url + "/v1/completions", json=body, timeout=120)
        assert answer.status_code == 200, answer.text
        return answer.json()["choices"][0]["text"]

    one = start("--dtype", "float32", "--kv-cache-memory-bytes", "32M")
    wanted = [ask(one, i) for i in range(8)]
    one.stop()
    server = start("-dp", "4", "-ep", "--dtype", "float32", "--kv-cache-memory-bytes", "32M", "--enable-eplb",
                   "--eplb-config", '{"window_size":16,"step_interval":24,"num_redundant_experts":4}')
    ranks = rank_pids(server)
    assert len(ranks) == 4
    with Slowed(ranks[1]):
        def rounds():
            assert [ask(server, i) for i in range(8)] == wanted
            return eplb(server)["counters"]["rebalances"] >= 3
        until(rounds, 120)
    state = eplb(server)
    assert state["counters"]["moved_experts"] > 0 and state["counters"]["failed_waves"] == 0
    assert [ask(server, i) for i in range(8)] == wanted


def test_every_api_server_can_ask(start):
    server = start(*FLAGS, "--api-server-count", "2")
    states = [eplb(server) for _ in range(4)]  # each its own connection, given to the server with the fewest
    assert all(state["maps"] == states[0]["maps"] for state in states)
    assert list(metrics(server, "cadre:eplb_epoch").values()) == [1]


def test_one_rank_counts_and_has_nothing_to_move(start):
    server = start("--kv-cache-memory-bytes", "32M", "--enable-eplb", "--eplb-config.step_interval", "20")
    work(server, 3)
    state = eplb(server)
    assert state["layout"] == {"ranks": 1, "slots": 32, "first_slot": [0, 32]}
    assert sum(map(sum, state["load"]["counts"])) > 0 and state["counters"]["moved_experts"] == 0


def test_without_balancing_there_is_nothing_to_see(server):
    answer = httpx.get(server.url + "/eplb")
    assert answer.status_code == 404 and "--enable-eplb" in answer.json()["error"]["message"]
    assert metrics(server, "cadre:eplb_epoch") == {}


@pytest.mark.parametrize("flags, words", [
    (["--enable-eplb", "-dp", "2", "--eplb-record", "/nowhere/at/all.json"], "--eplb-record /nowhere/at/all.json"),
    (["-dp", "2", "--eplb-record", "x.json"], "--eplb-record wants --enable-eplb"),
])
def test_a_record_that_cannot_be_is_refused(flags, words):
    ended = subprocess.run([BIN, "serve", MODEL, "--port", "0", "--kv-cache-memory-bytes", "32M", *flags],
                           capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2 and ended.stderr.count("error") == 1 and words in ended.stdout + ended.stderr


def test_inspect_refuses_what_is_no_load(tmp_path):
    def message(*flags):
        ended = subprocess.run([BIN, "inspect", *flags], capture_output=True, text=True)
        assert ended.returncode == 2, ended.stdout + ended.stderr
        return ended.stderr

    (tmp_path / "a").write_text("{}")
    assert "no recorded load" in message("--load", str(tmp_path / "a"))
    assert "--svg wants --load" in message(MODEL, "--svg", "x.svg")
    assert "give one" in message("--load", "x", "--tensors")
    assert "no model" in message()
