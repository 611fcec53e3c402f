"""What may happen to a deployment on two hosts, and what must come of it. Without root: two nodes on the loopback."""

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

import httpx
import pytest

from deployment import BIN, GARBAGE, Deployment, Hosts, connect, hello_of_version, scan, send_garbage

pytestmark = pytest.mark.skipif(not BIN.exists(), reason="%s is not built" % BIN)


@pytest.fixture
def hosts():
    made = Hosts()
    yield made
    made.close()


@pytest.fixture
def deployment(hosts):
    made = Deployment(hosts).start_all()
    yield made
    made.kill()
    assert made.left_behind() == []


def expect_well(deployment):
    assert [deployment.ask(rank) for rank in range(4)] == ["42"] * 4
    assert deployment.stop() == [0, 0], deployment.log()


class Stream(threading.Thread):
    """A long answer that is still running when something happens."""

    def __init__(self, deployment):
        super().__init__()
        self.deployment, self.lines, self.error = deployment, [], None

    def run(self):
        self.deployment.hosts.enter(0)
        body = {"prompt": "Once", "max_tokens": 3900, "ignore_eos": True, "stream": True}
        try:
            with httpx.stream("POST", self.deployment.url("/v1/completions"), json=body, timeout=60) as answer:
                for line in answer.iter_lines():
                    self.lines.append(line)
        except httpx.HTTPError as error:
            self.error = error


def running_stream(deployment):
    stream = Stream(deployment)
    stream.start()
    deadline = time.time() + 20
    while len(stream.lines) < 10 and time.time() < deadline:
        time.sleep(0.01)
    assert len(stream.lines) >= 10, stream.error
    return stream


@pytest.mark.parametrize("victim", ["of the first host", "of the other host"])
def test_a_stopped_rank_is_named_on_both_hosts(deployment, victim):
    host = 0 if victim == "of the first host" else 1
    stream = running_stream(deployment)
    rank = max(deployment.nodes[host].ranks())
    number = 2 * host + 1
    begin = time.time()
    os.kill(rank, signal.SIGSTOP)
    try:
        for node in deployment.nodes:
            assert node.end(12) == 7, node.log()
            assert re.search(r"rank %d.{0,40}gave no sign of life" % number, node.log()), node.log()
        # 5 s of silence, and the time to end.
        assert time.time() - begin < 8
        stream.join(5)
        assert not stream.is_alive()
        assert any('"code":503' in line for line in stream.lines), stream.lines[-3:]
    finally:
        if os.path.exists("/proc/%d" % rank):
            os.kill(rank, signal.SIGKILL)


def test_garbage_on_every_port_changes_nothing(deployment):
    ports = deployment.ports()
    assert len(ports) >= 4, ports  # coordinator, API, and a link's port of a rank on each host
    stream = running_stream(deployment)
    for host, address, port in ports:
        for data in GARBAGE.values():
            deployment.hosts.call(host, send_garbage, address, port, data)
    assert not stream.error
    stream.join(60)
    assert stream.lines[-2:] and "data: [DONE]" in stream.lines
    expect_well(deployment)


def test_a_port_scanner_changes_nothing(deployment):
    ports = deployment.ports()
    for _ in range(20):
        for host, address, port in ports:
            deployment.hosts.call(host, scan, address, port)
    expect_well(deployment)


def test_half_open_connections_change_nothing(deployment):
    held = []
    for host, address, port in deployment.ports():
        if port == deployment.port:
            continue  # the API has its own limits (tests/http)
        held += [deployment.hosts.call(host, connect, address, port) for _ in range(100)]
    stream = running_stream(deployment)
    time.sleep(6)  # past the five seconds that a stranger gets
    assert not stream.error
    expect_well(deployment)
    for s in held:
        s.close()


def test_half_open_connections_do_not_hold_up_a_join(hosts):
    deployment = Deployment(hosts)
    try:
        first = deployment.start(0)
        first.wait_for("waiting for ranks 2 and 3")
        held = [hosts.call(0, connect, hosts.addresses[0], deployment.meet) for _ in range(200)]
        deployment.start(1)
        first.wait_for("ready after", 60)
        deployment.note_processes()
        expect_well(deployment)
        for s in held:
            s.close()
    finally:
        deployment.kill()
    assert deployment.left_behind() == []


@pytest.mark.parametrize("version", [0, 999])
def test_another_protocol_version_is_refused_by_name(hosts, version):
    deployment = Deployment(hosts)
    try:
        first = deployment.start(0)
        first.wait_for("waiting for ranks 2 and 3")
        answer = hosts.call(1, send_garbage, hosts.addresses[0], deployment.meet, hello_of_version(version))
        wanted = "it speaks version %d of the protocol between hosts" % version
        assert wanted in answer.decode(errors="replace"), answer
        assert b"install the same version of Cadre on all hosts" in answer
        first.wait_for(wanted)
        deployment.start(1)  # the place is still free
        first.wait_for("ready after", 60)
        deployment.note_processes()
        expect_well(deployment)
    finally:
        deployment.kill()
    assert deployment.left_behind() == []


@pytest.mark.parametrize("how", ["delay 20ms 5ms", "loss 2%", "delay 2ms reorder 25%", "rate 50mbit", "duplicate 5%"])
def test_a_bad_cable_slows_and_changes_nothing(hosts, how):
    if not hosts.real:
        pytest.skip("network namespaces need root and `ip`")
    hosts.disturb(how)
    if how.startswith("delay 20ms"):  # the cable does what it is told
        begin = time.monotonic()
        with pytest.raises(ConnectionRefusedError):
            hosts.call(0, socket.create_connection, (hosts.addresses[1], 9), 5)
        assert time.monotonic() - begin > 0.025, "there and back, at the least 2 x 15 ms"
    deployment = Deployment(hosts).start_all()
    try:
        expect_well(deployment)
    finally:
        deployment.kill()
    assert deployment.left_behind() == []


def test_a_cable_that_is_out_for_a_moment_is_forgiven(hosts):
    if not hosts.real:
        pytest.skip("network namespaces need root and `ip`")
    deployment = Deployment(hosts).start_all()
    try:
        for _ in range(2):
            hosts.cable(False)
            time.sleep(1)
            hosts.cable(True)
            time.sleep(2)
        expect_well(deployment)
    finally:
        deployment.kill()


def doctor(hosts, host, *words, seconds=60):
    return subprocess.run([str(word) for word in hosts.on(host, BIN, "doctor", "--no-measure", *words)],
                          capture_output=True, text=True, timeout=seconds)


def test_two_doctors_measure_the_network_between_them(hosts):
    port = 29551
    listener = subprocess.Popen([str(w) for w in hosts.on(1, BIN, "doctor", "--listen", port, "--listen-seconds", 60)],
                                stdout=subprocess.PIPE, text=True)
    try:
        assert "listening on port %d" % port in listener.stdout.readline()
        peer = "%s:%d" % (hosts.addresses[1], port)
        hosts.call(1, send_garbage, hosts.addresses[1], port, b"GET / HTTP/1.1\r\n\r\n")
        text = doctor(hosts, 0, "--peer", peer)
        assert text.returncode == 0, text.stdout + text.stderr
        assert "link tcp" in text.stdout and "would be used" in text.stdout
        found = doctor(hosts, 0, "--json", "--link", "tcp", "--peer", peer)
        findings = {(f["section"], f["name"]): f for f in json.loads(found.stdout)["findings"]}
        link = findings["peer " + peer, "link tcp"]["data"]
        assert link["bytes_per_second"] > 1e7 and 0 < link["round_trip_us"] < 1e5
        assert findings["network", "eth0" if hosts.real else "lo"]["data"]["addresses"]
    finally:
        listener.terminate()
        listener.wait(10)


def test_the_doctor_explains_what_it_does_not_reach(hosts):
    refused = doctor(hosts, 0, "--peer", hosts.addresses[1] + ":29552")
    assert refused.returncode == 7
    assert "nobody listens on port 29552" in " ".join(refused.stdout.split())
    unknown = doctor(hosts, 0, "--peer", "no-such-host.invalid")
    assert unknown.returncode == 7 and "DNS or /etc/hosts" in unknown.stdout
    if hosts.real:
        # A neighbour that never answers, as behind a firewall that drops.
        subprocess.run(["ip", "-n", hosts.names[0], "neigh", "add", "10.79.0.9", "lladdr", "02:00:00:00:00:09", "dev", "eth0"],
                       check=True)
        silent = doctor(hosts, 0, "--peer", "10.79.0.9:29550", "--timeout", 1)
        assert silent.returncode == 7 and "firewall" in silent.stdout


def test_the_doctor_does_not_disturb_a_running_deployment(deployment):
    peer = "%s:%d" % (deployment.hosts.addresses[0], deployment.meet)
    found = doctor(deployment.hosts, 1, "--peer", peer)
    assert found.returncode == 0 and "no doctor" in found.stdout, found.stdout
    expect_well(deployment)
