"""Gloo's all-to-all between ranks of this host, for `cadre bench a2a`: gloo_alltoall.py RANKS ITERATIONS BYTES...

Prints a line for each size: the bytes to each peer and the microseconds of one call (median of rank 0), which is
what a program waits for: what it got lies in a tensor of its own. Needs torch, which carries Gloo.
"""

import os
import statistics
import sys
import tempfile
import time


def rank_main(rank, ranks, iterations, sizes, store):
    import torch
    import torch.distributed as dist

    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) >= ranks:
        os.sched_setaffinity(0, {cpus[rank]})
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=ranks)
    for size in sizes:
        mine = torch.full((ranks * size,), rank, dtype=torch.uint8)
        theirs = torch.empty_like(mine)
        rounds = max(5, iterations if size <= 1 << 20 else iterations // 10)
        times = []
        for i in range(rounds + rounds // 10 + 3):
            dist.barrier()
            start = time.perf_counter()
            dist.all_to_all_single(theirs, mine)
            if i >= rounds // 10 + 3:
                times.append((time.perf_counter() - start) * 1e6)
        expected = torch.arange(ranks, dtype=torch.uint8).repeat_interleave(size)
        if not torch.equal(theirs, expected):
            sys.exit("rank %d got other bytes than were sent" % rank)
        if rank == 0:
            print("%d %.3f" % (size, statistics.median(times)), flush=True)
    dist.destroy_process_group()


def main():
    try:
        import torch.multiprocessing as multiprocessing
    except ImportError:
        sys.exit("no torch")
    ranks, iterations, sizes = int(sys.argv[1]), int(sys.argv[2]), [int(word) for word in sys.argv[3:]]
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(rank_main, (ranks, iterations, sizes, os.path.join(folder, "store")), nprocs=ranks)


if __name__ == "__main__":
    main()
