"""Prefill in one server, decode in another, as clients drive them: the documents' script, a proxy's two requests, and
what happens when one side is slow, stopped, gone or not the right one. The truth is one server that does both."""

import concurrent.futures
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid

import httpx
import pytest

from conftest import BIN, MODEL, ROOT, Server
from node import Node
from ports import free_port

pytestmark = pytest.mark.skipif(not BIN.exists(), reason="%s is not built" % BIN)

TEXT = "We the People of the United States, in Order to form a more perfect Union, establish Justice, insure domestic "
ASK = {"do_remote_decode": True, "do_remote_prefill": False, "remote_engine_id": None, "remote_block_ids": None,
       "remote_host": None, "remote_port": None}


def config(role="kv_both", connector="NixlConnector", **more):
    return ["--kv-transfer-config", json.dumps({"kv_connector": connector, "kv_role": role, **more})]


@contextlib.contextmanager
def serve(*flags, model=MODEL, **env):
    """A server of one thread: several of them share this machine."""
    before = dict(os.environ)
    os.environ.update({"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1", **env})
    try:
        server = Server([str(BIN), "serve", model, "--port", "0", "--kv-cache-memory-bytes", "16M", "--dtype", "float32",
                         "--served-model-name", "m", *flags])
    finally:
        os.environ.clear()
        os.environ.update(before)
    try:
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(server.process.pid, signal.SIGCONT)
        server.stop()


@pytest.fixture(scope="module")
def one():
    with serve() as server:
        yield server


@pytest.fixture(scope="module")
def prefill():
    with serve(*config("kv_producer")) as server:
        yield server


@pytest.fixture(scope="module")
def decode():
    with serve(*config("kv_consumer")) as server:
        yield server


def post(server, path="/v1/completions", headers=None, status=200, timeout=60, **body):
    answer = httpx.post(server.url + path, json={"model": "m", "temperature": 0, **body}, headers=headers or {}, timeout=timeout)
    assert answer.status_code == status, answer.text
    return answer.json()


def ask_prefill(server, prompt=TEXT, headers=None, **body):
    return post(server, prompt=prompt, max_tokens=1, kv_transfer_params=ASK, headers=headers, **body)["kv_transfer_params"]


def ask_decode(server, params, prompt="This prompt is ignored during decode", **body):
    return post(server, prompt=prompt, kv_transfer_params=params, **{"max_tokens": 24, "ignore_eos": True, **body})


def alone(server, prompt=TEXT, **body):
    return post(server, prompt=prompt, **{"max_tokens": 24, "ignore_eos": True, **body})


def text(answer):
    return answer["choices"][0]["text"]


def counter(server, name):
    found = re.findall(r"^%s\{.*\} (\S+)$" % re.escape(name), httpx.get(server.url + "/metrics", timeout=30).text, re.M)
    assert found, name
    return sum(map(float, found))


def until(check, seconds=30):
    deadline = time.time() + seconds
    while time.time() < deadline:
        if check():
            return
        time.sleep(0.1)
    raise AssertionError("not within %d s" % seconds)


def free(server):
    """Nothing is held and nobody fetches: all blocks are where they belong."""
    return counter(server, "cadre:kv_held_requests") == 0 and counter(server, "cadre:kv_fetching_requests") == 0 and \
        counter(server, "vllm:kv_cache_usage_perc") == 0


# ---- as it should be


def test_the_documents_script(one, prefill, decode):
    before = counter(decode, "cadre:kv_fetched_tokens_total")
    done = subprocess.run([sys.executable, str(ROOT / "examples/disaggregated/pair.py"), prefill.url + "/v1", decode.url + "/v1"],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    prompt = re.search(r'"(Explain in detail.*?)"', (ROOT / "examples/disaggregated/pair.py").read_text()).group(1)
    assert done.stdout == text(post(one, prompt=prompt, max_tokens=150)) + "\n"
    assert counter(decode, "cadre:kv_fetched_tokens_total") > before
    until(lambda: free(prefill) and free(decode))


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 31, 32, 33, 100])
def test_every_length_of_prompt(one, prefill, decode, length):
    ids = [(length * 31 + i * 17) % 500 + 3 for i in range(length)]
    params = ask_prefill(prefill, prompt=ids)
    assert params["do_remote_prefill"] is True and params["do_remote_decode"] is False
    assert params["remote_num_tokens"] == length and params["remote_token_ids"] == ids
    assert params["remote_host"] and params["remote_port"] and params["remote_engine_id"] and params["remote_request_id"]
    before = counter(decode, "cadre:kv_fetched_tokens_total")
    answer = ask_decode(decode, params, prompt=[1, 2, 3])
    assert text(answer) == text(alone(one, prompt=ids))
    assert answer["usage"]["prompt_tokens"] == length
    assert counter(decode, "cadre:kv_fetched_tokens_total") - before == length - 1
    until(lambda: free(prefill))


def test_a_longer_prompt_of_which_decode_has_the_beginning(one, prefill, decode):
    ids = [i * 13 % 500 + 3 for i in range(90)]
    ask_decode(decode, ask_prefill(prefill, prompt=ids[:48]))
    before = counter(decode, "cadre:kv_fetched_tokens_total")
    answer = ask_decode(decode, ask_prefill(prefill, prompt=ids))
    assert text(answer) == text(alone(one, prompt=ids))
    assert counter(decode, "cadre:kv_fetched_tokens_total") - before == 90 - 1 - 48
    before = counter(decode, "cadre:kv_fetched_tokens_total")
    again = ask_decode(decode, ask_prefill(prefill, prompt=ids[:81]))  # all of it is here already
    assert text(again) == text(alone(one, prompt=ids[:81]))
    assert counter(decode, "cadre:kv_fetched_tokens_total") == before
    until(lambda: free(prefill))


def proxy(prefill, decode, path, body, request_id=None):
    """What the routers in front of such pairs do with one client's request."""
    headers = {"X-Request-Id": request_id or str(uuid.uuid4())}
    first = {**body, "kv_transfer_params": ASK, "stream": False, "max_tokens": 1}
    if "max_completion_tokens" in first:
        first["max_completion_tokens"] = 1
    for name in ("stream_options", "min_tokens", "min_completion_tokens"):
        first.pop(name, None)
    answer = httpx.post(prefill.url + path, json=first, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    second = {**body, "kv_transfer_params": answer.json()["kv_transfer_params"]}
    return httpx.post(decode.url + path, json=second, headers=headers, timeout=60)


def test_a_proxy_with_chat_and_streams(one, prefill, decode):
    chat = {"model": "m", "temperature": 0, "messages": [{"role": "user", "content": "What is 17 + 25? Think about it well."}],
            "max_completion_tokens": 20}
    wanted = httpx.post(one.url + "/v1/chat/completions", json=chat, timeout=60).json()
    got = proxy(prefill, decode, "/v1/chat/completions", chat, "abc-1")
    assert got.headers["X-Request-Id"] == "abc-1"
    assert got.json()["choices"][0]["message"]["content"] == wanted["choices"][0]["message"]["content"]
    assert got.json()["usage"]["prompt_tokens"] == wanted["usage"]["prompt_tokens"]
    stream = {"model": "m", "temperature": 0, "prompt": TEXT, "max_tokens": 20, "stream": True,
              "stream_options": {"include_usage": True}}
    events = [json.loads(line[6:]) for line in proxy(prefill, decode, "/v1/completions", stream).text.splitlines()
              if line.startswith("data: {")]
    assert "".join(e["choices"][0]["text"] for e in events if e["choices"]) == text(post(one, prompt=TEXT, max_tokens=20))


def test_many_at_once(one, prefill, decode):
    prompts = [[(k * 101 + i * 7) % 500 + 3 for i in range(20 + 9 * k)] for k in range(16)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda p: text(ask_decode(decode, ask_prefill(prefill, prompt=p))), prompts))
    assert got == [text(alone(one, prompt=p)) for p in prompts]
    until(lambda: free(prefill) and free(decode))


def test_several_answers_to_one_prompt(one, prefill, decode):
    drawn = {"n": 3, "temperature": 1, "seed": 7}
    answer = ask_decode(decode, ask_prefill(prefill), **drawn)
    assert [c["text"] for c in answer["choices"]] == [c["text"] for c in alone(one, **drawn)["choices"]]
    until(lambda: free(prefill))


def test_whole_requests_are_served_by_either(one, prefill, decode):
    for server, role in ((prefill, "kv_producer"), (decode, "kv_consumer")):
        for _ in range(2):
            answer = alone(server)
            assert text(answer) == text(alone(one)) and answer["kv_transfer_params"] is None
        assert "".join(server.lines).count("this %s instance computes prompt and answer itself" % role) == 1
    # Null flags, and the object that asks for nothing.
    for params in ({}, {name: None for name in ASK}, {"do_remote_decode": False}):
        assert text(alone(prefill, kv_transfer_params=params)) == text(alone(one))


def test_shapes_of_block_ids_and_wrong_members(one, prefill, decode):
    params = ask_prefill(prefill)
    assert text(ask_decode(decode, {**params, "remote_block_ids": params["remote_block_ids"][0]})) == text(alone(one))
    params = ask_prefill(prefill)
    for name, value in (("do_remote_prefill", "yes"), ("remote_block_ids", [1, "x"]), ("remote_port", 70000), ("remote_host", 5),
                        ("remote_token_ids", "abc"), ("remote_token_ids", [10 ** 7]), ("remote_num_tokens", -1)):
        answer = post(decode, prompt="x", kv_transfer_params={**params, name: value}, status=400)
        assert "kv_transfer_params.%s" % name in json.dumps(answer), (name, answer)
    assert text(ask_decode(decode, params)) == text(alone(one))
    # Without its source's name the request is served all the same.
    assert text(ask_decode(decode, {**ask_prefill(prefill), "remote_engine_id": None})) == text(alone(one))
    assert "Got invalid KVTransferParams" in "".join(decode.lines)
    assert "--kv-transfer-config" in json.dumps(post(one, prompt="x", kv_transfer_params=ASK, status=400))


def test_an_id_runs_once_in_a_role(prefill):
    headers = {"X-Request-Id": "twice"}
    url, body = prefill.url + "/v1/completions", {"prompt": TEXT * 20, "max_tokens": 1, "kv_transfer_params": ASK}
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: httpx.post(url, json=body, headers=headers, timeout=60), range(4)))
    codes = sorted(a.status_code for a in answers)
    assert codes[0] == 200 and set(codes) <= {200, 400}
    for answer in answers:
        assert answer.headers["X-Request-Id"] == "twice"
        if answer.status_code == 400:
            assert "twice is running here already as prefill" in answer.text
    # Afterwards it may come again, though the first one's blocks are still held.
    assert ask_prefill(prefill, headers=headers)["remote_request_id"]


def test_one_instance_is_both_sides(one):
    with serve(*config(), "--no-enable-prefix-caching") as both:
        headers = {"X-Request-Id": "same"}
        for _ in range(2):
            params = ask_prefill(both, headers=headers)
            assert text(ask_decode(both, params, headers=headers)) == text(alone(one))
        assert counter(both, "cadre:kv_fetched_tokens_total") > 0
        until(lambda: free(both))


def test_the_next_turn_comes_back(one, prefill):
    with serve(*config("kv_both", kv_connector_extra_config={"bidirectional": True}), "--no-enable-prefix-caching") as second:
        with serve(*config("kv_both"), "--no-enable-prefix-caching") as first:
            ids = [i * 11 % 500 + 3 for i in range(40)]
            answer = ask_decode(second, ask_prefill(first, prompt=ids), return_token_ids=True)
            back = answer["kv_transfer_params"]
            assert back["do_remote_decode"] is True and back["do_remote_prefill"] is False
            said = answer["choices"][0]["token_ids"]
            assert back["remote_token_ids"] == ids + said[:-1]
            turn = ids + said + [i * 3 % 500 + 3 for i in range(30)]
            before = counter(first, "cadre:kv_fetched_tokens_total")
            there = post(first, prompt=turn, max_tokens=1, kv_transfer_params=back)["kv_transfer_params"]
            assert counter(first, "cadre:kv_fetched_tokens_total") - before == len(ids + said) - 1
            assert text(ask_decode(second, there)) == text(alone(one, prompt=turn))
            until(lambda: free(first))


def test_pairs_that_meet_by_the_request_id(one):
    kv = free_port(), free_port()
    with serve(*config("kv_producer", "P2pNcclConnector", kv_ip="127.0.0.1", kv_port=str(kv[0]), kv_buffer_size="1e1")) as p:
        with serve(*config("kv_consumer", "P2pNcclConnector", kv_ip="127.0.0.1", kv_port=str(kv[1]))) as d:
            for length in (5, 70):
                ids = [i * 29 % 500 + 3 for i in range(length)]
                headers = {"X-Request-Id": "___prefill_addr_127.0.0.1:%d___decode_addr_127.0.0.1:%d_%s" % (*kv, uuid.uuid4().hex),
                           "X-KV-Target": "127.0.0.1:%d" % kv[1]}
                post(p, prompt=ids, max_tokens=1, headers=headers)
                before = counter(d, "cadre:kv_fetched_tokens_total")
                assert text(post(d, prompt=ids, max_tokens=24, ignore_eos=True, headers=headers)) == text(alone(one, prompt=ids))
                assert counter(d, "cadre:kv_fetched_tokens_total") - before == length - 1
            # Another prompt under a known id gets its own answer.
            post(p, prompt=ids, max_tokens=1, headers=headers)
            other = [i * 41 % 500 + 3 for i in range(70)]
            assert text(post(d, prompt=other, max_tokens=24, ignore_eos=True, headers=headers)) == text(alone(one, prompt=other))


def test_pairs_by_request_id_reach_the_rank_that_it_names(one):
    kv = 20000 + os.getpid() % 20000
    with serve(*config("kv_producer", "P2pNcclConnector", kv_ip="127.0.0.1", kv_port=str(kv)), "-dp", "2", "-ep") as p, \
            serve(*config("kv_consumer", "P2pNcclConnector", kv_ip="127.0.0.1", kv_port=str(free_port()))) as d:
        for i in range(6):
            prompt = [(k * 29 + i * 7) % 500 + 3 for k in range(70)]
            headers = {"X-Request-Id": "___prefill_addr_127.0.0.1:%d___decode_addr_127.0.0.1:9_%s" % (kv + i % 2, uuid.uuid4().hex)}
            post(p, prompt=prompt, max_tokens=1, headers=headers)
            assert text(post(d, prompt=prompt, max_tokens=24, ignore_eos=True, headers=headers)) == text(alone(one, prompt=prompt))
        assert counter(d, "cadre:kv_recomputed_requests_total") == 0, "".join(d.lines)
        # Two ranks exchange rows, one does not; blocks are counted elsewhere.
        assert counter(p, "cadre:exchange_bytes_total") > 0 == counter(d, "cadre:exchange_bytes_total")
        assert counter(p, "cadre:exchange_wire_bytes_total") == 0


def pushed(prefill, decode, where, prompt, **body):
    """Both sides are asked at once."""
    headers = {"X-Request-Id": str(uuid.uuid4())}
    there = {"do_remote_prefill": True, "push": True, "remote_host": where["remote_host"], "remote_port": where["remote_port"]}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(post, decode, headers=headers, prompt=prompt, kv_transfer_params=there,
                             **{"max_tokens": 24, "ignore_eos": True, **body})
        post(prefill, headers=headers, prompt=prompt, max_tokens=1, kv_transfer_params={"do_remote_decode": True, "push": True})
        return answer.result()


def test_both_sides_asked_at_once(one, prefill, decode):
    where = ask_prefill(prefill)
    for length in (1, 5, 33, 400):
        ids = [(i * 37 + length) % 500 + 3 for i in range(length)]
        before = counter(decode, "cadre:kv_fetched_tokens_total")
        assert text(pushed(prefill, decode, where, ids)) == text(alone(one, prompt=ids)), length
        assert counter(decode, "cadre:kv_fetched_tokens_total") - before == length - 1
    params = {"do_remote_decode": True, "push": True}
    assert "X-Request-Id" in json.dumps(post(prefill, prompt=TEXT, kv_transfer_params=params, status=400))


@pytest.mark.parametrize("there, here", [(["-tp", "2"], []), ([], ["-tp", "2"]), (["-dp", "2", "-ep"], []), ([], ["-dp", "2", "-ep"]),
                                         (["-tp", "2", "--block-size", "32"], ["-tp", "2", "-dp", "2", "-ep"]),
                                         (["-dp", "2", "-ep", "--all2all-backend", "deepep_high_throughput"],
                                          ["-dp", "2", "-ep", "--all2all-backend", "deepep_low_latency"])])
def test_other_layouts_of_ranks_on_the_two_sides(one, there, here):
    with serve(*config(), *there) as p, serve(*config(), *here) as d:
        prompts = [[(k * 57 + i * 7) % 500 + 3 for i in range(20 + 23 * k)] for k in range(6)]
        for prompt in prompts:
            assert text(ask_decode(d, ask_prefill(p, prompt=prompt))) == text(alone(one, prompt=prompt))
        where = ask_prefill(p)
        if "-dp" not in there:
            ids = [i * 43 % 500 + 3 for i in range(300)]
            assert text(pushed(p, d, where, ids)) == text(alone(one, prompt=ids))
        assert counter(d, "cadre:kv_recomputed_requests_total") == 0, "".join(d.lines)
        assert counter(d, "cadre:kv_fetched_tokens_total") > 0
        engines = {ask_prefill(p, prompt=[k, k + 1, k + 2])["remote_engine_id"] for k in range(8)}
        assert {e[-4:] for e in engines} == {"_dp0", "_dp1"} if "-dp" in there else len(engines) == 1
        if "-dp" in there:
            chosen = ask_prefill(p, headers={"X-data-parallel-rank": "1"})
            assert chosen["remote_engine_id"].endswith("_dp1")
            assert text(ask_decode(d, chosen)) == text(alone(one))


GOLDEN = os.path.join(os.environ.get("CADRE_GOLDEN", str(ROOT.parent / "shared/golden")), "models")


# For tests that take a `name`.
families = pytest.mark.parametrize("name", sorted(n for n in (os.listdir(GOLDEN) if os.path.isdir(GOLDEN) else ["none"])
                                                  if "deepseek_v3" in n or "mixtral" in n or n == "none"))


def golden_model(name):
    folder = os.path.join(GOLDEN, name)
    if not os.path.isdir(folder):
        pytest.skip("no models in %s (CADRE_GOLDEN)" % GOLDEN)
    return folder


@families
def test_families(name):
    folder = golden_model(name)
    flags = ["--skip-tokenizer-init"]
    ids = [3 + i * 5 % 60 for i in range(40)]
    body = {"prompt": ids, "max_tokens": 12, "ignore_eos": True, "return_token_ids": True}
    tokens = lambda answer: answer["choices"][0]["token_ids"]
    with serve(*flags, model=folder) as single, serve(*config(), *flags, "-tp", "2", model=folder) as p, \
            serve(*config(), *flags, model=folder) as d:
        wanted = tokens(post(single, **body))
        params = post(p, **{**body, "max_tokens": 1}, kv_transfer_params=ASK)["kv_transfer_params"]
        assert tokens(post(d, **body, kv_transfer_params=params)) == wanted
        assert counter(d, "cadre:kv_fetched_tokens_total") == len(ids) - 1, "".join(d.lines)


@contextlib.contextmanager
def router_before(prefill, decode, *flags):
    port = free_port()
    node = Node([BIN, "router", "--port", port, "--prefill", prefill.url, "--decode", decode.url, "--health-check-interval-secs", "0.2",
                 "--worker-startup-check-interval", "0.1", "--health-success-threshold", "1", "--policy", "round_robin", *flags])
    try:
        node.wait_for("ready")
        node.url = "http://127.0.0.1:%d" % port
        until(lambda: httpx.get(node.url + "/health").json()["status"] == "ok")
        yield node
    finally:
        node.kill()


def transfers(router, mode):
    found = re.findall(r'^cadre_router_kv_transfers_total\{mode="%s"\} (\S+)$' % mode, httpx.get(router.url + "/metrics").text, re.M)
    return float(found[0]) if found else 0


@pytest.mark.parametrize("there, here", [([], []), (["-dp", "2", "-ep"], []), (["-tp", "2"], ["-dp", "2", "-ep"])])
def test_the_router_asks_both_at_once(one, there, here):
    with serve(*config(), *there) as p, serve(*config(), *here) as d, router_before(p, d) as router:
        places = httpx.get(p.url + "/kv_transfer").json()
        assert places["push"] is True and [r["rank"] for r in places["ranks"]] == list(range(2 if "-dp" in there else 1))
        prompts = [[(k * 59 + i * 7) % 500 + 3 for i in range(3 + 41 * k)] for k in range(8)]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            got = list(pool.map(lambda ids: text(alone(router, prompt=ids)), prompts))
        assert got == [text(alone(one, prompt=ids)) for ids in prompts]
        chat = {"messages": [{"role": "user", "content": TEXT}], "max_tokens": 20, "stream": True}
        events = httpx.post(router.url + "/v1/chat/completions", json={"model": "m", "temperature": 0, **chat}, timeout=60).text
        pieces = [json.loads(line[6:])["choices"] for line in events.splitlines() if line.startswith("data: {")]
        wanted = post(one, "/v1/chat/completions", **{**chat, "stream": False})["choices"][0]["message"]["content"]
        assert "".join(c[0]["delta"].get("content") or "" for c in pieces if c) == wanted
        assert transfers(router, "push") == len(prompts) + 1 and transfers(router, "pull") == 0
        assert counter(d, "cadre:kv_recomputed_requests_total") == 0, "".join(d.lines)
        assert counter(d, "cadre:kv_fetched_tokens_total") >= sum(len(ids) - 1 for ids in prompts)
        # What decode has already it does not want, and prefill need not keep it.
        again = [text(alone(router, prompt=ids)) for ids in prompts]
        assert again == got
        until(lambda: free(p) and free(d), 15)


@pytest.mark.parametrize("mode", ["push", "pull"])
def test_what_decode_can_do_alone_goes_there_alone(one, mode):
    flags = ["--prefill-threshold", "64", "--tokenizer", MODEL, "--decode-policy", "cache_aware", "--kv-transfer-mode", mode]
    with serve(*config()) as p, serve(*config()) as d, router_before(p, d, *flags) as router:
        def pairs_of(**body):
            before = transfers(router, mode)
            assert text(alone(router, **body)) == text(alone(one, **body))
            return transfers(router, mode) - before

        time.sleep(1.5)  # until it is known that decode holds nothing
        ids = [i * 31 % 500 + 3 for i in range(400)]
        assert pairs_of(prompt=ids[:63]) == 0
        assert pairs_of(prompt=ids[:200]) == 1
        assert pairs_of(prompt=ids[:200]) == 0  # decode has it now
        assert pairs_of(prompt=ids[:200] + [7] * 40) == 0
        assert pairs_of(prompt=ids[:200] + [8] * 90) == 1
        assert pairs_of(prompt="x") == 0 and pairs_of(prompt=TEXT * 8) == 1
        httpx.post(d.url + "/pause", params={"clear_cache": "true"}).raise_for_status()
        httpx.post(d.url + "/resume").raise_for_status()
        time.sleep(1.5)
        assert pairs_of(prompt=ids[:200]) == 1  # it has it no more
        until(lambda: free(p) and free(d), 15)


def test_a_pushed_pair_whose_prefill_dies_ends_all_the_same(one):
    with serve(*config()) as d, serve(*config(), "--max-num-batched-tokens", "16", "--max-num-seqs", "8") as p, router_before(p, d) as router:
        ids = [i * 13 % 500 + 3 for i in range(900)]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            waiting = [pool.submit(alone, router, prompt=ids[k:]) for k in range(4)]
            until(lambda: counter(d, "cadre:kv_fetching_requests") > 0)
            os.kill(p.process.pid, signal.SIGSTOP)  # nothing more comes from it, and all get on their way
            until(lambda: counter(d, "cadre:kv_fetching_requests") + sum(w.done() for w in waiting) == 4)
            p.process.kill()
            p.process.wait()
            got = [text(w.result()) for w in waiting]
        assert got == [text(alone(one, prompt=ids[k:])) for k in range(4)]
        until(lambda: free(d))


@pytest.mark.parametrize("by_id", [False, True])
def test_the_router_in_front(one, by_id):
    kv = free_port(), free_port()
    flags = [config(connector="P2pNcclConnector", kv_ip="127.0.0.1", kv_port=port) for port in kv] if by_id else [config()] * 2
    with serve(*flags[0]) as p, serve(*flags[1]) as d:
        port = free_port()
        addresses = ["--prefill-kv-addrs", "127.0.0.1:%d" % kv[0], "--decode-kv-addrs", "127.0.0.1:%d" % kv[1]] if by_id else []
        router = Node([BIN, "router", "--port", port, "--prefill", p.url, "--decode", d.url, *addresses,
                       "--worker-startup-check-interval", "0.1", "--health-success-threshold", "1"])
        try:
            router.wait_for("ready")
            router.url = "http://127.0.0.1:%d" % port
            until(lambda: httpx.get(router.url + "/health").json()["status"] == "ok")
            with httpx.stream("POST", router.url + "/v1/completions", timeout=60,
                              json={"model": "m", "temperature": 0, "prompt": TEXT, "max_tokens": 24, "ignore_eos": True,
                                    "stream": True}) as stream:
                events = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: {")]
            assert "".join(e["choices"][0]["text"] for e in events if e["choices"]) == text(alone(one))
            assert counter(d, "cadre:kv_fetched_tokens_total") > 0
            for name in ("xfer_time_seconds", "bytes_transferred", "post_time_seconds", "num_descriptors"):
                assert counter(d, "vllm:nixl_%s_count" % name) == 1
            assert counter(d, "vllm:nixl_num_descriptors_sum") % 6 == 0  # layers times blocks
            assert 0 < counter(d, "vllm:nixl_post_time_seconds_sum") < counter(d, "vllm:nixl_xfer_time_seconds_sum")
            until(lambda: free(p) and free(d))
        finally:
            router.kill()


# ---- as it should not be


def test_prefill_dies_before_decode_asks(one, decode):
    with serve(*config()) as p:
        params = ask_prefill(p)
        p.process.kill()
        p.process.wait()
        before = counter(decode, "cadre:kv_recomputed_requests_total")
        assert text(ask_decode(decode, params)) == text(alone(one))
        assert counter(decode, "cadre:kv_recomputed_requests_total") == before + 1
        assert counter(decode, "vllm:nixl_num_failed_transfers_total") > 0
        until(lambda: free(decode))


def test_prefill_is_stopped(one, decode):
    with serve(*config()) as p:
        params = ask_prefill(p)
        os.kill(p.process.pid, signal.SIGSTOP)
        start = time.time()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            waits = pool.submit(ask_decode, decode, params)
            # Others go on meanwhile.
            assert text(alone(decode, prompt=[5, 6, 7])) == text(alone(one, prompt=[5, 6, 7]))
            assert text(waits.result()) == text(alone(one))
        assert time.time() - start < 40
        until(lambda: free(decode))


def test_nobody_comes_and_the_lease_ends(one, decode):
    with serve(*config(kv_connector_extra_config={"kv_lease_duration": 1})) as p:
        params = ask_prefill(p)
        assert counter(p, "cadre:kv_held_requests") == 1
        until(lambda: free(p), 15)
        assert counter(p, "vllm:nixl_num_kv_expired_reqs_total") == 1
        assert "nobody has fetched the blocks of" in "".join(p.lines)
        assert text(ask_decode(decode, params)) == text(alone(one))


def test_the_policy_fail_gives_the_error(decode):
    with serve(*config(kv_load_failure_policy="fail")) as d:
        with serve(*config()) as p:
            params = ask_prefill(p)
            p.process.kill()
            p.process.wait()
        answer = post(d, prompt="x", kv_transfer_params=params, status=500)
        assert "could not be fetched" in answer["error"]["message"] and "kv_load_failure_policy" in answer["error"]["message"]
        until(lambda: free(d))
        with httpx.stream("POST", d.url + "/v1/completions", timeout=60,
                          json={"prompt": "x", "stream": True, "kv_transfer_params": params}) as stream:
            assert "could not be fetched" in stream.read().decode()


def test_the_client_leaves(decode, one):
    lease = config(kv_connector_extra_config={"kv_lease_duration": 5})
    with serve(*lease) as p:
        params = ask_prefill(p)
        os.kill(p.process.pid, signal.SIGSTOP)
        with pytest.raises(httpx.TimeoutException):
            ask_decode(decode, params, timeout=1)
        until(lambda: counter(decode, "cadre:kv_fetching_requests") == 0, 10)
        until(lambda: free(decode), 40)
        os.kill(p.process.pid, signal.SIGCONT)
        # On the other side: while the prompt is computed.
        with pytest.raises(httpx.TimeoutException):
            post(p, prompt=[i % 500 + 3 for i in range(700)], max_tokens=1, kv_transfer_params=ASK, timeout=0.02)
        until(lambda: free(p), 20)
        assert text(ask_decode(decode, ask_prefill(p))) == text(alone(one))


def test_decode_has_no_room_and_waits(one, prefill):
    with serve(*config(), "--num-gpu-blocks-override", "12", "--max-model-len", "192") as d:
        prompts = [[(k * 57 + i * 7) % 500 + 3 for i in range(100)] for k in range(6)]
        params = [ask_prefill(prefill, prompt=p) for p in prompts]
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            got = list(pool.map(lambda p: text(ask_decode(d, p, max_tokens=60)), params))
        assert got == [text(alone(one, prompt=p, max_tokens=60)) for p in prompts]
        assert counter(d, "cadre:kv_recomputed_requests_total") == 0
        until(lambda: free(d) and free(prefill))


def test_prefill_has_no_room_and_waits(one, decode):
    with serve(*config(), "--num-gpu-blocks-override", "12", "--max-model-len", "192") as p:
        prompts = [[(k * 59 + i * 7) % 500 + 3 for i in range(100)] for k in range(4)]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            got = list(pool.map(lambda ids: text(ask_decode(decode, ask_prefill(p, prompt=ids))), prompts))
        assert got == [text(alone(one, prompt=ids)) for ids in prompts]
        until(lambda: free(p))


@pytest.fixture(scope="module")
def other_weights(tmp_path_factory):
    """The demo model after a little more training, so to speak: one weight differs."""
    folder = tmp_path_factory.mktemp("other")
    for name in os.listdir(MODEL):
        data = open(os.path.join(MODEL, name), "rb").read()
        if name.endswith(".safetensors"):
            data = data[:-2] + bytes([data[-2] ^ 1, data[-1]])
            middle = len(data) // 2
            data = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1:]
        (folder / name).write_bytes(data)
    return str(folder)


def test_another_model_is_refused_by_name(one, decode, other_weights):
    with serve(*config(), model=other_weights) as p:
        params = ask_prefill(p)
        assert text(ask_decode(decode, params)) == text(alone(one))
        assert re.search(r"fetching .* failed .*model", "".join(decode.lines)), "".join(decode.lines[-5:])


def test_another_type_is_refused_by_name(one, decode):
    with serve(*config(), "--dtype", "bfloat16") as p:
        params = ask_prefill(p)
        assert text(ask_decode(decode, params)) == text(alone(one))
        assert re.search(r"fetching .* failed .*(type|dtype)", "".join(decode.lines)), "".join(decode.lines[-5:])


def test_something_else_listens_there(one, decode, prefill):
    import socket
    with socket.create_server(("127.0.0.1", 0)) as garbage:
        def shout():
            with contextlib.suppress(OSError):
                connection, _ = garbage.accept()
                connection.sendall(b"220 mail.example.org ESMTP\r\n" * 100)
                time.sleep(2)
                connection.close()
        threading.Thread(target=shout, daemon=True).start()
        params = {**ask_prefill(prefill), "remote_host": "127.0.0.1", "remote_port": garbage.getsockname()[1]}
        assert text(ask_decode(decode, params)) == text(alone(one))
    # And a stranger at our own door.
    with socket.create_connection(("127.0.0.1", ask_prefill(prefill)["remote_port"])) as door:
        door.sendall(b"GET / HTTP/1.1\r\n\r\n" + os.urandom(4000))
    assert text(ask_decode(decode, ask_prefill(prefill))) == text(alone(one))
