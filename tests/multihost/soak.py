"""A soak: a deployment on two hosts under random load and random faults, for CADRE_SOAK_MINUTES (30).

`./test --soak [MINUTES]` runs it; no other test run does. Every request must get an answer or an error, whatever happens;
after a fault that ends the deployment everybody must have named it within 5 s of silence and have ended, and nothing may be
left behind; after one that may not end it, it must still answer rightly. CADRE_SOAK_SEED repeats a run's choices.
"""

import collections
import json
import os
import random
import re
import signal
import threading
import time

import httpx
import pytest

from deployment import BIN, GARBAGE, Deployment, Hosts, connect, scan, send_garbage

pytestmark = pytest.mark.skipif(not BIN.exists(), reason="%s is not built" % BIN)

MINUTES = float(os.environ.get("CADRE_SOAK_MINUTES", "30"))
SEED = int(os.environ.get("CADRE_SOAK_SEED", random.SystemRandom().randrange(1 << 31)))
LONGEST_S = 60  # of a request, on a machine with other work
CLIENTS = 6


class Client(threading.Thread):
    """Sends requests of random sizes until told to stop, and notes how each ended."""

    def __init__(self, deployment, seed):
        super().__init__(daemon=True)
        self.deployment, self.random = deployment, random.Random(seed)
        self.stop, self.outcomes, self.wrong = threading.Event(), collections.Counter(), []

    def run(self):
        self.deployment.hosts.enter(0)
        with httpx.Client(timeout=LONGEST_S) as http:
            while not self.stop.is_set():
                try:
                    self.outcomes[self.request(http)] += 1
                except httpx.TimeoutException as error:
                    self.wrong.append("a request had neither answer nor error after %d s: %r" % (LONGEST_S, error))
                except httpx.HTTPError:
                    self.outcomes["connection error"] += 1
                    time.sleep(0.1)

    def body(self):
        prompt = [self.random.randrange(5, 500) for _ in range(int(10 ** self.random.uniform(0, 2.9)))]
        temperature = self.random.choice([0, 1.0])
        return {"prompt": prompt, "max_tokens": int(10 ** self.random.uniform(0, 2.2)), "ignore_eos": True,
                "temperature": temperature, "n": self.random.choice([1, 1, 3]) if temperature else 1}

    def request(self, http):
        body = self.body()
        kind = self.random.choice(["whole", "stream", "stream", "cancelled"])
        if kind == "whole":
            answer = http.post(self.deployment.url("/v1/completions"), json=body)
            return self.judge(answer.status_code, answer.json(), body)
        cut = self.random.randrange(1, 20) if kind == "cancelled" else None
        ends, error, lines = 0, None, 0
        with http.stream("POST", self.deployment.url("/v1/completions"), json={**body, "stream": True}) as answer:
            if answer.status_code != 200:
                answer.read()
                return self.judge(answer.status_code, answer.json(), body)
            for line in answer.iter_lines():
                lines += 1
                if cut is not None and lines >= cut:
                    return "cancelled"
                if not line.startswith("data: {"):
                    continue
                event = json.loads(line[6:])
                error = error or event.get("error")
                ends += sum(1 for choice in event.get("choices", []) if choice.get("finish_reason"))
        if error:
            return "error %s in a stream" % error.get("code")
        if ends != body["n"]:
            self.wrong.append("a stream closed after %d of %d ends, without an error" % (ends, body["n"]))
        return "stream"

    def judge(self, status, answer, body):
        if status != 200:
            if "error" not in answer:
                self.wrong.append("status %d without an error object: %s" % (status, str(answer)[:200]))
            return "status %d" % status
        if len(answer["choices"]) != body["n"] or not all(c["finish_reason"] for c in answer["choices"]):
            self.wrong.append("an answer lacks choices or ends: %s" % str(answer)[:200])
        return "whole"


# Faults that end the deployment: (which nodes survive to tell, what their logs must say).

def kill_rank(d, draw):
    host = draw.randrange(2)
    pid = draw.choice(d.nodes[host].ranks())
    os.kill(pid, signal.SIGKILL)
    return [0, 1], r"was killed by SIGKILL"


def kill_other_node(d, draw):
    d.nodes[1].process.kill()
    return [0], r"host .* \(ranks? [\d a-z]+\)"


def kill_first_node(d, draw):
    d.nodes[0].process.kill()
    return [1], r"the first host|host .*\(rank"


def stop_rank(d, draw):
    host = draw.randrange(2)
    os.kill(draw.choice(d.nodes[host].ranks()), signal.SIGSTOP)
    return [0, 1], r"gave no sign of life"


def stop_other_node(d, draw):
    for pid in [d.nodes[1].process.pid, *d.nodes[1].ranks()]:
        os.kill(pid, signal.SIGSTOP)
    return [0], r"gave no sign of life"


def pull_cable(d, draw):
    d.hosts.cable(False)
    return [0, 1], r"gave no sign of life|the connection to"


# Faults that must change nothing.

def garbage(d, draw):
    for host, address, port in d.ports():
        for data in [*GARBAGE.values(), draw.randbytes(draw.randrange(1, 5000))]:
            d.hosts.call(host, send_garbage, address, port, data)


def port_scan(d, draw):
    for host, address, port in d.ports() * 5:
        d.hosts.call(host, scan, address, port)


def half_open(d, draw):
    held = [d.hosts.call(host, connect, address, port) for host, address, port in d.ports() for _ in range(30)]
    time.sleep(draw.uniform(0, 6))
    for s in held:
        s.close()


def short_stop(d, draw):
    """A pause below the time that makes it a death."""
    pid = draw.choice(d.nodes[draw.randrange(2)].ranks())
    os.kill(pid, signal.SIGSTOP)
    time.sleep(draw.uniform(0.1, 2))
    os.kill(pid, signal.SIGCONT)


def loose_cable(d, draw):
    d.hosts.cable(False)
    time.sleep(draw.uniform(0.1, 1))
    d.hosts.cable(True)


DEADLY = [kill_rank, kill_other_node, kill_first_node, stop_rank, stop_other_node, pull_cable]
HARMLESS = [garbage, port_scan, half_open, short_stop, loose_cable]


def end_clients(clients):
    for client in clients:
        client.stop.set()
    for client in clients:
        client.join(LONGEST_S + 10)
    wrong = [w for client in clients for w in client.wrong]
    if any(client.is_alive() for client in clients):
        wrong.append("a client still waits")
    return wrong


def expect_end(d, fault, draw):
    """Inflicts a deadly fault; what was wrong afterwards."""
    begin = time.time()
    survivors, words = fault(d, draw)
    wrong = []
    for i in survivors:
        node = d.nodes[i]
        try:
            code = node.end(30)
        except Exception:
            wrong.append("node %d had not ended 30 s after %s" % (i, fault.__name__))
            continue
        # 5 s of silence, a beat, and the end of its ranks.
        if time.time() - begin > 9:
            wrong.append("node %d ended %.1f s after %s" % (i, time.time() - begin, fault.__name__))
        if code != 7:
            wrong.append("node %d ended with %d after %s" % (i, code, fault.__name__))
        if not re.search(words, node.log()):
            wrong.append("node %d did not say %r after %s" % (i, words, fault.__name__))
    for pid in d.pids:  # what was stopped cannot end by itself
        try:
            if open("/proc/%d/stat" % pid).read().rsplit(")", 1)[1].split()[0] == "T":
                os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
    d.kill()
    if d.hosts.real:
        d.hosts.cable(True)
    return wrong


BACKENDS = ["allgather_reducescatter", "naive", "pplx", "deepep_high_throughput", "deepep_low_latency",
            "flashinfer_all2allv", "mori"]


def one_deployment(hosts, draw, end, faults, outcomes):
    """From start to end of one deployment; what was wrong."""
    ranks = draw.choice([2, 4, 6])
    backend = ["--all2all-backend", draw.choice(BACKENDS)]
    if draw.random() < 0.5:  # experts move all the time
        backend += ["--enable-eplb", "--eplb-config", '{"window_size":8,"step_interval":16,"num_redundant_experts":4}']
    d = Deployment(hosts, ranks, backend)
    print("%d ranks, %s" % (ranks, " ".join(backend)), flush=True)
    wrong, clients = [], []
    try:
        d.start_all(120)
        clients = [Client(d, draw.getrandbits(32)) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        for _ in range(draw.randrange(0, 4)):
            time.sleep(draw.uniform(0.5, 4))
            fault = draw.choice([f for f in HARMLESS if hosts.real or f is not loose_cable])
            faults[fault.__name__] += 1
            fault(d, draw)
            if d.nodes[0].process.poll() is not None or d.nodes[1].process.poll() is not None:
                wrong.append("the deployment ended at %s" % fault.__name__)
                return wrong
            if (answer := d.ask(draw.randrange(ranks))) != "42":
                wrong.append("after %s the answer was %r" % (fault.__name__, answer))
        time.sleep(draw.uniform(0.5, 4))
        if draw.random() < 0.2 or time.time() > end:
            faults["none, ended as asked"] += 1
            for client in clients:
                client.stop.set()
            if (codes := d.stop()) != [0, 0]:
                wrong.append("asked to end, the nodes ended with %s" % codes)
        else:
            fault = draw.choice([f for f in DEADLY if hosts.real or f is not pull_cable])
            faults[fault.__name__] += 1
            wrong += expect_end(d, fault, draw)
        return wrong
    except Exception as error:
        return wrong + ["%s: %s" % (type(error).__name__, str(error)[:2000])]
    finally:
        wrong += end_clients(clients)
        for client in clients:
            outcomes.update(client.outcomes)
        d.kill()
        if left := d.left_behind():
            wrong.append("left behind: %s" % left)
        if wrong:
            print(d.log()[-6000:])


def test_soak():
    print("\nsoak of %g minutes, CADRE_SOAK_SEED=%d" % (MINUTES, SEED))
    draw = random.Random(SEED)
    hosts = Hosts()
    faults, outcomes, wrong, rounds = collections.Counter(), collections.Counter(), [], 0
    end = time.time() + MINUTES * 60
    try:
        while time.time() < end and len(wrong) < 5:
            rounds += 1
            found = one_deployment(hosts, draw, end, faults, outcomes)
            wrong += ["deployment %d: %s" % (rounds, w) for w in found]
            for w in found:
                print("WRONG, deployment %d: %s" % (rounds, w), flush=True)
    finally:
        hosts.close()
        print("\n%d deployments on %s, %d requests" %
              (rounds, "two network namespaces" if hosts.real else "one host", sum(outcomes.values())))
        for title, counts in (("faults", faults), ("requests ended as", outcomes)):
            print("%s: %s" % (title, ", ".join("%s %d" % (name, count) for name, count in counts.most_common())))
        print("wrong: %d" % len(wrong), flush=True)
    assert wrong == []
    assert sum(outcomes.values()) > 0
