"""Prefill on one host, decode on the other: two network namespaces joined by a cable, so that keys and values go over TCP. Layouts of
ranks that differ, a cable that is cut in the middle, and the commands of the examples."""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import re
import shlex
import time
import uuid

import httpx
import pytest

from deployment import BIN, MODEL, ROOT, Hosts, run
from node import Node

GOLDEN = pathlib.Path(os.environ.get("CADRE_GOLDEN", ROOT.parent / "shared/golden")) / "models"
ASK = {"do_remote_decode": True, "do_remote_prefill": False, "remote_engine_id": None, "remote_block_ids": None,
       "remote_host": None, "remote_port": None}
PORT = 8000  # namespaces have ports of their own

pytestmark = [pytest.mark.skipif(not BIN.exists(), reason="%s is not built" % BIN),
              pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")]


@pytest.fixture
def hosts():
    made = Hosts()
    try:
        if not made.real:
            pytest.skip("cannot make hosts of namespaces")
        yield made
    finally:
        made.close()


class Side:
    """`cadre serve` on one of the hosts, asked from there."""

    def __init__(self, hosts, host, *flags, model=MODEL, connector=True, lease=30, port=PORT):
        self.hosts, self.host = hosts, host
        self.url = "http://%s:%d" % (hosts.addresses[host], port)
        words = [BIN, "serve", model, "--port", port, "--kv-cache-memory-bytes", "16M", "--dtype", "float32",
                 "--served-model-name", "m", *flags]
        if connector:
            words += ["--kv-transfer-config", json.dumps({"kv_connector": "NixlConnector", "kv_role": "kv_both",
                                                          "kv_lease_duration": lease})]
        self.node = Node(hosts.on(host, *words), {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"})

    def ready(self):
        self.node.wait_for("ready after", 90)
        return self

    def post(self, **body):
        headers = body.pop("headers", {})
        body = {"model": "m", "temperature": 0, **body}

        def send():
            return httpx.post(self.url + "/v1/completions", json=body, headers=headers, timeout=90)

        answer = self.hosts.call(self.host, send)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def counter(self, name):
        text = self.hosts.call(self.host, lambda: httpx.get(self.url + "/metrics", timeout=30).text)
        found = re.findall(r"^%s\{.*\} (\S+)$" % re.escape(name), text, re.M)
        assert found, name
        return sum(map(float, found))

    def free(self):
        return (self.counter("cadre:kv_held_requests") == 0 and self.counter("cadre:kv_fetching_requests") == 0 and
                self.counter("vllm:kv_cache_usage_perc") == 0)


def until(check, seconds=30):
    deadline = time.time() + seconds
    while time.time() < deadline:
        if check():
            return
        time.sleep(0.1)
    raise AssertionError("not within %d s" % seconds)


def tokens(answer):
    return answer["choices"][0]["token_ids"]


@contextlib.contextmanager
def sides(*all_sides):
    try:
        for side in all_sides:
            side.ready()
        yield all_sides
    finally:
        for side in all_sides:
            side.node.kill()


def ids(count, salt=0, vocabulary=500):
    return [(salt * 101 + i * 37) % vocabulary + 3 for i in range(count)]


def pull(p, d, prompt, **body):
    body = {"max_tokens": 16, "ignore_eos": True, "return_token_ids": True, **body}
    params = p.post(prompt=prompt, max_tokens=1, kv_transfer_params=ASK)["kv_transfer_params"]
    assert params["remote_host"] == p.hosts.addresses[p.host]  # not the loopback
    return d.post(prompt=[1], kv_transfer_params=params, **body)


def push(p, d, prompt, where, **body):
    body = {"max_tokens": 16, "ignore_eos": True, "return_token_ids": True, **body}
    headers = {"X-Request-Id": str(uuid.uuid4())}
    there = {"do_remote_prefill": True, "push": True, "remote_host": where["remote_host"], "remote_port": where["remote_port"]}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(d.post, headers=headers, prompt=prompt, kv_transfer_params=there, **body)
        p.post(headers=headers, prompt=prompt, max_tokens=1, kv_transfer_params={"do_remote_decode": True, "push": True})
        return answer.result(90)


GQA, MLA = "demo", "deepseek_v3"


@pytest.mark.parametrize("family, there, here", [
    (GQA, ["-tp", "2"], []), (GQA, [], ["-tp", "2"]), (GQA, ["-dp", "2", "-ep"], []), (GQA, [], ["-dp", "2", "-ep"]),
    (GQA, ["-tp", "2", "--block-size", "32"], ["-dp", "2", "-ep"]), (MLA, ["-tp", "2"], []), (MLA, [], ["-tp", "2", "--block-size", "32"])])
def test_layouts_over_two_hosts(hosts, family, there, here):
    folder = MODEL if family == GQA else GOLDEN / MLA
    if not (folder / "config.json").exists():
        pytest.skip("no model at %s" % folder)
    flags = ["--skip-tokenizer-init"] if family == MLA else []
    with sides(Side(hosts, 0, *flags, *there, model=folder), Side(hosts, 1, *flags, *here, model=folder),
               Side(hosts, 0, *flags, model=folder, connector=False, port=PORT + 1)) as (p, d, one):
        vocabulary = 500 if family == GQA else 60
        for length in (5, 33, 100):
            prompt = ids(length, length, vocabulary)
            wanted = tokens(one.post(prompt=prompt, max_tokens=16, ignore_eos=True, return_token_ids=True))
            assert tokens(pull(p, d, prompt)) == wanted
        where = p.post(prompt=ids(4, 0, vocabulary), max_tokens=1, kv_transfer_params=ASK)["kv_transfer_params"]
        if "-dp" not in there:
            prompt = ids(120, 7, vocabulary)
            wanted = tokens(one.post(prompt=prompt, max_tokens=16, ignore_eos=True, return_token_ids=True))
            assert tokens(push(p, d, prompt, where)) == wanted
        assert d.counter("cadre:kv_recomputed_requests_total") == 0, d.node.log()
        assert d.counter("cadre:kv_fetched_tokens_total") > 0
        # All of it went over the cable. (Of tp ranks the first one counts.)
        fetched = d.counter("cadre:kv_fetched_bytes_total")
        assert fetched > 0
        until(lambda: p.counter("cadre:kv_sent_bytes_total") * (2 if "-tp" in there else 1) >= fetched)


@pytest.mark.parametrize("way", ["pull", "push"])
def test_the_cable_is_cut_in_the_middle(hosts, way):
    """1.8 MB over 4 Mbit/s take four seconds; after one of them the cable goes down for good."""
    prompt = ids(600)
    with sides(Side(hosts, 0, lease=3), Side(hosts, 1)) as (p, d):
        wanted = tokens(d.post(prompt=prompt, max_tokens=16, ignore_eos=True, return_token_ids=True))
        d.post(prompt=ids(700, 3), max_tokens=1)
        where = p.post(prompt=ids(4), max_tokens=1, kv_transfer_params=ASK)["kv_transfer_params"]
        hosts.disturb("rate 4mbit")
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            body = {"max_tokens": 16, "ignore_eos": True, "return_token_ids": True, "cache_salt": "other"}
            if way == "pull":
                params = p.post(prompt=prompt, max_tokens=1, kv_transfer_params=ASK, cache_salt="other")["kv_transfer_params"]
                answer = pool.submit(d.post, prompt=[1], kv_transfer_params=params, **body)
            else:
                headers = {"X-Request-Id": "cut"}
                there = {"do_remote_prefill": True, "push": True, "remote_host": where["remote_host"],
                         "remote_port": where["remote_port"]}
                answer = pool.submit(d.post, headers=headers, prompt=prompt, kv_transfer_params=there, **body)
                pool.submit(p.post, headers=headers, prompt=prompt, max_tokens=1, cache_salt="other",
                            kv_transfer_params={"do_remote_decode": True, "push": True})
            until(lambda: d.counter("cadre:kv_fetching_requests") == 1)
            time.sleep(1)
            assert d.counter("cadre:kv_fetching_requests") == 1  # still under way
            hosts.cable(False)
            assert tokens(answer.result(60)) == wanted
        assert d.counter("cadre:kv_recomputed_requests_total") == 1, d.node.log()
        until(d.free, 10)
        # Nothing is kept on the other side longer than the lease, though nobody can tell it anything.
        until(p.free, 15)
        assert p.counter("vllm:nixl_num_kv_expired_reqs_total") >= 1


# ---- the manifests


def manifests():
    """[(kind, name, containers)] of examples/disaggregated/kubernetes.yaml."""
    yaml = pytest.importorskip("yaml")
    found = []
    for document in yaml.safe_load_all((ROOT / "examples/disaggregated/kubernetes.yaml").read_text()):
        spec = document["spec"]
        if document["kind"] == "LeaderWorkerSet":
            template = spec["leaderWorkerTemplate"]
            assert template["leaderTemplate"]["spec"] == template["workerTemplate"]["spec"]
            found.append((document["kind"], document["metadata"]["name"], template["size"],
                          template["leaderTemplate"]["spec"]["containers"][0]))
        elif document["kind"] == "Deployment":
            found.append((document["kind"], document["metadata"]["name"], spec["replicas"],
                          spec["template"]["spec"]["containers"][0]))
    return found


SMALL = ["--kv-cache-memory-bytes", "16M", "--dtype", "float32", "--served-model-name", "m"]


def test_the_manifests_commands(hosts):
    """Both sets of two pods each, and the router: their commands and environment as they stand, with the model and the names of
    services replaced. A set's leader is on one host, its worker on the other."""
    nodes = []
    ports = {"prefill": 8000, "decode": 8001}
    try:
        for kind, name, count, container in manifests():
            words = list(container["command"]) + list(container["args"])
            assert words[0] == "cadre"
            words[0] = str(BIN)
            if kind == "LeaderWorkerSet":
                assert words[1] == "serve" and count == 2
                words[2] = str(MODEL)
                # On one host each pod would have an address of its own; here both sets share two hosts.
                words[words.index("--port") + 1] = str(ports[name])
                words += [*SMALL, "--data-parallel-rpc-port", str(29550 + ports[name])]
                for index in range(count):
                    env = {"LWS_LEADER_ADDRESS": hosts.addresses[0], "LWS_GROUP_SIZE": str(count), "LWS_WORKER_INDEX": str(index),
                           "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
                    for variable in container["env"]:
                        assert variable["valueFrom"]["fieldRef"]["fieldPath"] == "status.podIP"
                        env[variable["name"]] = hosts.addresses[index]
                    nodes.append(Node(hosts.on(index, *words), env))
                nodes[-2].wait_for("ready after", 120)
            else:
                text = shlex.join(words)
                for role, port in ports.items():
                    assert "http://%s-leaders:8000" % role in text
                    text = text.replace("http://%s-leaders:8000" % role, "http://%s:%d" % (hosts.addresses[0], port))
                nodes.append(Node(hosts.on(1, *shlex.split(text))))
                nodes[-1].wait_for("ready", 30)
        url = "http://%s:30000" % hosts.addresses[1]

        def ask():
            until(lambda: httpx.get(url + "/health?require=all", timeout=10).status_code == 200, 30)
            body = {"model": "m", "prompt": ids(60), "max_tokens": 16, "temperature": 0, "ignore_eos": True}
            through = httpx.post(url + "/v1/completions", json=body, timeout=60)
            direct = httpx.post("http://%s:%d/v1/completions" % (hosts.addresses[0], ports["decode"]), json=body, timeout=60)
            metrics = httpx.get("http://%s:%d/metrics" % (hosts.addresses[0], ports["decode"]), timeout=30).text
            return through, direct, metrics

        through, direct, metrics = hosts.call(1, ask)
        assert through.status_code == 200, through.text
        assert through.json()["choices"][0]["text"] == direct.json()["choices"][0]["text"]
        total = lambda name: sum(map(float, re.findall(r"^%s\{.*\} (\S+)$" % name, metrics, re.M)))
        assert total("cadre:kv_fetched_tokens_total") >= 59, "".join(node.log() for node in nodes)
        assert total("cadre:exchange_wire_bytes_total") > 0
    finally:
        for node in nodes:
            node.kill()
