"""Groups of processes and their collectives, over shared memory within a host and messages between hosts."""

import atexit
import sys
import weakref

import numpy as np

from . import _engine
from .device import Device
from .errors import InvalidArgumentError
from .launch import read_launch

_open_groups: "weakref.WeakSet[ProcessGroup]" = weakref.WeakSet()


@atexit.register
def _abandon_open_groups():
    # A process that ends without close() would leave the others waiting until their deadline.
    for group in list(_open_groups):
        error = getattr(sys, "last_value", None)
        reason = f"{type(error).__name__}: {error}" if error else "its process ended without close()"
        group._world.abandon(reason[:500])


class ProcessGroup:
    """Some of the launch's processes, in the order of their ranks. One thread uses it at a time.

    All members make the same calls in the same order. A call that waits for somebody lets other Python threads run
    and ends after ``timeout`` seconds at the latest, with a DeadlineExceededError or UnavailableError that names who is
    missing or has failed; the group is of no use afterwards.

    Attributes: ``rank`` (this process, by position in the group), ``size``, ``ranks`` (of the whole launch),
    ``launch`` (see cadre.launch.Launch), ``timeout``.
    """

    def __init__(self, world, launch, ranks, timeout):
        self._world = world
        self.launch = launch
        self.ranks = list(ranks)
        self.rank = self.ranks.index(launch.rank)
        self.size = len(self.ranks)
        self.timeout = timeout
        self._collective = _engine.Collective(world, self.ranks, timeout=timeout)

    def barrier(self):
        """Returns when all members have come."""
        self._collective.barrier()

    def all_reduce(self, array):
        """The sum of all members' float32 arrays of one shape, as a new array; the same bits on every member."""
        total = np.array(array, dtype=np.float32, order="C")
        shapes = self._gather_objects((total.shape,))
        if any(shape != shapes[0] for shape in shapes):
            raise InvalidArgumentError(f"all_reduce: the members' shapes differ: {[s[0] for s in shapes]}")
        self._collective.all_reduce(total.reshape(-1))
        return total

    def reduce_scatter(self, array):
        """The sum of all members' float32 arrays [size * n, ...], of which each member gets its n rows."""
        array = np.asarray(array)
        if array.ndim == 0 or array.shape[0] % self.size:
            raise InvalidArgumentError(
                f"reduce_scatter: the first dimension of shape {array.shape} does not divide by {self.size} members"
            )
        rows = array.shape[0] // self.size
        return self.all_reduce(array)[self.rank * rows : (self.rank + 1) * rows].copy()

    def all_gather(self, array):
        """Every member's array, as a list by rank. Shapes and types may differ."""
        own = np.ascontiguousarray(array)
        if own.dtype.hasobject:
            raise InvalidArgumentError(f"all_gather: an array of {own.dtype} holds Python objects, not numbers")
        own = own.reshape(np.shape(array))  # ascontiguousarray makes a vector of a single number
        kinds = self._gather_objects((own.dtype.str, own.shape))
        kinds = [(np.dtype(kind), shape) for kind, shape in kinds]
        sizes = [kind.itemsize * int(np.prod(shape, dtype=np.int64)) for kind, shape in kinds]
        everything = self._gather_bytes(own.tobytes(), sizes)
        parts, at = [], 0
        for (kind, shape), size in zip(kinds, sizes):
            parts.append(np.frombuffer(everything, np.uint8, size, at).view(kind).reshape(shape).copy())
            at += size
        return parts

    def broadcast(self, array, root=0):
        """The root's array, on every member."""
        own = np.asarray(array) if self.rank == root else None
        head = self._broadcast_object((own.dtype.str, own.shape) if own is not None else None, root)
        data = self._collective.broadcast(root, own.tobytes() if own is not None else b"")
        return np.frombuffer(data, np.dtype(head[0])).reshape(head[1]).copy()

    def subgroup(self, ranks):
        """The group of these members, by position in this group; called by those that are in it, and only by them."""
        ranks = sorted(ranks)
        if not ranks or ranks[0] < 0 or ranks[-1] >= self.size:
            raise InvalidArgumentError(f"subgroup: members go from 0 to {self.size - 1}, not {ranks}")
        if self.rank not in ranks:
            raise InvalidArgumentError(f"subgroup: rank {self.rank} is not a member of {ranks}, and only members call it")
        return ProcessGroup(self._world, self.launch, [self.ranks[r] for r in ranks], self.timeout)

    def close(self):
        """Leaves the launch together with all its processes; every group of it ends. Waits for the others."""
        if self in _open_groups:
            _open_groups.discard(self)
            self._world.leave()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            self.close()
        elif self in _open_groups:
            _open_groups.discard(self)
            self._world.abandon(f"{kind.__name__}: {error}"[:500])

    def _gather_bytes(self, own, sizes):
        out = bytearray(sum(sizes))
        self._collective.all_gather(own, sizes, out)
        return out

    # Small tuples of text and numbers, written as Python would show them.
    def _gather_objects(self, value):
        text = repr(value).encode()
        lengths = np.zeros(self.size, np.int64)
        own = np.array([len(text)], np.int64)
        self._collective.all_gather(own, [8] * self.size, lengths)
        everything = bytes(self._gather_bytes(text, lengths.tolist()))
        ends = np.cumsum(lengths).tolist()
        return [_read(everything[end - length : end]) for end, length in zip(ends, lengths.tolist())]

    def _broadcast_object(self, value, root):
        return _read(self._collective.broadcast(root, repr(value).encode()))


def _read(text):
    import ast

    return ast.literal_eval(text.decode())


def init_process_group(launch=None, timeout=60.0):
    """Joins the processes of a launch and returns the group of all of them; all must call it.

    ``launch``: a cadre.launch.Launch; by default what torchrun's variables say. ``timeout``: the most seconds to wait
    for others, here and in every call of the group.

    Raises InvalidArgumentError for variables that are missing or do not fit together, DeadlineExceededError naming the
    processes that did not come.
    """
    launch = read_launch() if launch is None else launch
    world = _engine.World(
        rank=launch.rank,
        size=launch.size,
        local_rank=launch.local_rank,
        local_size=launch.local_size,
        address=launch.address,
        port=launch.port,
        timeout=timeout,
    )
    group = ProcessGroup(world, launch, range(launch.size), timeout)
    _open_groups.add(group)
    return group


def default_device(group=None):
    """This process's fair share of the host's CPUs."""
    processes = 1 if group is None else group.launch.local_size
    return Device(threads=max(1, _engine.usable_cpus() // processes))
