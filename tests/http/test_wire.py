"""The API on the wire: raw sockets, curl's habits, hostile clients, shutdown."""

import json
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.parse

import httpx
import pytest


def connect(server):
    where = urllib.parse.urlsplit(server.url)
    sock = socket.create_connection((where.hostname, where.port), timeout=10)
    return sock


def error_of(response):
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == response.status_code
    return error


def test_plain_routes(server):
    assert httpx.get(server.url + "/health").status_code == 200
    assert httpx.get(server.url + "/ping").status_code == 200
    assert httpx.post(server.url + "/ping").status_code == 200
    assert "version" in httpx.get(server.url + "/version").json()
    assert httpx.get(server.url + "/load").json()["server_load"] == 0


def test_errors_are_objects_everywhere(server):
    assert error_of(httpx.get(server.url + "/nowhere"))["type"] == "NotFoundError"
    wrong = httpx.get(server.url + "/v1/chat/completions")
    assert wrong.status_code == 405 and wrong.headers["allow"] == "POST"
    error_of(wrong)
    missing = httpx.post(server.url + "/v1/embeddings", json={})
    assert missing.status_code == 501
    error_of(missing)
    for body in (b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100000, b'{"prompt": ' + b"9" * 1000 + b"}"):
        bad = httpx.post(server.url + "/v1/completions", content=body)
        assert bad.status_code == 400, body[:20]
        error_of(bad)


def test_oversized_body_is_a_400(server):
    response = httpx.post(server.url + "/v1/completions", content=b" " * (80 << 20), timeout=60)
    assert response.status_code == 400
    assert error_of(response)["param"] == "body"


def test_echo_without_generation(server):
    ask = {"prompt": "The quick brown fox", "max_tokens": 0, "echo": True, "logprobs": 2}
    answer = httpx.post(server.url + "/v1/completions", json=ask, timeout=30).json()
    choice = answer["choices"][0]
    assert choice["text"] == ask["prompt"] and choice["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 0
    logprobs = choice["logprobs"]
    assert len(logprobs["tokens"]) == answer["usage"]["prompt_tokens"]
    assert logprobs["token_logprobs"][0] is None and all(p <= 0 for p in logprobs["token_logprobs"][1:])
    assert httpx.post(server.url + "/v1/completions", json={"prompt": "a", "max_tokens": 0}).status_code == 400


def test_finish_reason_comes_with_the_last_token(server):
    ask = {"prompt": "The", "max_tokens": 6, "stream": True, "ignore_eos": True, "return_token_ids": True}
    with httpx.stream("POST", server.url + "/v1/completions", json=ask, timeout=30) as answer:
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: {")]
    assert sum(len(event["choices"][0]["token_ids"]) for event in events) == 6
    assert events[-1]["choices"][0]["finish_reason"] == "length" and events[-1]["choices"][0]["token_ids"]


def test_large_bodies_give_their_memory_back(start):
    own = start(fake=True)

    def resident_mib():
        with open("/proc/%d/status" % own.process.pid) as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024

    def ask(mib):
        body = b'{"prompt":[' + b"1," * (mib << 19) + b'1],"max_tokens":1}'
        assert httpx.post(own.url + "/v1/completions", content=body, timeout=60).status_code == 400

    ask(1)
    before = resident_mib()
    for mib in (10, 20, 30):
        ask(mib)
    deadline = time.time() + 5
    while resident_mib() > before + 30 and time.time() < deadline:
        time.sleep(0.1)
    assert resident_mib() <= before + 30


def test_no_effect_fields_are_said_once(start):
    own = start(fake=True)
    for _ in range(2):
        ask = {"prompt": "a", "max_tokens": 1, "user": "me", "not_a_field": 1}
        assert httpx.post(own.url + "/v1/completions", json=ask).status_code == 200
    own.stop()
    lines = "".join(own.lines)
    assert lines.count("'user' is accepted and has no effect here") == 1, lines
    assert lines.count('"not_a_field" is unknown and ignored') == 1, lines


def test_other_content_types_are_refused(server):
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        answer = httpx.post(server.url + "/v1/completions", content=b"{}", headers={"Content-Type": kind})
        assert answer.status_code == 400 and "application/json" in error_of(answer)["message"]


def test_head_version_and_long_lines(server):
    assert httpx.head(server.url + "/health").status_code == 200
    for request, status in ((b"GET /health HTTP/9.9\r\nHost: x\r\n\r\n", 505), (b"GET /" + b"x" * 70000, 414)):
        with connect(server) as sock:
            sock.sendall(request)
            got = b""
            while piece := sock.recv(65536):
                got += piece
        head, body = got.split(b"\r\n\r\n", 1)
        assert int(head.split()[1]) == json.loads(body)["error"]["code"] == status


def test_tokenize_round_trip(server):
    text = "Hello, wörld! 你好 🙂"
    tokens = httpx.post(server.url + "/tokenize", json={"prompt": text, "return_token_strs": True}).json()
    assert tokens["count"] == len(tokens["tokens"]) == len(tokens["token_strs"])
    assert httpx.post(server.url + "/detokenize", json={"tokens": tokens["tokens"]}).json()["prompt"] == text
    chat = {"messages": [{"role": "user", "content": "hi"}]}
    rendered = httpx.post(server.url + "/tokenize", json=chat).json()["tokens"]
    assert "hi" in httpx.post(server.url + "/detokenize", json={"tokens": rendered}).json()["prompt"]


def test_metrics_rise(server):
    def value(name):
        total = 0.0
        for line in httpx.get(server.url + "/metrics").text.splitlines():
            if line.startswith(name + "{"):
                total += float(line.rsplit(" ", 1)[1])
        return total

    before = value("vllm:generation_tokens_total")
    httpx.post(server.url + "/v1/completions", json={"prompt": "a b c", "max_tokens": 5, "ignore_eos": True}, timeout=30)
    assert value("vllm:generation_tokens_total") == before + 5
    assert value("vllm:num_requests_running") == 0
    for name in ("time_to_first_token_seconds_count", "e2e_request_latency_seconds_count", "request_success_total"):
        assert value("vllm:" + name) > 0


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_curl_streams(server):
    body = json.dumps({"model": server.model, "prompt": "The", "max_tokens": 5, "stream": True})
    out = subprocess.run(
        ["curl", "-sN", server.url + "/v1/completions", "-H", "Content-Type: application/json", "-d", body], capture_output=True, text=True, check=True
    ).stdout
    events = [line[6:] for line in out.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    assert all(json.loads(event)["object"] == "text_completion" for event in events[:-1])


def test_pipelined_requests(server):
    with connect(server) as sock:
        sock.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n" * 3 + b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        got = b""
        while piece := sock.recv(65536):
            got += piece
    assert got.count(b"HTTP/1.1 200 OK") == 4


def test_vanished_clients_leave_nothing(server):
    body = json.dumps({"prompt": "The", "max_tokens": 2000, "stream": True, "ignore_eos": True}).encode()
    request = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    for _ in range(20):
        sock = connect(server)
        sock.sendall(request)
        sock.close()
    deadline = time.time() + 20
    while httpx.get(server.url + "/load").json()["server_load"] > 0:
        assert time.time() < deadline, "requests of clients that are gone still run"
        time.sleep(0.05)


def test_slow_reader_does_not_hold_others(server):
    body = json.dumps({"prompt": "The", "max_tokens": 1500, "stream": True, "ignore_eos": True, "logprobs": 5}).encode()
    request = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    stuck = []
    for _ in range(8):
        sock = connect(server)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(request)
        stuck.append(sock)
    answer = httpx.post(server.url + "/v1/completions", json={"prompt": "x", "max_tokens": 4}, timeout=30)
    assert answer.status_code == 200
    for sock in stuck:
        sock.close()


def test_sigterm_drains(start):
    own = start("--step-us", "20000", fake=True)
    got = {}

    def ask():
        got["answer"] = httpx.post(own.url + "/v1/completions", json={"prompt": "x", "max_tokens": 40}, timeout=30)

    thread = threading.Thread(target=ask)
    thread.start()
    while httpx.get(own.url + "/load").json()["server_load"] == 0:
        time.sleep(0.01)
    own.process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    refused = httpx.post(own.url + "/v1/completions", json={"prompt": "x"})
    assert refused.status_code == 503
    assert httpx.get(own.url + "/health").status_code == 503
    thread.join()
    assert got["answer"].status_code == 200
    assert got["answer"].json()["usage"]["completion_tokens"] == 40
    assert own.process.wait(10) == 0
