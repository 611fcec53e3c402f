#!/usr/bin/env python3
"""What a transfer of KV blocks does to decode steps on the same link (as root; not a test: it measures).

Two namespaces are joined by a cable of RATE Mbit/s. A deployment of two ranks, one on each, answers chats, so that every MoE layer
of every step crosses the cable. Meanwhile a prefill server on one and a decode server on the other hand a prompt of 4,000 tokens
over, again and again. Rounds without it, with it, and with it paced take turns.

    python tests/multihost/pace.py [--mbit 1000] [--rounds 3] [--limits 0,60e6,30e6]
"""

import argparse
import json
import pathlib
import statistics
import sys
import tempfile
import threading
import time

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1] / room) for room in ("multihost", "http", "")]

from deployment import BIN, MODEL, Deployment, Hosts, run  # noqa: E402
from node import Node  # noqa: E402
import httpx  # noqa: E402

ASK = {"do_remote_decode": True, "do_remote_prefill": False}
ONE = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
PROMPT = [i * 37 % 500 + 3 for i in range(4000)]


def limit_cable(hosts, mbit):
    """By tbf, or htb where the kernel has no tbf. Says which, or nothing."""
    for how in ("tbf rate %dmbit burst 256kb latency 50ms" % mbit, "htb default 1"):
        done = all(run(*hosts.on(h, "tc", "qdisc", "add", "dev", "eth0", "root", "handle", "1:", *how.split())).returncode == 0
                   for h in range(2))
        if done and how.startswith("htb"):
            done = all(run(*hosts.on(h, "tc", "class", "add", "dev", "eth0", "parent", "1:", "classid", "1:1", "htb", "rate",
                                     "%dmbit" % mbit)).returncode == 0 for h in range(2))
        if done:
            return how.split()[0]
    return None


class Sender:
    """A pair of servers that hands the same prompt over for as long as it is told to."""

    def __init__(self, hosts, port, limit):
        self.hosts = hosts
        self.urls = ["http://%s:%d/v1/completions" % (hosts.addresses[h], port) for h in range(2)]
        extra = {"max_bytes_per_second": limit} if limit else {}
        transfer = json.dumps({"kv_connector": "NixlConnector", "kv_role": "kv_both", "kv_connector_extra_config": extra})
        self.nodes = [Node(hosts.on(h, str(BIN), "serve", str(MODEL), "--port", str(port), "--kv-cache-memory-bytes", "32M", "--dtype",
                                    "float32", "--served-model-name", "m", "--kv-transfer-config", transfer,
                                    *(["--no-enable-prefix-caching"] if h else [])), ONE) for h in range(2)]
        for node in self.nodes:
            node.wait_for("ready after", 90)
        self.bytes_at, self.stop = 0, threading.Event()
        self.ask()

    def post(self, host, **body):
        answer = httpx.post(self.urls[host], json={"model": "m", "temperature": 0, "max_tokens": 1, **body}, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def ask(self):
        params = self.hosts.call(0, lambda: self.post(0, prompt=PROMPT, kv_transfer_params=ASK))["kv_transfer_params"]
        self.hosts.call(1, lambda: self.post(1, prompt=[1], kv_transfer_params=params))

    def sent(self):
        text = self.hosts.call(0, lambda: httpx.get(self.urls[0].replace("/v1/completions", "/metrics"), timeout=30).text)
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith("cadre:kv_sent_bytes_total{"))

    def start(self):
        self.stop.clear()
        self.begin, self.bytes_at = time.time(), self.sent()

        def body():
            while not self.stop.is_set():
                self.ask()

        self.thread = threading.Thread(target=body)
        self.thread.start()

    def end(self):
        """Bytes a second."""
        self.stop.set()
        self.thread.join()
        return (self.sent() - self.bytes_at) / (time.time() - self.begin)

    def kill(self):
        for node in self.nodes:
            node.kill()


def measure(deployment, hosts, folder):
    file = folder / "bench.json"
    words = [str(BIN), "bench", "serve", "--base-url", "http://%s:%d" % (hosts.addresses[0], deployment.port), "--tokenizer", str(MODEL),
             "--num-prompts", "24", "--max-concurrency", "4", "--random-input-len", "16", "--random-output-len", "150", "--ignore-eos",
             "--disable-tqdm", "--save-result", "--result-filename", str(file), "--metric-percentiles", "50,99"]
    done = run(*hosts.on(0, *words))
    assert done.returncode == 0, done.stderr + done.stdout
    result = json.loads(file.read_text())
    assert result["failed"] == 0
    return result["p50_itl_ms"], result["p99_itl_ms"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mbit", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limits", default="0,60e6,30e6", help="bytes a second; 0: none")
    options = parser.parse_args()
    hosts = Hosts()
    senders, deployment = {}, None
    try:
        if not hosts.real:
            sys.exit("cannot make namespaces: needs root")
        print("cable of %d Mbit/s by %s" % (options.mbit, limit_cable(hosts, options.mbit)))
        deployment = Deployment(hosts, 2, env=ONE).start_all()
        for i, limit in enumerate(float(word) for word in options.limits.split(",")):
            senders[limit] = Sender(hosts, 9000 + i, limit)
        rows = {None: [], **{limit: [] for limit in senders}}
        with tempfile.TemporaryDirectory() as folder:
            measure(deployment, hosts, pathlib.Path(folder))  # warm
            for _ in range(options.rounds):
                for limit in rows:
                    sender = senders.get(limit)
                    if sender:
                        sender.start()
                    p50, p99 = measure(deployment, hosts, pathlib.Path(folder))
                    rows[limit].append((p50, p99, sender.end() / 1e6 if sender else 0.0))
        base = statistics.median(row[1] for row in rows[None])
        print("%-24s %12s %12s %10s %12s" % ("KV transfer", "P50 (ms)", "P99 (ms)", "P99 ratio", "KV (MB/s)"))
        for limit, all_rounds in rows.items():
            p50, p99, rate = (statistics.median(row[i] for row in all_rounds) for i in range(3))
            name = "none" if limit is None else "no limit" if limit == 0 else "at most %.0f MB/s" % (limit / 1e6)
            print("%-24s %12.2f %12.2f %10.2f %12.1f" % (name, p50, p99, p99 / base, rate))
    finally:
        for sender in senders.values():
            sender.kill()
        if deployment is not None:
            deployment.kill()
        hosts.close()


if __name__ == "__main__":
    main()
