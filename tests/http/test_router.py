"""`cadre router` in front of real servers: streams, a worker that is killed, calls to all, workers from a file."""

import concurrent.futures
import os
import random
import re
import signal
import subprocess
import threading
import time

import httpx
import openai
import pytest

from conftest import BIN, MODEL
from node import Node
from ports import free_port

pytestmark = pytest.mark.skipif(not BIN.exists(), reason="%s is not built" % BIN)

SERVE = ["--kv-cache-memory-bytes", "32M", "--host", "127.0.0.1"]
QUICK = ["--health-check-interval-secs", "0.2", "--worker-startup-check-interval", "0.1", "--health-success-threshold", "1"]
QUESTION = [{"role": "user", "content": "What is 17 + 25?"}]


class Fleet:
    def __init__(self):
        self.nodes = []

    def worker(self, port=None, flags=(), **env):
        port = port or free_port()
        node = Node([BIN, "serve", MODEL, "--port", port, *SERVE, *flags], env=env or None)
        self.nodes.append(node)
        node.url = "http://127.0.0.1:%d" % port
        return node

    def router(self, *flags):
        port = free_port()
        node = Node([BIN, "router", "--port", port, *QUICK, *flags])
        self.nodes.append(node)
        node.wait_for("ready")
        node.url = "http://127.0.0.1:%d" % port
        return node


@pytest.fixture
def fleet():
    made = Fleet()
    yield made
    for node in made.nodes:
        node.kill()


def wait_healthy(router, count, seconds=60):
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        workers = httpx.get(router.url + "/workers").json()["workers"]
        if len(workers) == count and all(one["healthy"] for one in workers):
            return
        time.sleep(0.05)
    raise AssertionError("not %d healthy workers: %s\n%s" % (count, workers, router.log()))


def client_of(node):
    return openai.OpenAI(base_url=node.url + "/v1", api_key="none", max_retries=0, timeout=120)


def to_its_end(stream):
    """Reads the rest of a stream: its finish reason."""
    reason = None
    for chunk in stream:
        if chunk.choices:
            reason = chunk.choices[0].finish_reason or reason
    return reason


def ask(client, model, **more):
    return client.chat.completions.create(model=model, messages=QUESTION, temperature=0, max_tokens=16, **more)


def test_answers_are_those_of_the_worker(fleet):
    ports = free_port(), free_port()
    router = fleet.router(*("http://127.0.0.1:%d" % port for port in ports), "--policy", "round_robin")
    assert httpx.post(router.url + "/v1/completions", json={}).status_code == 503  # nobody is there yet
    one, two = (fleet.worker(port) for port in ports)
    wait_healthy(router, 2)
    client = client_of(router)
    model = client.models.list().data[0].id
    direct = ask(client_of(one), model).choices[0].message.content
    for _ in range(2):
        assert ask(client, model).choices[0].message.content == direct
        pieces = [chunk.choices[0].delta.content or "" for chunk in ask(client, model, stream=True) if chunk.choices]
        assert "".join(pieces) == direct and len(pieces) > 1
    tokens = httpx.post(router.url + "/tokenize", json={"model": model, "prompt": "What is 17 + 25?"}).json()
    assert tokens["count"] == len(tokens["tokens"]) > 0
    with pytest.raises(openai.NotFoundError):
        ask(client, "another-model")
    answer = httpx.post(
        router.url + "/v1/chat/completions",
        json={"model": model, "messages": QUESTION, "max_tokens": 2},
        headers={"X-Request-Id": "from-the-client"},
    )
    assert answer.headers["x-request-id"] == "from-the-client"
    health = httpx.get(router.url + "/health").json()
    assert health["status"] == "ok" and health["healthy_worker"] == 2


def test_killed_worker_breaks_its_streams_with_an_error_and_no_others(fleet):
    one, two = fleet.worker(), fleet.worker()
    router = fleet.router(one.url, two.url, "--policy", "round_robin")
    wait_healthy(router, 2)
    model = client_of(router).models.list().data[0].id
    whole, broken, empty = [], [], []
    first_token = threading.Barrier(9, timeout=60)

    def stream():
        started = False
        try:
            answer = client_of(router).completions.create(
                model=model, prompt="Once", max_tokens=400, stream=True, extra_body={"ignore_eos": True}
            )
            reason = None
            for chunk in answer:
                if chunk.choices:
                    reason = chunk.choices[0].finish_reason or reason
                if not started:
                    started = True
                    first_token.wait()
            (whole if reason == "length" else empty).append(reason)
        except openai.APIError as error:
            broken.append(str(error))

    threads = [threading.Thread(target=stream) for _ in range(8)]
    for thread in threads:
        thread.start()
    first_token.wait()
    os.kill(one.process.pid, signal.SIGKILL)
    # Not started yet: these find the other worker, none fails.
    client = client_of(router)
    for _ in range(6):
        assert ask(client, model).choices[0].message.content
    for thread in threads:
        thread.join(120)
    assert len(whole) == 4 and len(broken) == 4 and not empty, (whole, broken, empty, router.log())
    assert all("broke off" in text for text in broken)
    assert httpx.get(router.url + "/health").json()["status"] == "degraded"


def test_calls_to_all_workers(fleet):
    one, two = fleet.worker(VLLM_SERVER_DEV_MODE="1"), fleet.worker(VLLM_SERVER_DEV_MODE="1")
    router = fleet.router(one.url, two.url)
    wait_healthy(router, 2)
    answer = httpx.post(router.url + "/reset_prefix_cache")
    assert answer.status_code == 200, answer.text
    assert [each["status"] for each in answer.json()["workers"]] == [200, 200]
    os.kill(two.process.pid, signal.SIGKILL)
    answer = httpx.post(router.url + "/reset_prefix_cache")
    assert answer.status_code == 502
    assert [each["status"] for each in answer.json()["workers"]] == [200, 0]


def test_workers_from_a_file_that_changes(fleet, tmp_path):
    one, two = fleet.worker(), fleet.worker()
    path = tmp_path / "workers"
    path.write_text("# the first\n%s\n" % one.url)
    router = fleet.router("--worker-file", path, "--policy", "round_robin")
    wait_healthy(router, 1)
    client = client_of(router)
    model = client.models.list().data[0].id
    running = client.completions.create(
        model=model, prompt="Once", max_tokens=300, stream=True, extra_body={"ignore_eos": True}
    )
    next(running)
    path.write_text(two.url + "\n")
    router.wait_for("%s joins" % two.url)
    wait_healthy(router, 1)
    assert to_its_end(running) == "length"  # its worker has left the list and still answers to the end
    assert ask(client, model).choices[0].message.content
    router.wait_for("%s has drained" % one.url)
    path.write_text("nonsense nonsense\n")
    router.wait_for("the workers stay as they are")
    assert ask(client, model).choices[0].message.content


WORDS = "we the people of united states in order to form more perfect union establish justice insure domestic".split()


def metric(router, name):
    found = re.findall(r"^%s (\S+)$" % re.escape(name), httpx.get(router.url + "/metrics").text, re.M)
    return float(found[0]) if found else 0.0


class Talk:
    """Conversations of several turns under a few system prompts, more than the workers' pools hold."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.systems = [self.some(160) for _ in range(4)]
        self.chats = []
        self.number = 0

    def some(self, words):
        return " ".join(self.random.choice(WORDS) for _ in range(words))

    def body(self):
        self.number += 1
        kind = self.random.random()
        if kind < 0.3:
            return "/v1/completions", {"prompt": self.random.choice(self.systems) + " " + self.some(20)}
        if kind < 0.4:
            return "/v1/completions", {"prompt": [self.random.randrange(3, 400) for _ in range(100)]}
        if kind < 0.5 or not self.chats:
            self.chats.append([{"role": "system", "content": self.random.choice(self.systems)}])
        self.chats = [chat for chat in self.chats if len(chat) < 8] or [self.chats[-1][:1]]
        chat = self.random.choice(self.chats[-6:])
        chat.append({"role": "user", "content": self.some(12)})
        return "/v1/chat/completions", {"messages": list(chat), "chat": chat}


def ask_and_compare(router, path, body, stream):
    """Tokens that the router expected in the worker's cache, those that were, and the text."""
    chat = body.pop("chat", None)
    body = {"max_tokens": 8, "ignore_eos": True, "temperature": 0, "stream": stream, **body}
    if stream:
        body["stream_options"] = {"include_usage": True}
    answer = httpx.post(router.url + path, json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    cached = int(re.findall(r'"cached_tokens": ?(\d+)', answer.text)[-1])
    if chat is not None:
        chat.append({"role": "assistant", "content": "".join(re.findall(r'"content":"([^"\\\\]*)"', answer.text))})
    header = answer.headers.get("x-cadre-predicted-cached-tokens")
    return None if header is None else int(header), cached


@pytest.mark.parametrize("flags, at_once", [((), 1), ((), 3), (("-dp", "2", "-ep"), 1)])
def test_what_workers_hold_is_known(fleet, flags, at_once):
    small = ["--num-gpu-blocks-override", "120", "--max-model-len", "1024", *flags]
    one, two = fleet.worker(flags=small), fleet.worker(flags=small)
    ranks = ["--intra-node-data-parallel-size", "2"] if flags else []
    routers = [fleet.router(one.url, two.url, "--policy", "cache_aware", "--tokenizer", MODEL, *ranks) for _ in range(2)]
    for router in routers:
        wait_healthy(router, 4 if flags else 2)
    talk = Talk(7)
    lock = threading.Lock()

    def turn(i):
        with lock:
            path, body = talk.body()
        # Now and then through another router, whose prompts are seen when they are computed; not among several at once,
        # where the next turn of a conversation may overtake that.
        other = at_once == 1 and i % 5 == 0
        return ask_and_compare(routers[other], path, body, stream=i % 2 == 0)

    time.sleep(1.5)
    count = 240
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        got = list(pool.map(turn, range(count // 2)))
        for worker in (one, two):  # weights do not change, but the cache goes
            httpx.post(worker.url + "/pause", params={"clear_cache": "true"}, timeout=60)
            httpx.post(worker.url + "/resume", timeout=60)
        time.sleep(1.2)
        got += list(pool.map(turn, range(count // 2, count)))
    known = [pair for pair in got if pair[0] is not None]
    assert len(known) >= 0.95 * count, (len(known), routers[0].log())
    near = sum(abs(predicted - cached) <= 16 for predicted, cached in known)
    print("within one block: %d of %d; cached %d, expected %d" % (near, len(known), sum(c for _, c in known), sum(p for p, _ in known)))
    assert near >= 0.95 * len(known), [pair for pair in known if abs(pair[0] - pair[1]) > 16]
    assert sum(c > 0 for _, c in known) > count / 4  # it was worth expecting something
    said = metric(routers[0], 'cadre_router_prediction_error_blocks_bucket{le="1"}')
    assert said >= 0.95 * metric(routers[0], "cadre_router_prediction_error_blocks_count") > 0


def test_a_worker_that_starts_again_holds_nothing(fleet):
    ports = free_port(), free_port()
    one, two = (fleet.worker(port) for port in ports)
    router = fleet.router(one.url, two.url, "--policy", "cache_aware", "--tokenizer", MODEL)
    wait_healthy(router, 2)
    body = {"prompt": " ".join(WORDS * 12)}
    for _ in range(3):
        ask_and_compare(router, "/v1/completions", dict(body), stream=False)
    predicted, cached = ask_and_compare(router, "/v1/completions", dict(body), stream=False)
    assert predicted == cached > 100
    for node, port in ((one, ports[0]), (two, ports[1])):
        node.kill()
        fleet.worker(port)
    wait_healthy(router, 2)
    time.sleep(2)
    assert ask_and_compare(router, "/v1/completions", dict(body), stream=False) == (0, 0)
    predicted, cached = ask_and_compare(router, "/v1/completions", dict(body), stream=False)
    assert predicted == cached > 100


def test_stop_lets_streams_end(fleet):
    one = fleet.worker()
    router = fleet.router(one.url)
    wait_healthy(router, 1)
    client = client_of(router)
    model = client.models.list().data[0].id
    running = client.completions.create(
        model=model, prompt="Once", max_tokens=200, stream=True, extra_body={"ignore_eos": True}
    )
    next(running)
    router.process.send_signal(signal.SIGTERM)
    assert to_its_end(running) == "length"
    assert router.process.wait(20) == 0


def test_metrics(fleet):
    one = fleet.worker()
    router = fleet.router(one.url)
    wait_healthy(router, 1)
    client = client_of(router)
    ask(client, client.models.list().data[0].id)
    text = httpx.get(router.url + "/metrics").text
    assert 'cadre_router_worker_up{role="worker",worker="%s"} 1' % one.url in text
    assert 'cadre_router_worker_requests_total{outcome="ok",role="worker",worker="%s"} 1' % one.url in text


@pytest.mark.parametrize(
    "words, says",
    [
        ([], "no workers"),
        (["--prefill", "http://127.0.0.1:1"], "both roles"),
        (["grpc://127.0.0.1:1"], "http or https"),
        (["http://127.0.0.1:1", "--policy", "best"], "cache_aware"),
        (["http://127.0.0.1:1", "--polcy", "random"], "did you mean --policy"),
    ],
)
def test_wrong_words(words, says):
    done = subprocess.run([str(BIN), "router", *words], capture_output=True, text=True, timeout=30)
    assert done.returncode not in (0, -6, -11) and says in done.stderr, done.stderr


def test_help():
    done = subprocess.run([str(BIN), "router", "--help=all"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0 and "--cb-failure-threshold" in done.stdout
