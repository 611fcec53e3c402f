"""The package cadre: groups of processes, collectives, exchanges and kernels against numpy; and what goes wrong."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from ports import free_port
from ranks import Ranks, environment, needs_numpy, needs_package, run

pytestmark = [needs_numpy, needs_package]


def alone(code, **more):
    return subprocess.run([sys.executable, "-c", code], env=environment(**more), capture_output=True, text=True, timeout=60)


COLLECTIVES = """
import numpy as np, cadre
with cadre.init_process_group(timeout=20) as group:
    r, n = group.rank, group.size
    group.barrier()
    # Large enough for several rounds; the sum in rank order has the same bits everywhere.
    rng = lambda rank: np.random.default_rng(rank).standard_normal((3, 500_001)).astype(np.float32)
    total = group.all_reduce(rng(r))
    wanted = np.zeros((3, 500_001), np.float32)
    for k in range(n): wanted = rng(k) if k == 0 else wanted + rng(k)
    one_host = group.launch.local_size == n
    assert np.array_equal(total, wanted) if one_host else np.allclose(total, wanted, atol=1e-5)
    copies = group.all_gather(total)
    assert all(c.tobytes() == total.tobytes() for c in copies)
    # Any type and shape, none of them equal; none at all; a single number.
    parts = group.all_gather(np.full((k := r, 2), 1 + 2j * r))
    assert [p.shape for p in parts] == [(k, 2) for k in range(n)] and parts[-1].dtype == np.complex128
    assert all((p == 1 + 2j * k).all() for k, p in enumerate(parts))
    assert [int(x) for x in group.all_gather(np.int64(r * r))] == [k * k for k in range(n)]
    assert [p.dtype.str for p in group.all_gather(np.zeros(1, "u1" if r == 0 else "<f8"))] == ["|u1"] + ["<f8"] * (n - 1)
    assert np.array_equal(group.broadcast(np.arange(5) * r, root=n - 1), np.arange(5) * (n - 1))
    assert np.array_equal(group.reduce_scatter(np.arange(2 * n) * (r + 1.0)), np.arange(2 * r, 2 * r + 2) * n * (n + 1) / 2)
    if n > 2 and r in (0, n - 1):
        part = group.subgroup([0, n - 1])
        assert part.size == 2 and part.rank == (r > 0)
        assert [int(x) for x in part.all_gather(np.int64(r))] == [0, n - 1]
    for says, work in (
        ("Python objects", lambda: group.all_gather(np.array([object()]))),
        (f"rank {r} is not a member", lambda: group.subgroup([(r + 1) % n] if n > 1 else [])),
        ("members go from 0", lambda: group.subgroup([0, n])),
        ("does not divide", lambda: group.reduce_scatter(np.zeros(n + 1)) if n > 1 else group.reduce_scatter(0.0)),
    ):
        try:
            work()
        except ValueError as error:
            assert says in str(error) or n == 1, error
        else:
            raise AssertionError(says)
print("fine")
"""


@pytest.mark.parametrize("size, hosts", [(1, 1), (2, 1), (3, 1), (2, 2), (4, 2)])
def test_collectives(size, hosts):
    assert run(COLLECTIVES, size, hosts=hosts) == ["fine\n"] * size


EXCHANGE = """
import numpy as np, cadre, os
E, K, H, I, T = 10, 3, 34, 23, 17
rng = np.random.default_rng(1)
gate, up, down = rng.standard_normal((E, I, H)), rng.standard_normal((E, I, H)), rng.standard_normal((E, H, I)) / 8
gate, up, down = (m.astype(np.float32) for m in (gate, up, down))
with cadre.init_process_group(timeout=20) as group:
    r, n = group.rank, group.size
    exchange = cadre.Exchange(group, E, K, H, max_tokens=T, backend=os.environ["BACKEND"], placement=os.environ["PLACEMENT"])
    assert sorted(exchange.held) == exchange.held and [exchange.homes[e] for e in exchange.held] == [r] * len(exchange.held)
    bank = cadre.ExpertBank(len(exchange.held), H, I)
    for slot, e in enumerate(exchange.held): bank.set(slot, gate[e], up[e], down[e])
    for step in range(4):
        own = np.random.default_rng([2, r, step])
        t = [T, 0, 1, T][(step + r) % 4]  # ragged, and none on some ranks
        x = own.standard_normal((t, H)).astype(np.float32)
        experts = np.argsort(own.random((t, E)), axis=1)[:, :K]
        experts[own.random((t, K)) < 0.2] = -1
        weights = own.random((t, K), np.float32)
        wanted = np.zeros((t, H))
        for i in range(t):
            for e, w in zip(experts[i], weights[i]):
                if e >= 0:
                    a = gate[e].astype(float) @ x[i]
                    wanted[i] += w * (down[e] @ (a / (1 + np.exp(-a)) * (up[e].astype(float) @ x[i])))
        if step % 2:
            exchange.send(x, experts, weights)
            exchange.run(bank)
            out = exchange.combine()
        else:
            came = exchange.dispatch(x.tolist() if t else x, experts, weights)
            rows = bank.run(came.rows, came.offsets, came.weights)
            # One expert alone, in numpy: what came is rows of this expert.
            for s, e in enumerate(exchange.held):
                for i in range(came.offsets[s], came.offsets[s + 1]):
                    a = gate[e] @ came.rows[i]
                    y = came.weights[i] * (down[e] @ (a / (1 + np.exp(-a)) * (up[e] @ came.rows[i])))
                    assert np.allclose(rows[i], y, atol=1e-3)
            out = exchange.combine(rows)
        assert out.shape == (t, H) and np.allclose(out, wanted, atol=1e-3), np.abs(out - wanted).max()
    assert n == 1 or exchange.bytes["dispatch"] > 0
    assert os.environ["BACKEND"] in exchange.description
print("fine")
"""


@pytest.mark.parametrize("backend", ["allgather_reducescatter", "naive", "pplx", "deepep_high_throughput",
                                     "deepep_low_latency", "flashinfer_all2allv", "mori"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_exchange(backend, size):
    placement = "round_robin" if size == 3 else "linear"
    assert run(EXCHANGE, size, BACKEND=backend, PLACEMENT=placement) == ["fine\n"] * size


def test_exchange_between_hosts():
    run(EXCHANGE, 2, hosts=2, BACKEND="allgather_reducescatter", PLACEMENT="linear")


KERNELS = """
import array, numpy as np, cadre
rng = np.random.default_rng(0)
w, x = rng.standard_normal((19, 33)).astype(np.float32), rng.standard_normal((7, 33)).astype(np.float32)
linear = cadre.Linear(w)
y = linear(x)
assert np.allclose(y, x @ w.T, atol=1e-4)
assert all(linear(x[i : i + 1]).tobytes() == y[i : i + 1].tobytes() for i in range(7))  # alone or together
many = cadre.Linear(w, cadre.Device(threads=3))
assert many(x).tobytes() == y.tobytes()
experts, weights = cadre.top_k(y, 4)
order = np.argsort(-y, axis=1, kind="stable")[:, :4]
e = np.exp(np.take_along_axis(y, order, 1) - y.max(axis=1, keepdims=True))
assert np.array_equal(experts, order) and np.allclose(weights, e / e.sum(axis=1, keepdims=True), atol=1e-6)
# Anything with the buffer protocol.
out = array.array("f", [0.0] * 7 * 19)
cadre._engine.Linear(memoryview(w)).run(cadre.Device(), x, memoryview(out).cast("B").cast("f", (7, 19)))
assert np.array_equal(np.array(out, np.float32).reshape(7, 19), y)
bank = cadre.ExpertBank(2, 8, 4)
assert bank.nbytes == 2 * 4 * (2 * 16 * 8 + 16 * 4)

def raises(kind, says, work):
    try:
        work()
    except kind as error:
        assert says in str(error), error
        return error
    raise AssertionError(f"no {kind}")

raises(TypeError, "rows: wanted shape [any, 33]", lambda: linear(np.zeros((2, 32))))
raises(TypeError, "rows: wanted float32", lambda: linear._linear.run(cadre.Device(), np.zeros((2, 33)), out))
raises(TypeError, "out: wanted writable memory", lambda: linear._linear.run(cadre.Device(), x, bytes(7 * 19 * 4)))
raises(TypeError, "rows: wanted memory of numbers", lambda: linear._linear.run(cadre.Device(), None, out))
raises(ValueError, "offsets rise", lambda: bank.run(np.zeros((3, 8)), [0, 4, 3]))
raises(ValueError, "offsets rise", lambda: bank.run(np.zeros((3, 8)), [0, 1, 2]))
raises(IndexError, "expert 2 of a bank of 2", lambda: bank.set(2, np.zeros((4, 8)), np.zeros((4, 8)), np.zeros((8, 4))))
raises(ValueError, "of 3 experts it goes from 1 to 3", lambda: cadre.top_k(np.zeros((1, 3)), 4))
raises(cadre.InvalidArgumentError, "all2all backend 'ring' is unknown", lambda: cadre.Exchange(None, 4, 2, 8, 4, backend="ring"))
raises(ValueError, "'spiral'", lambda: cadre.Exchange(None, 4, 2, 8, 4, placement="spiral"))
error = raises(ValueError, "portable", lambda: cadre.Device("avx1024"))
exchange = cadre.Exchange(None, 4, 2, 8, max_tokens=3)
one = lambda experts, t=1: exchange.send(np.zeros((t, 8)), experts, np.ones((t, 2)))
raises(ValueError, "combine without a dispatch", lambda: exchange.combine())
raises(ValueError, "wants expert 4", lambda: one([[0, 4]]))
raises(ValueError, "expert 3 twice", lambda: one([[3, 3]]))
raises(ValueError, "at most 3", lambda: one([[0, 1]] * 4, 4))
assert one([[0, 1]]) == 2
raises(ValueError, "before the last dispatch", lambda: one([[0, 1]]))
raises(ValueError, "the bank has 2 experts", lambda: exchange.run(bank))
raises(ValueError, "run() before it", lambda: exchange.combine())
raises(TypeError, "shape [2, 8]", lambda: exchange.combine(np.zeros((3, 8))))
assert exchange.combine(np.ones((2, 8))).tolist() == [[2.0] * 8]
print("fine")
"""


def test_kernels_and_wrong_arguments():
    done = alone(KERNELS)
    assert done.stdout == "fine\n", done.stderr


@pytest.mark.parametrize("env, says", [
    ({}, "WORLD_SIZE is not set: start the script with torchrun"),
    ({"WORLD_SIZE": 2}, "RANK is not set"),
    ({"WORLD_SIZE": 2, "RANK": 2}, "RANK is '2'; it is a number from 0 to 1"),
    ({"WORLD_SIZE": "two", "RANK": 0}, "WORLD_SIZE is 'two'"),
    ({"WORLD_SIZE": 2, "RANK": 0}, "MASTER_ADDR is not set"),
    ({"WORLD_SIZE": 2, "RANK": 0, "MASTER_ADDR": "127.0.0.1"}, "MASTER_PORT is not set"),
    ({"WORLD_SIZE": 2, "RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 70000}, "MASTER_PORT is '70000'"),
    ({"WORLD_SIZE": 2, "RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1, "LOCAL_WORLD_SIZE": 2}, "LOCAL_RANK is not set"),
    ({"WORLD_SIZE": 3, "RANK": 0, "MASTER_ADDR": "x", "MASTER_PORT": 1, "LOCAL_WORLD_SIZE": 2, "LOCAL_RANK": 1}, "RANK 0 cannot be LOCAL_RANK 1 of 2"),
])
def test_missing_or_wrong_variables(env, says):
    done = alone("import cadre\ntry: cadre.init_process_group(timeout=1)\nexcept cadre.InvalidArgumentError as e: print(e)", **env)
    assert says in done.stdout, done


def test_who_does_not_come_is_named():
    code = "import cadre\ntry: cadre.init_process_group(timeout=1)\nexcept TimeoutError as e: print(e)"
    env = dict(WORLD_SIZE=3, MASTER_ADDR="127.0.0.1", MASTER_PORT=free_port())
    assert "ranks 1 and 2 did not come within 1 s" in alone(code, RANK=0, **env).stdout
    assert "rank 0, the first process of this host, did not come within 1 s" in alone(code, RANK=2, **env).stdout


def test_processes_that_disagree():
    port = free_port()
    code = "import cadre\ntry: cadre.init_process_group(timeout=5)\nexcept ValueError as e: print(e)"
    start = lambda rank, size: subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
        env=environment(RANK=rank, WORLD_SIZE=size, MASTER_ADDR="127.0.0.1", MASTER_PORT=port))
    processes = [start(0, 2), start(1, 3)]
    for process in processes:
        assert "rank 1 was started with WORLD_SIZE 3" in process.communicate(timeout=30)[0]


WAITS = """
import sys, time, numpy as np, cadre
group = cadre.init_process_group(timeout=30)
exchange = cadre.Exchange(group, 4, 2, 8, max_tokens=4)
print("ready", flush=True)

def round():
    exchange.send(np.zeros((1, 8)), [[0, 3]], [[1, 1]])
    exchange.combine(np.zeros((exchange._exchange.num_received, 8)))

start = time.monotonic()
try:
    round()  # after it everyone is in here
    if group.rank == int(sys.argv[1] if len(sys.argv) > 1 else VICTIM):
        WHAT
    while True:
        round()
except (ConnectionError, TimeoutError) as error:
    print(f"{type(error).__name__}: {error}")
    try:
        exchange.send(np.zeros((1, 8)), [[0, 3]], [[1, 1]])
    except cadre.Error as again:
        print("again:", again)
print(f"{time.monotonic() - start:.1f}")
"""


@pytest.mark.parametrize("hosts", [1, 2])
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("what, says", [
    ("raise KeyError('lost')", "rank {} is gone: KeyError: 'lost'"),
    ("sys.exit(3)", "rank {} is gone: its process ended without close()"),
    ("import os; os.kill(os.getpid(), 9)", "rank {}"),
])
def test_a_rank_that_dies_is_named(victim, what, says, hosts):
    ranks = Ranks(WAITS.replace("VICTIM", str(victim)).replace("WHAT", what), 2, hosts=hosts)
    started = time.monotonic()
    ends = ranks.end(60)
    rc, out, err = ends[1 - victim]
    words = says.format(victim)
    if "kill" in what and hosts == 2:
        words = "host"  # a host's only process: the others learn that the host is gone
    assert rc == 0 and words in out, ends
    assert time.monotonic() - started < 25, "longer than the heartbeat takes"


def test_a_stopped_rank_is_named_by_its_heartbeat():
    ranks = Ranks(WAITS.replace("VICTIM", "1").replace("WHAT", "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"), 2)
    out, err = ranks.processes[0].communicate(timeout=30)
    ranks.processes[1].kill()
    ranks.end()
    assert "rank 1 gave no sign of life for 5 s" in out, (out, err)


def test_a_late_rank_is_named_at_the_deadline():
    code = """
import time, cadre
group = cadre.init_process_group(timeout=1.5)
if group.rank == 1: time.sleep(4)
try:
    group.barrier()
except (TimeoutError, ConnectionError) as error:
    print(error)
"""
    ends = Ranks(code, 2).end()
    assert "rank 1" in ends[0][1], ends


def test_other_threads_run_while_a_call_waits():
    code = """
import threading, time, cadre
group = cadre.init_process_group(timeout=20)
count = 0
def tick():
    global count
    while True: count += 1; time.sleep(0.001)
threading.Thread(target=tick, daemon=True).start()
if group.rank == 1: time.sleep(1)
before = count
group.barrier()
print(count - before)
group.close()
"""
    assert int(run(code, 2)[0]) > 100


def test_a_group_is_one_threads_at_a_time():
    code = """
import threading, time, cadre
group = cadre.init_process_group(timeout=20)
if group.rank == 0:
    waiting = threading.Thread(target=group.barrier); waiting.start(); time.sleep(0.3)
    try: group.barrier()
    except RuntimeError as error: print(error)
    waiting.join()
else:
    time.sleep(1); group.barrier()
group.close()
"""
    assert "another thread is using this object" in run(code, 2)[0]


def test_after_close():
    code = """
import numpy as np, cadre
with cadre.init_process_group(timeout=20) as group:
    exchange = cadre.Exchange(group, 4, 2, 8, max_tokens=4)
for work in (group.barrier, lambda: exchange.send(np.zeros((0, 8)), np.zeros((0, 2)), np.zeros((0, 2)))):
    try: work()
    except ConnectionError as error: print(error)
group.close()
"""
    for out in run(code, 2):
        assert out.count("closed") == 2, out


def test_nothing_is_left_behind():
    before = set(os.listdir("/dev/shm"))
    run("import cadre\ncadre.init_process_group(timeout=20).close()", 3)
    assert set(os.listdir("/dev/shm")) <= before


def test_the_stubs_name_what_there_is():
    code = """
import ast, inspect, pathlib, cadre
engine = cadre._engine
tree = ast.parse((pathlib.Path(cadre.__file__).parent / "_engine.pyi").read_text())
stubs = {}
for node in tree.body:
    if isinstance(node, ast.ClassDef):
        stubs[node.name] = {f.name for f in node.body if isinstance(f, ast.FunctionDef)} - {"__init__"}
    elif isinstance(node, ast.FunctionDef):
        stubs[node.name] = None
    elif isinstance(node, ast.AnnAssign):
        stubs[node.target.id] = None
there = {}
for name, value in vars(engine).items():
    if not name.startswith("_"):
        there[name] = {n for n in vars(value) if not n.startswith("_")} if inspect.isclass(value) else None
assert stubs == there, (stubs, there)
"""
    done = alone(code)
    assert done.returncode == 0, done.stderr
