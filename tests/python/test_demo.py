"""`cadre demo` and the example over the Python package, against numpy that shares nothing with them."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from ranks import EXAMPLE, ROOT, Ranks, cadre, environment, needs_numpy, needs_package, needs_program

pytestmark = [needs_program, needs_numpy]


# ---- the layer of src/app/demo/layer.h, made again from its description


def philox(seed, stream, counters):
    """Philox4x32-10 (Salmon et al. 2011): [n] counters -> [n, 4] words."""
    import numpy as np

    mask = np.uint64(0xFFFFFFFF)
    x = [counters & mask, counters >> np.uint64(32), np.full_like(counters, stream & 0xFFFFFFFF), np.full_like(counters, stream >> 32)]
    key = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        p0, p1 = x[0] * np.uint64(0xD2511F53), x[2] * np.uint64(0xCD9E8D57)
        x = [(p1 >> np.uint64(32)) ^ x[1] ^ np.uint64(key[0]), p1 & mask, (p0 >> np.uint64(32)) ^ x[3] ^ np.uint64(key[1]), p0 & mask]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return np.stack(x, axis=1)


def drawn(seed, tensor, index, rows, columns, scale=None):
    import numpy as np

    count = rows * columns
    words = philox(seed, tensor + 8 * index, np.arange((count + 3) // 4, dtype=np.uint64)).reshape(-1)[:count]
    scale = np.sqrt(3.0 / columns) if scale is None else scale
    numbers = ((words >> np.uint64(8)).astype(np.float64) * 2.0**-23 - 1.0) * scale
    return numbers.astype(np.float32).astype(np.float64).reshape(rows, columns)


def layer(ranks, experts, top_k, tokens, hidden, inter, seed):
    """(choices, weights, outputs) of each rank."""
    import numpy as np

    router = drawn(seed, 0, 0, experts, hidden)
    weights = [
        (drawn(seed, 1, e, inter, hidden), drawn(seed, 2, e, inter, hidden), drawn(seed, 3, e, hidden, inter))
        for e in range(experts)
    ]
    results = []
    for rank in range(ranks):
        x = drawn(seed, 4, rank, tokens, hidden, np.sqrt(3.0))
        logits = x @ router.T
        chosen = np.argsort(-logits, axis=1, kind="stable")[:, :top_k]
        shares = np.exp(np.take_along_axis(logits, chosen, 1))
        shares /= shares.sum(axis=1, keepdims=True)
        out = np.zeros_like(x)
        for t in range(tokens):
            for e, share in zip(chosen[t], shares[t]):
                gate, up, down = weights[e]
                a = gate @ x[t]
                out[t] += share * (down @ (a / (1 + np.exp(-a)) * (up @ x[t])))
        results.append((chosen, shares, out))
    return results


@pytest.mark.parametrize("backend", ["allgather_reducescatter", "pplx", "deepep_high_throughput", "naive"])
@pytest.mark.parametrize("ranks, placement", [(1, "linear"), (2, "linear"), (3, "round_robin")])
def test_the_numbers_are_numpys(tmp_path, backend, ranks, placement):
    import numpy as np

    shape = dict(experts=7, top_k=3, tokens=9, hidden=52, inter=45, seed=5)
    file = tmp_path / "demo.json"
    cadre("demo", "--nproc-per-node", ranks, "--num-experts", 7, "--top-k", 3, "--num-tokens", 9, "--hidden-size", 52,
          "--intermediate-size", 45, "--seed", 5, "--all2all-backend", backend, "--expert-placement-strategy", placement,
          "--json", file)
    said = json.loads(file.read_text())
    home = {e: r for r, rank in enumerate(said["ranks"]) for e in rank["held"]}
    assert sorted(home) == list(range(7))
    for r, (rank, (chosen, shares, out)) in enumerate(zip(said["ranks"], layer(ranks, **shape))):
        assert rank["held"] == [e for e in range(7) if (e % ranks == r if placement == "round_robin" else home[e] == r)]
        assert rank["experts"] == chosen.reshape(-1).tolist()
        np.testing.assert_allclose(rank["weights"], shares.reshape(-1), atol=1e-5)
        np.testing.assert_allclose(rank["out"], out.reshape(-1), atol=2e-5)
        # Who sends what where, counted again.
        homes = [{home[e] for e in token} for token in chosen.tolist()]
        assert rank["rows_to"] == [sum(to in token for token in homes) for to in range(ranks)]
        assert rank["pairs_to"] == [sum(home[e] == to for token in chosen.tolist() for e in token) for to in range(ranks)]
        # Packed: outputs rounded up to 16 (gate and up each), inputs to 2.
        assert rank["expert_bytes"] == len(rank["held"]) * 4 * (2 * 48 * 52 + 64 * 46)
    assert sum(sum(rank["slot_rows"]) for rank in said["ranks"]) == ranks * 9 * 3
    if backend == "pplx" or ranks == 1:
        assert said["num_different"] == 0


def test_the_page():
    page = cadre("demo", "--force-cpu").stdout
    for part in ("because --force-cpu says so", "1. Router", "2. Dispatch", "3. Expert computation", "4. Combine",
                 "rank 0: 4 of 8: experts 0 1 2 3", "rank 1: 4 of 8 experts, 1.5 MiB, 50.0 %", "\n  OK\n"):
        assert part in page, page
    assert "because --force-cpu" not in cadre("demo").stdout


@pytest.mark.skipif(not (ROOT / "models/demo/model.safetensors").exists(), reason="models/demo has no weights")
def test_a_layer_of_a_model():
    page = cadre("demo", "--model", "models/demo", "--prompt", "What is 17 + 25?", "--nproc-per-node", 4).stdout
    for part in ("Layer: number 0 of models/demo (Qwen3MoeForCausalLM)", "'What'", "rank 3: 8 of 32 experts", "25.0 %", "\n  OK\n"):
        assert part in page, page


@pytest.mark.parametrize("words, rc, says", [
    (["--model", "models/none"], 3, "models/none"),
    (["--model", "models/demo", "--top-k", 3], 2, "--top-k is for a layer without --model"),
    (["--nproc-per-node", 0], 2, "--nproc-per-node must be at least 1, not 0"),
    (["--nproc-per-node", 9], 2, "--nproc-per-node 9 is more than --num-experts 8"),
    (["--top-k", 9], 2, "--top-k 9 of --num-experts 8"),
    (["--all2all-backend", "nccl"], 2, "'nccl' is not one of allgather_reducescatter"),
    (["--num-tokens", "x"], 2, "--num-tokens wants an integer"),
    (["--num-experts", 4096, "--hidden-size", 65536, "--intermediate-size", 262144], 6, "Make one of these smaller"),
    (["--python", "--json", "x"], 2, "--json is not written with --python"),
])
def test_wrong_words(words, rc, says):
    done = cadre("demo", *words, rc=rc)
    assert says in done.stderr and done.stdout == "", done


# ---- the same over Python


def check_example(page, ranks):
    for part in (f"World size: {ranks}", "1. Router", "2. Dispatch", "3. Expert computation", "4. Combine",
                 "plain numpy in float64", "\nOK\n"):
        assert part in page, page
    assert page.count("Expert parallel size") == 1, page  # one rank draws


@needs_package
@pytest.mark.parametrize("words", [[], ["--nproc-per-node", 3, "--all2all-backend", "pplx", "--top-k", 3]])
def test_demo_python(words):
    done = cadre("demo", "--python", "--force-cpu", *words)
    check_example(done.stdout, words[1] if words else 2)
    if words:
        assert "(the same bits)" in done.stdout


@needs_package
def test_demo_python_says_what_is_wrong():
    done = cadre("demo", "--python", "--num-experts", 2, "--top-k", 3, rc=7)
    assert "--top-k 3 of --num-experts 2" in done.stderr and "exited with code" in done.stderr, done
    done = cadre("demo", "--python", rc=3, PATH="/no/such/folder")
    assert "wants a python3" in done.stderr, done


@needs_package
@pytest.mark.parametrize("size, hosts", [(1, 1), (2, 1), (3, 1), (2, 2), (4, 2)])
def test_launched_by_hand(size, hosts):
    ends = Ranks(None, size, [sys.executable, "demo.py", "--force-cpu", "--top-k", "3"], hosts=hosts).end()
    assert [rc for rc, _, _ in ends] == [0] * size, ends
    check_example(ends[0][1], size)
    assert all(out == "" for _, out, _ in ends[1:]), ends


@needs_package
def test_groups_of_ranks():
    ends = Ranks(None, 4, [sys.executable, "demo.py", "--force-cpu", "--expert-parallel-size", "2"]).end()
    assert [rc for rc, _, _ in ends] == [0] * 4, ends
    assert "Expert parallel size: 2" in ends[0][1] and "1 other group(s)" in ends[0][1], ends
    for size, says in ((3, "world_size (4) must be divisible by expert_parallel_size (3)"),
                       (5, "expert_parallel_size (5) > world_size (4)")):
        ends = Ranks(None, 4, [sys.executable, "demo.py", "--expert-parallel-size", str(size)]).end()
        assert all(rc == 1 and says in err for rc, _, err in ends), ends


@needs_package
def test_torchrun():
    torchrun = os.environ.get("CADRE_TORCHRUN") or shutil.which("torchrun")
    if not torchrun:
        pytest.skip("torchrun is neither in PATH nor named by CADRE_TORCHRUN")
    python = os.path.join(os.path.dirname(torchrun), "python")
    if subprocess.run([python, "-c", "import numpy, cadre"], env=environment(), capture_output=True).returncode:
        pytest.skip(f"{python} cannot import numpy and cadre")
    done = subprocess.run([torchrun, "--nproc_per_node=2", "demo.py", "--force-cpu"], cwd=EXAMPLE, env=environment(),
                          capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done
    check_example(done.stdout, 2)
