"""Weights that ranks read out of a trainer's memory over UCX (docs/rl.md), where something goes wrong, and again and again.

test_rl.py has the plain case, for both transports.
"""

import gc
import os
import pathlib
import signal
import subprocess
import sys
import time
import weakref

import httpx
import pytest

from conftest import BIN, MODEL, Server, command
from test_rl import (LAYOUTS, PROMPT, SMALL, arrays_of, changed_tensors, connect, folders, greedy, load_sender, make_sender,  # noqa: F401
                     other_answer, post, read_tensors)

pytestmark = pytest.mark.skipif(not BIN.exists(), reason="%s is not built" % BIN)

HAS_RDMA = pathlib.Path("/sys/class/infiniband").exists() and any(pathlib.Path("/sys/class/infiniband").iterdir())


@pytest.fixture
def rl():
    return load_sender()


def offer(sender, arrays):
    return sender.offer(arrays, dtypes=dict.fromkeys(arrays, "bfloat16"))


# A trainer in a process of its own. One of its tensors is a file that it cuts off when the server has been told to come: the
# process dies of that tensor, with the update half done. A name that is no tensor: it lives until it is killed.
TRAINER = """
import importlib.util, json, os, struct, sys
import numpy as np
source, rl_path, ranks, victim, file = sys.argv[1:]
spec = importlib.util.spec_from_file_location("cadre_rl", rl_path)
rl = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rl)
data = open(source, "rb").read()
(length,) = struct.unpack_from("<Q", data)
head = json.loads(data[8 : 8 + length])
head.pop("__metadata__", None)
arrays = {}
for name, t in head.items():
    begin, end = (8 + length + at for at in t["data_offsets"])
    arrays[name] = np.frombuffer(data[begin:end], np.uint16).reshape(t["shape"])
if victim in arrays:
    arrays[victim].tofile(file)
    arrays[victim] = np.memmap(file, np.uint16, "r+", shape=arrays[victim].shape)
sender = rl.WeightSender(int(ranks), host="127.0.0.1", transport="ucx")
sender.offer(arrays, dtypes=dict.fromkeys(arrays, "bfloat16"))
if victim in arrays:
    os.truncate(file, 0)
print(sender.port, flush=True)
sys.stdin.read()
"""


class Trainer:
    def __init__(self, rl, source, ranks, victim="", file=""):
        make_sender(rl, 1, "ucx").close()  # skips where there is no UCX
        environment = dict(os.environ, PYTHONPATH=str(BIN.parent / "python"), UCX_HANDLE_ERRORS="none")
        self.process = subprocess.Popen([sys.executable, "-c", TRAINER, str(pathlib.Path(source) / "model.safetensors"), rl.__file__,
                                         str(ranks), victim, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env=environment)
        self.port = int(self.process.stdout.readline())

    def connect(self, server):
        body = {"host": "127.0.0.1", "port": self.port, "timeout": 20}
        assert post(server, "/init_broadcaster", body)["status"] == "ok"

    def end(self):
        self.process.kill()
        self.process.wait(20)


@pytest.mark.skipif(HAS_RDMA, reason="with RDMA nothing of the trainer's process runs that could die of its memory")
@pytest.mark.parametrize("layout,ranks", [("one", 1), ("dp2-ep", 2)])
def test_a_trainer_that_dies_in_the_middle(start, rl, folders, other_answer, tmp_path, layout, ranks):  # noqa: F811
    server = start(*SMALL, *LAYOUTS[layout])
    post(server, "/update_weights", {"weight_dir": str(folders / "good")})
    assert greedy(server) == other_answer()
    trainer = Trainer(rl, MODEL, ranks, "model.layers.2.mlp.experts.1.down_proj.weight", tmp_path / "array")
    try:
        trainer.connect(server)
        error = post(server, "/update_weights", {"weight_dir": None, "timeout": 60}, status=503)["error"]["message"]
        assert "closed its connection" in error or "UCX" in error, error
        assert "in place" in error
        assert trainer.process.wait(20) == -signal.SIGBUS
        assert greedy(server) == other_answer()
        assert "sender" in post(server, "/update_weights", {"weight_dir": None}, status=503)["error"]["message"]
        assert greedy(server) == other_answer()
        post(server, "/reload_weights")
    finally:
        trainer.end()


def test_a_trainer_that_is_killed_before_and_one_after_it(start, rl, folders, other_answer):  # noqa: F811
    server = start(*SMALL)
    before = greedy(server)
    first = Trainer(rl, folders / "good", 1)
    first.connect(server)
    first.end()
    post(server, "/update_weights", {"weight_dir": None, "timeout": 20}, status=503)
    assert greedy(server) == before  # nothing had begun
    second = Trainer(rl, folders / "good", 1)
    try:
        second.connect(server)
        post(server, "/update_weights", {"weight_dir": None})
        assert greedy(server) == other_answer()
    finally:
        second.end()


def test_a_stopped_trainer_meets_the_deadline(start, rl, folders):  # noqa: F811
    server = start(*SMALL)
    before = greedy(server)
    trainer = Trainer(rl, folders / "good", 1)
    try:
        trainer.connect(server)
        trainer.process.send_signal(signal.SIGSTOP)
        error = post(server, "/update_weights", {"weight_dir": None, "timeout": 1}, status=504)["error"]["message"]
        assert "sender" in error
        assert greedy(server) == before
    finally:
        trainer.end()


def test_servers_come_and_die(start, rl, other_answer):  # noqa: F811
    """The sender serves whoever is there, whatever became of those before."""
    with make_sender(rl, 1, "ucx") as sender:
        arrays = arrays_of(changed_tensors())
        offer(sender, arrays)
        for round in range(3):
            server = start(*SMALL)
            connect(server, sender, 1)
            assert post(server, "/update_weights", {"weight_dir": None})["generation"] == 2
            assert greedy(server, count=8) == other_answer(count=8)
            offer(sender, arrays)
            if round == 2:
                break
            late = httpx.Client()
            try:
                late.post(server.url + "/update_weights", json={"weight_dir": None}, timeout=0.001 + 0.01 * round)
            except httpx.TimeoutException:
                pass
            server.process.kill()  # perhaps in the middle of reading
            server.process.wait(20)
            late.close()
            sender._taken.clear()  # the next one begins anew


def test_a_hundred_updates_leave_nothing_behind(start, rl):
    ranks = 2
    server = start(*SMALL, *LAYOUTS["dp2-ep"])
    processes = [server.process.pid, *children(server.process.pid), os.getpid()]
    with make_sender(rl, ranks, "ucx") as sender:
        connect(server, sender, ranks)
        tensors = read_tensors(MODEL)
        seen, early, early_bytes = [], None, None
        for update in range(100):
            arrays = {n: a.copy() for n, a in arrays_of(tensors).items()}
            seen.append(weakref.ref(arrays["model.norm.weight"]))
            offer(sender, arrays)
            del arrays
            assert post(server, "/update_weights", {"weight_dir": None})["generation"] == update + 2
            assert sender.wait(timeout=10)
            if update == 20:
                early, early_bytes = open_files(processes), resident(processes)
        gc.collect()
        deadline = time.time() + 10  # the other side of a connection closes in its own time
        while any(now > then for now, then in zip(open_files(processes), early)):
            assert time.time() < deadline, (open_files(processes), early)
            time.sleep(0.05)
        assert sum(array() is not None for array in seen) == 1  # those on offer
        weights = sum(len(data) for _, _, data in tensors.values())
        assert resident(processes) < early_bytes + 2 * weights, (resident(processes), early_bytes)


def children(pid):
    return [int(child) for child in pathlib.Path("/proc/%d/task/%d/children" % (pid, pid)).read_text().split()]


def open_files(pids):
    return [len(os.listdir("/proc/%d/fd" % pid)) for pid in pids]


def resident(pids):
    return sum(int(pathlib.Path("/proc/%d/statm" % pid).read_text().split()[1]) for pid in pids) * os.sysconf("SC_PAGE_SIZE")


def test_a_server_without_ucx_says_so(monkeypatch, rl, tmp_path):
    (tmp_path / "libucp.so.0").write_text("no library")
    with make_sender(rl, 1, "ucx") as sender:
        offer(sender, arrays_of(read_tensors(MODEL)))
        monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
        server = Server(command(*SMALL))
        try:
            before = greedy(server)
            body = {"host": "127.0.0.1", "port": sender.port, "timeout": 20}
            answer = httpx.post(server.url + "/init_broadcaster", json=body, timeout=60)
            assert answer.status_code >= 400 and "over UCX" in answer.text and "libucp" in answer.text, answer.text
            assert "no sender" in post(server, "/update_weights", {"weight_dir": None}, status=400)["error"]["message"]
            assert greedy(server) == before
        finally:
            server.stop()


def test_a_sender_without_the_extension_says_so(monkeypatch, rl):
    monkeypatch.setitem(sys.modules, "cadre", None)
    with pytest.raises(ImportError, match="extension"):
        rl.WeightSender(1, host="127.0.0.1", transport="ucx")
    with pytest.raises(ValueError, match="'tcp' or 'ucx'"):
        rl.WeightSender(1, host="127.0.0.1", transport="rdma")
    rl.WeightSender(1, host="127.0.0.1").close()
