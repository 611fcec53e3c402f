"""`--api-server-count` above 1: several API server processes on one port, all ranks behind each."""

import collections
import concurrent.futures
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
import time

import httpx
import pytest

from conftest import BIN, MODEL
from node import Node
from ports import free_port
from test_nodes import QUESTION, alive, ask, stream_until_cut

pytestmark = pytest.mark.skipif(not BIN.exists(), reason="%s is not built" % BIN)

SMALL = ["--kv-cache-memory-bytes", "32M"]


@pytest.fixture
def serve():
    running = []

    def start(*flags, ready=True, model=MODEL):
        running.append(Node([BIN, "serve", model, *SMALL, *flags]))
        if ready:
            running[-1].wait_for("ready after")
        return running[-1]

    yield start
    for node in running:
        node.kill()


def children(node, word):
    """Pids of the node's processes of a kind, by the word that starts their command line."""
    found = {}
    for pid in node.ranks():
        try:
            words = open("/proc/%d/cmdline" % pid).read().split("\0")
        except FileNotFoundError:
            continue
        if len(words) > 2 and words[1] == word:  # none in a process that is ending
            found[int(words[2])] = pid
    return found


def acceptors(node):
    return children(node, "acceptor")


def metric(port, name, **labels):
    """The sum over all samples with these labels."""
    text = httpx.get("http://127.0.0.1:%d/metrics" % port).text
    total = 0
    for line in text.splitlines():
        found = re.match(r"%s\{(.*)\} (\S+)$" % re.escape(name), line)
        if found and all('%s="%s"' % item in found.group(1) for item in labels.items()):
            total += float(found.group(2))
    return total


def complete(port, prompt, **body):
    body = {"prompt": prompt, "temperature": 0, "max_tokens": 8, "ignore_eos": True, **body}
    return httpx.post("http://127.0.0.1:%d/v1/completions" % port, json=body, timeout=60)


def test_one_port_many_processes_one_answer(serve):
    port = free_port()
    node = serve("-dp", 2, "-ep", "--api-server-count", 3, "--port", port)
    assert "3 API servers share http://0.0.0.0:%d" % port in node.log()
    assert sorted(acceptors(node)) == [0, 1, 2]
    # Every process that took a connection counts its own requests; any of them answers for all.
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda i: complete(port, [20 + i] * 30), range(48)))
    assert [a.status_code for a in answers] == [200] * 48
    for _ in range(6):
        assert metric(port, "vllm:request_success_total", finished_reason="length") == 48
        assert metric(port, "vllm:e2e_request_latency_seconds_count") == 48
        assert metric(port, "vllm:generation_tokens_total") == 48 * 8
    assert metric(port, "vllm:request_success_total", engine="0") == pytest.approx(24, abs=6)
    assert httpx.get("http://127.0.0.1:%d/load" % port).json() == {"server_load": 0}
    for rank in range(2):
        assert ask(port, **{"X-data-parallel-rank": str(rank)}) == "42"
    node.process.terminate()
    assert node.end() == 0


def sockets(pid):
    names = []
    for fd in os.listdir("/proc/%d/fd" % pid):
        try:
            names.append(os.readlink("/proc/%d/fd/%s" % (pid, fd)))
        except OSError:
            pass
    return sum(name.startswith("socket:") for name in names)


def test_open_streams_are_spread_over_the_processes(serve):
    port = free_port()
    node = serve("--api-server-count", 3, "--port", port)
    before = {i: sockets(pid) for i, pid in acceptors(node).items()}
    lines = [[] for _ in range(12)]
    threads = []
    for mine in lines:
        threads.append(threading.Thread(target=stream_until_cut, args=(port, mine)))
        threads[-1].start()
        while not mine:
            time.sleep(0.005)
    spread = {i: sockets(pid) - before[i] for i, pid in acceptors(node).items()}
    assert sorted(spread.values()) == [4, 4, 4], spread
    node.kill()
    for thread in threads:
        thread.join()


def test_engine_leaves_the_process_at_one_rank(serve):
    port = free_port()
    node = serve("--api-server-count", 2, "--port", port)
    assert len(children(node, "rank")) == 1
    assert ask(port) == "42"
    node.process.terminate()
    assert node.end() == 0


def test_a_dead_acceptor_takes_only_its_own_clients_with_it(serve):
    port = free_port()
    node = serve("-dp", 2, "-ep", "--api-server-count", 2, "--port", port)
    assert complete(port, "Hello").status_code == 200
    counted = metric(port, "vllm:request_success_total")
    lines = [[] for _ in range(4)]
    streams = [threading.Thread(target=stream_until_cut, args=(port, mine)) for mine in lines]
    for thread, mine in zip(streams, lines):
        thread.start()
        while not mine:
            time.sleep(0.005)
    victim = acceptors(node)[0]
    os.kill(victim, signal.SIGKILL)
    node.wait_for("API server 0 was killed by SIGKILL")
    def cut():
        return sum(bool(mine) and mine[-1].startswith("broken") for mine in lines)

    deadline = time.time() + 5
    while cut() < 2 and time.time() < deadline:  # the clients' threads may be late on a busy machine
        time.sleep(0.05)
    time.sleep(0.3)
    assert cut() == 2, lines
    assert complete(port, "Hello").status_code == 200  # the other one, and soon the new one
    deadline = time.time() + 20
    while acceptors(node).get(0) in (None, victim) or metric(port, "vllm:num_requests_running") > 2:
        assert time.time() < deadline, "the dead one's requests go on, or it is not started again"
        time.sleep(0.1)
    assert metric(port, "vllm:request_success_total") >= counted  # what it had counted is not lost
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert {a.status_code for a in pool.map(lambda i: complete(port, [20 + i] * 9), range(16))} == {200}
    everybody = node.ranks()
    node.process.terminate()
    for _ in range(2):
        time.sleep(0.1)
    for thread in streams:
        thread.join(40)
    assert node.end(45) == 0
    assert not any(alive(pid) for pid in everybody)


def test_acceptors_that_keep_dying_end_the_deployment(serve):
    port = free_port()
    node = serve("--api-server-count", 2, "--port", port)
    deadline = time.time() + 60
    while node.process.poll() is None and time.time() < deadline:
        for pid in acceptors(node).values():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.05)
    assert node.end() == 7
    assert re.search(r"API servers died \d+ times within 60 s", node.log())


@pytest.mark.parametrize("victim", ["rank", "parent"])
def test_nothing_is_left_behind(serve, victim):
    port = free_port()
    node = serve("-dp", 2, "-ep", "--api-server-count", 2, "--port", port)
    everybody = node.ranks()
    lines = []
    client = threading.Thread(target=stream_until_cut, args=(port, lines))
    client.start()
    while len(lines) < 10:
        time.sleep(0.01)
    begin = time.time()
    if victim == "rank":
        os.kill(children(node, "rank")[1], signal.SIGKILL)
        assert node.end() == 7
        assert "rank 1 was killed by SIGKILL" in node.log()
    else:
        node.process.kill()
    client.join(5)
    assert not client.is_alive() and time.time() - begin < 5
    if victim == "rank":
        assert any('"code":503' in line for line in lines), lines[-3:]
    deadline = time.time() + 5
    while any(alive(pid) for pid in everybody):
        assert time.time() < deadline, "processes are left behind"
        time.sleep(0.05)
    with pytest.raises(httpx.ConnectError):
        httpx.get("http://127.0.0.1:%d/health" % port)


def test_sigterm_drains_all(serve):
    port = free_port()
    node = serve("--api-server-count", 3, "--port", port)
    results = []
    threads = [threading.Thread(target=lambda i=i: results.append(complete(port, [20 + i] * 9, max_tokens=200)))
               for i in range(6)]
    for thread in threads:
        thread.start()
    while metric(port, "vllm:num_requests_running") + metric(port, "vllm:num_requests_waiting") < 6:
        time.sleep(0.01)
    node.process.terminate()
    deadline = time.time() + 5
    while True:
        try:
            if complete(port, "Late").status_code == 503:
                break
        except httpx.HTTPError:
            break
        assert time.time() < deadline
    for thread in threads:
        thread.join()
    assert [r.status_code for r in results] == [200] * 6
    assert {len(r.json()["choices"][0]["text"]) > 0 for r in results} == {True}
    assert node.end() == 0


def test_the_port_says_503_until_all_ranks_are_there(serve):
    port, meet = free_port(), free_port()
    common = ["-dp", 2, "-dpl", 1, "-ep", "-dpa", "127.0.0.1", "-dpp", meet]
    first = serve(*common, "--api-server-count", 2, "--port", port, ready=False)
    first.wait_for("waiting for rank 1")
    time.sleep(0.2)
    seen = {httpx.get("http://127.0.0.1:%d/health" % port).json()["error"]["message"] for _ in range(8)}
    assert all("waiting for rank 1 (of 2 ranks in all)" in text for text in seen), seen
    assert first.log().count("waiting for rank 1 (of 2 ranks in all)") == 1
    second = serve(*common, "-dpr", 1, "--headless", ready=False)
    first.wait_for("ready after")
    for rank in range(2):
        assert ask(port, **{"X-data-parallel-rank": str(rank)}) == "42"
    victim = acceptors(first)[1]  # a new one is connected to the rank on the other node, too
    os.kill(victim, signal.SIGKILL)
    first.wait_for("API server 1 was killed")
    time.sleep(1.5)
    assert set(acceptors(first)) == {0, 1}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda i: ask(port, **{"X-data-parallel-rank": str(i % 2)}), range(16))
        assert set(answers) == {"42"}
    first.process.terminate()
    assert (first.end(), second.end()) == (0, 0)


def test_unix_socket(serve, tmp_path):
    path = str(tmp_path / "socket")
    node = serve("--api-server-count", 2, "--uds", path)
    transport = httpx.HTTPTransport(uds=path)
    with httpx.Client(transport=transport) as client:
        answer = client.post("http://localhost/v1/chat/completions", json=QUESTION, timeout=60)
        assert answer.json()["choices"][0]["message"]["content"] == "42"
    node.process.terminate()
    assert node.end() == 0
    assert not os.path.exists(path)


def test_tls_and_any_port(serve, tmp_path):
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
                    "-keyout", key, "-out", cert], check=True, capture_output=True)
    node = serve("--api-server-count", 2, "--port", 0, "--ssl-keyfile", key, "--ssl-certfile", cert)
    port = int(re.search(r"ready after .*: https://0.0.0.0:(\d+)", node.log()).group(1))
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    answer = httpx.post("https://127.0.0.1:%d/v1/chat/completions" % port, json=QUESTION, verify=context, timeout=60)
    assert answer.json()["choices"][0]["message"]["content"] == "42"


def test_what_is_wrong_is_said_once_and_before_the_weights(serve, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        node = serve("--api-server-count", 2, "--host", "127.0.0.1", "--port", taken.getsockname()[1], ready=False)
        assert node.end() == 7
        assert node.log().count("cannot listen on") == 1
    node = serve("--api-server-count", 2, "--port", 0, "--chat-template", "{% if %}", ready=False)
    assert node.end() == 2
    assert "loading weights" not in node.log()
    assert node.log().count(" error ") == 1, node.log()
    for count, words in ((-1, "api-server-count"), (100000, "api-server-count")):
        node = serve("--api-server-count", count, ready=False)
        assert node.end() == 2 and words in node.log()


def test_shared_prefixes_hit_and_no_rank_starves(serve):
    port = free_port()
    node = serve("-dp", 3, "-ep", "--api-server-count", 2, "--port", port)
    system = [100 + i % 50 for i in range(480)]  # 30 blocks
    for i in range(6):  # one after the other: the rank that has it is best
        assert complete(port, system + [30 + i] * 5).status_code == 200
    deadline = time.time() + 10
    while True:  # ranks tell their figures a moment after the answer
        hits = [metric(port, "vllm:prefix_cache_hits_total", engine=str(r)) for r in range(3)]
        if sum(hits) >= 5 * 480 or time.time() > deadline:
            break
        time.sleep(0.05)
    assert max(hits) == sum(hits) >= 5 * 480, hits
    with concurrent.futures.ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(lambda i: complete(port, system + [20 + i] * 5, max_tokens=16), range(90)))
    assert collections.Counter(a.status_code for a in answers) == {200: 90}
    done = [metric(port, "vllm:request_success_total", engine=str(r)) for r in range(3)]
    assert sum(done) == 96 and min(done) >= 10, done
    # Requests on a rank in its first steps miss; those that come later hit.
    assert metric(port, "vllm:prefix_cache_hits_total") >= 0.5 * 90 * 480
    node.process.terminate()
    assert node.end() == 0
