#!/usr/bin/env python3
"""Expert parallelism on a few tokens: who holds which expert, which rows travel where, and the same answer.

    torchrun --nproc_per_node=2 demo.py --force-cpu
    cadre demo --python
"""

import argparse
import importlib.util
import pathlib
import sys

# Not installed: the package of this checkout, if it was built (./quickstart --build).
if importlib.util.find_spec("cadre") is None:
    sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "build/release/python"))

try:
    import cadre
    import numpy as np
except ImportError as error:
    sys.exit(
        f"error: {error} (Python is {sys.executable}). The demonstration wants numpy and the package cadre, which "
        "./quickstart --build makes in build/release/python for the Python that CMake finds"
    )
import parallel_state
from moe import ExpertParallelMoE, plain_moe

SHOWN_TOKENS = 8


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--force-cpu", action="store_true", help="compute on the CPU without looking for a GPU")
    parser.add_argument("--expert-parallel-size", type=int, help="ranks that share one set of experts; all by default")
    parser.add_argument("--all2all-backend", default="allgather_reducescatter", help="see docs/exchange.md")
    parser.add_argument("--expert-placement-strategy", default="linear", help="linear or round_robin")
    parser.add_argument("--num-experts", type=int, default=8)
    parser.add_argument("--top-k", type=int, default=2, help="experts of each token")
    parser.add_argument("--num-tokens", type=int, default=6, help="tokens of each rank")
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--intermediate-size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds that a rank waits for the others")
    arguments = parser.parse_args()
    for name in ("num_experts", "top_k", "num_tokens", "hidden_size", "intermediate_size"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, not {getattr(arguments, name)}")
    if arguments.top_k > arguments.num_experts:
        parser.error(f"--top-k {arguments.top_k} of --num-experts {arguments.num_experts}: a token's experts are distinct")
    return arguments


def print_head(a, world, group):
    device, reason = cadre.choose_device(a.force_cpu)
    print("=" * 60)
    print("Expert parallelism")
    print("=" * 60)
    print(f"World size: {world.size}")
    print(f"Expert parallel size: {group.size}")
    print(f"Device: {device}, {reason}")


def print_places(a, homes, size):
    print(f"\nWhere the experts live ({a.expert_placement_strategy} placement)")
    for rank in range(size):
        held = [e for e, home in enumerate(homes) if home == rank]
        print(f"  rank {rank}: {len(held)} of {a.num_experts}: experts {' '.join(map(str, held))}")


def print_router(a, homes, experts, weights):
    print(f"\n1. Router: each rank picks {a.top_k} of {a.num_experts} experts for each of its tokens")
    print("   --> the expert is here    ==> it is on another rank    (weight)")
    for rank, (chosen, shares) in enumerate(zip(experts, weights)):
        for t in range(min(len(chosen), SHOWN_TOKENS)):
            words = [
                f"{'-->' if homes[e] == rank else '==>'} expert {e:<2} on rank {homes[e]} ({w:.2f})"
                for e, w in zip(chosen[t], shares[t])
            ]
            print(f"  rank {rank}  token {t:<3}  {'  '.join(words)}")
        if len(chosen) > SHOWN_TOKENS:
            print(f"  rank {rank}  ... and {len(chosen) - SHOWN_TOKENS} more tokens")


def count_rows(homes, experts, size):
    """[from][to] rows: a token's row goes once to each rank that has an expert for it."""
    rows = np.zeros((size, size), int)
    for rank, chosen in enumerate(experts):
        for token in chosen:
            for home in {homes[e] for e in token}:
                rows[rank][home] += 1
    return rows


def print_dispatch(a, rows, drawn):
    size, row_bytes = len(rows), 4 * a.hidden_size
    print(f"\n2. Dispatch: a row ({a.hidden_size} numbers, {row_bytes:,} bytes) goes once to each rank with an expert for it")
    print(f"  {'from / to':<10}" + "".join(f"{f'rank {to}':>14}" for to in range(size)))
    for rank in range(size):
        cells = [f"{n} row{'' if n == 1 else 's'}" for n in rows[rank]]
        cells[rank] = f"({cells[rank]})"
        print(f"  {f'rank {rank}':<10}" + "".join(f"{cell:>14}" for cell in cells))
    print("  (in brackets: rows that stay where they are)")
    for rank in range(size):
        print(f"  rank {rank} read {drawn[rank][0]:,} bytes of rows and choices from other ranks")


def print_experts(homes, rows_per_expert):
    print("\n3. Expert computation: each expert takes its rows together, down(silu(gate x) * up x)")
    for rank, counts in enumerate(rows_per_expert):
        held = [e for e, home in enumerate(homes) if home == rank]
        for expert, count in zip(held, counts):
            print(f"  rank {rank}  expert {expert:<3} {count:>4} row{' ' if count == 1 else 's'} {'#' * min(count, 60)}")


def print_combine(drawn):
    print("\n4. Combine: weighted results come home and are added up")
    for rank, (_, combine) in enumerate(drawn):
        print(f"  rank {rank} read {combine:,} bytes of results from other ranks")


def print_memory(a, homes, nbytes, whole):
    print(f"\nMemory for experts: {whole:,} bytes in one process (float32)")
    for rank, own in enumerate(nbytes):
        held = homes.count(rank)
        print(f"  rank {rank}: {held} of {a.num_experts} experts, {own:,} bytes, {whole / own:.2f} times less")
    each = 3 * 4096 * 16384
    most = max(homes.count(rank) for rank in range(len(nbytes)))
    print(
        f"  By the same count a layer with hidden size 4096 and intermediate size 16384 has {a.num_experts * each:,}"
        f" parameters in experts, at most {most * each:,} on a rank."
    )


def check(a, tokens, outputs):
    """Against this process alone with all experts, and against plain numpy. Returns lines for people; raises if off."""
    every_token, every_output = np.concatenate(tokens), np.concatenate(outputs)
    alone = ExpertParallelMoE(
        a.num_experts, a.top_k, a.hidden_size, a.intermediate_size, len(every_token), seed=a.seed
    )(every_token)
    plain = plain_moe(every_token, a.num_experts, a.top_k, a.intermediate_size, a.seed)
    scale = np.abs(plain).max()
    from_alone, from_plain = np.abs(every_output - alone).max(), np.abs(every_output - plain).max()
    same = every_output.tobytes() == alone.tobytes()
    lines = [
        f"Check: {len(every_token)} tokens, outputs up to {scale:.3g}",
        f"  one process with all experts: largest difference {from_alone:.3g}" + (" (the same bits)" if same else ""),
        f"  plain numpy in float64:       largest difference {from_plain:.3g}",
    ]
    # float32 sums of some hundred terms; the order in which a token's experts are added may differ.
    if not (from_alone <= 1e-5 * scale and from_plain <= 1e-4 * scale):
        raise AssertionError("the ranks together computed something else:\n" + "\n".join(lines))
    return lines


def main():
    a = parse_arguments()
    with parallel_state.expert_parallel(a.expert_parallel_size, a.timeout) as group:
        world = parallel_state.get_world_group()
        layer = ExpertParallelMoE(
            a.num_experts,
            a.top_k,
            a.hidden_size,
            a.intermediate_size,
            max_tokens=a.num_tokens,
            group=group,
            backend=a.all2all_backend,
            placement=a.expert_placement_strategy,
            seed=a.seed,
        )
        tokens = np.random.default_rng([a.seed, 4, world.rank]).standard_normal((a.num_tokens, a.hidden_size))
        tokens = tokens.astype(np.float32)
        trace = layer.trace(tokens)
        drawn = layer.exchange.bytes
        if layer(tokens).tobytes() != trace.output.tobytes():
            raise AssertionError("the layer in one piece and in steps give different results")

        # Everything to the group's first rank, which draws.
        gather = parallel_state.all_gather
        experts, weights, counts = gather(trace.experts), gather(trace.weights), gather(trace.rows_per_expert)
        every_token, outputs = gather(tokens), gather(trace.output)
        nbytes = [int(n) for n in gather(np.int64(layer.experts.nbytes))]
        drawn = gather(np.array([drawn["dispatch"], drawn["combine"]]))
        lines = check(a, every_token, outputs) if group.rank == 0 else []

        if world.rank == 0:
            homes = layer.exchange.homes
            print_head(a, world, group)
            print(f"Exchange: {layer.exchange.description}")
            print_places(a, homes, group.size)
            print_router(a, homes, experts, weights)
            print_dispatch(a, count_rows(homes, experts, group.size), drawn)
            print_experts(homes, counts)
            print_combine(drawn)
            print_memory(a, homes, nbytes, sum(nbytes))
            print("\n" + "\n".join(lines))
            if group.size < world.size:
                print(f"  and so for {world.size // group.size - 1} other group(s) of ranks, each with its own tokens")
            print("OK", flush=True)
        parallel_state.barrier()


if __name__ == "__main__":
    try:
        main()
    except (cadre.Error, ValueError) as error:
        sys.exit(f"error: {error}")
