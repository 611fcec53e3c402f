"""A deployment on two hosts under attack: network namespaces where the tests run as root, else two nodes on the loopback."""

import ctypes
import json
import os
import pathlib
import socket
import struct
import subprocess
import sys
import threading
import time

import httpx

from node import Node
from ports import free_port

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("CADRE_BIN", ROOT / "build/release/cadre"))
MODEL = ROOT / "models/demo"
CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


def run(*command):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True)


class Hosts:
    """Two hosts; `real` says whether they are namespaces joined by a cable."""

    def __init__(self):
        self.names = ["cadre%d-%s" % (os.getpid(), host) for host in "pq"]
        self.addresses = ["10.79.0.1", "10.79.0.2"]
        self.bad_cable = None
        self.real = os.geteuid() == 0 and self._make()
        if not self.real:
            self.close()
            self.addresses = ["127.0.0.1", "127.0.0.1"]

    def _make(self):
        a, b = self.names
        steps = [["ip", "netns", "add", a], ["ip", "netns", "add", b],
                 ["ip", "link", "add", "eth0", "netns", a, "type", "veth", "peer", "name", "eth0", "netns", b]]
        return all(run(*step).returncode == 0 for step in steps) and self._bring_up()

    def _bring_up(self):
        steps = []
        for name, address in zip(self.names, self.addresses):
            steps += [["ip", "-n", name, "addr", "add", address + "/24", "dev", "eth0"],
                      ["ip", "-n", name, "link", "set", "eth0", "up"], ["ip", "-n", name, "link", "set", "lo", "up"]]
        return all(run(*step).returncode == 0 for step in steps)

    def close(self):
        if self.bad_cable is not None:
            self.bad_cable.kill()
            self.bad_cable.wait()
        for name in self.names:
            run("ip", "netns", "del", name)

    def on(self, host, *command):
        return ["ip", "netns", "exec", self.names[host], *command] if self.real else list(command)

    def cable(self, up):
        assert run("ip", "-n", self.names[1], "link", "set", "eth0", "up" if up else "down").returncode == 0

    def disturb(self, how):
        """Disturbs the cable both ways, in netem's words: by netem, or by a cable of our own where the kernel has none."""
        if all(run(*self.on(h, "tc", "qdisc", "add", "dev", "eth0", "root", "netem", *how.split())).returncode == 0
               for h in range(2)):
            return
        assert run("ip", "-n", self.names[0], "link", "del", "eth0").returncode == 0  # both ends
        ends = [self.names[0], "eth0", self.names[1], "eth0"]
        self.bad_cable = subprocess.Popen([sys.executable, str(ROOT / "tests/multihost/cable.py"), *ends, *how.split()],
                                          stdout=subprocess.PIPE, text=True)
        assert self.bad_cable.stdout.readline() == "ready\n"
        self._bring_up()

    def enter(self, host):
        """Moves this *thread* to a host."""
        if not self.real:
            return
        with open("/var/run/netns/" + self.names[host]) as space:
            if LIBC.setns(space.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")

    def call(self, host, function, *args):
        """Runs a function on a host, in a thread of its own."""
        result = []

        def body():
            self.enter(host)
            try:
                result.append((function(*args), None))
            except BaseException as error:  # handed to the caller
                result.append((None, error))

        thread = threading.Thread(target=body)
        thread.start()
        thread.join(120)
        assert result, "%s did not end" % function
        value, error = result[0]
        if error is not None:
            raise error
        return value


def alive(pid):
    try:
        return open("/proc/%d/stat" % pid).read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def listening(pids):
    """[(address, port)] on which these processes listen, as their own network sees it."""
    found = set()
    for pid in pids:
        inodes = set()
        try:
            for fd in os.listdir("/proc/%d/fd" % pid):
                target = os.readlink("/proc/%d/fd/%s" % (pid, fd))
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
            lines = open("/proc/%d/net/tcp" % pid).read().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if words[3] == "0A" and words[9] in inodes:
                address, port = words[1].split(":")
                found.add((socket.inet_ntoa(struct.pack("<I", int(address, 16))), int(port, 16)))
    return sorted(found)


class Deployment:
    """Two nodes of the demo model; the first answers."""

    def __init__(self, hosts, ranks=4, extra=(), env=None):
        self.hosts = hosts
        self.port, self.meet = free_port(), free_port()
        self.shm_before = set(os.listdir("/dev/shm"))
        local = ranks // 2
        common = [BIN, "serve", MODEL, "-ep", "-dp", ranks, "-dpl", local, "-dpa", hosts.addresses[0], "-dpp", self.meet,
                  "--kv-cache-memory-bytes", "32M", *extra]
        self.words = [[*common, "--port", self.port], [*common, "-dpr", local, "--headless"]]
        self.env = env
        self.nodes = []
        self.pids = set()

    def start(self, host):
        self.nodes.append(Node(self.hosts.on(host, *self.words[host]), self.env))
        return self.nodes[-1]

    def start_all(self, seconds=90):
        self.start(0)
        self.start(1)
        self.nodes[0].wait_for("ready after", seconds)
        self.note_processes()
        return self

    def note_processes(self):
        for node in self.nodes:
            self.pids.update([node.process.pid, *node.ranks()])

    def url(self, path):
        return "http://%s:%d%s" % (self.hosts.addresses[0], self.port, path)

    def ask(self, rank=None):
        """The demo model's sum, from the first host's network."""
        def post():
            body = {"temperature": 0, "messages": [{"role": "user", "content": "What is 17 + 25?"}]}
            headers = {} if rank is None else {"X-data-parallel-rank": str(rank)}
            return httpx.post(self.url("/v1/chat/completions"), json=body, headers=headers, timeout=30)

        answer = self.hosts.call(0, post)
        assert answer.status_code == 200, answer.text
        return answer.json()["choices"][0]["message"]["content"]

    def ports(self):
        """[(host, address, port)] of all processes; "any" addresses replaced by the host's."""
        found = []
        for host, node in enumerate(self.nodes):
            for address, port in listening([node.process.pid, *node.ranks()]):
                found.append((host, self.hosts.addresses[host] if address == "0.0.0.0" else address, port))
        return found

    def stop(self):
        self.nodes[0].process.terminate()
        return [node.end(60) for node in self.nodes]

    def kill(self):
        self.note_processes()
        for node in self.nodes:
            node.kill()

    def left_behind(self, seconds=8):
        """What is still there of this deployment: processes, segments, ports; after giving it some time to go."""
        deadline = time.time() + seconds
        while True:
            left = ["process %d" % pid for pid in self.pids if alive(pid)]
            left += ["/dev/shm/" + name for name in set(os.listdir("/dev/shm")) - self.shm_before if "cadre" in name]
            if self.hosts.real:
                for host in range(2):
                    ports = run(*self.hosts.on(host, "ss", "-Hltn")).stdout.split("\n")
                    left += ["port of host %d: %s" % (host, line) for line in ports if line.strip()]
            if not left or time.time() > deadline:
                return left
            time.sleep(0.1)

    def log(self):
        return "".join("--- node %d\n%s" % (i, node.log()) for i, node in enumerate(self.nodes))


# What attackers do; each takes an address and a port and is called on a host of the network.

def connect(address, port, seconds=3):
    return socket.create_connection((address, port), timeout=seconds)


def scan(address, port):
    """Connects and goes, in the ways scanners do."""
    connect(address, port).close()
    s = connect(address, port)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset instead of an end
    s.close()
    s = connect(address, port)
    s.shutdown(socket.SHUT_WR)
    s.close()


def send_garbage(address, port, data):
    """Sends, and reads what comes until the other side closes or half a second has passed; what came."""
    with connect(address, port) as s:
        s.settimeout(0.5)
        came = b""
        try:
            s.sendall(data)
            while piece := s.recv(65536):
                came += piece
        except OSError:
            pass
        return came


HOST_MAGIC = 0x31484443  # "CDH1"
LINK_MAGIC = 0x4B4E494C45524443  # "CDRELINK"


def hello_of_version(version):
    """A coordinator's hello frame of another protocol version: what follows the version it cannot know."""
    body = struct.pack("<I", version) + b"whatever version %d says here" % version
    return struct.pack("<III", HOST_MAGIC, 1, len(body)) + body


def link_hello_of_version(version):
    return struct.pack("<QIIIIQ", LINK_MAGIC, version, 0, 1, 0, 12345)


GARBAGE = {
    "nothing": b"",
    "zeros": bytes(4096),
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls": bytes.fromhex("160301020001fc0303") + bytes(range(256)) * 2,
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "long frame": struct.pack("<III", HOST_MAGIC, 1, 0xFFFFFFFF) + b"x" * 1000,
    "short frame": struct.pack("<III", HOST_MAGIC, 1, 3) + b"xyz",
    "beat before hello": struct.pack("<III", HOST_MAGIC, 5, 0),
    "abort before hello": struct.pack("<IIIiI", HOST_MAGIC, 7, 11, 0, 3) + b"bad",
    "old host": hello_of_version(0),
    "new host": hello_of_version(4_000_000_000),
    "old link": link_hello_of_version(0),
    "strange key": link_hello_of_version(1),
    "json": json.dumps({"prompt": "x" * 3000}).encode(),
}
