"""Which processes share experts: the state of the expert-parallel group, and its communication.

The launch's processes are cut into blocks of `expert_parallel_size` neighbours. The members of a block hold one whole set
of experts between them and exchange tokens; blocks know nothing of each other. Under torchrun, or `cadre demo --python`:

    initialize_expert_parallel(2)
    group = get_expert_parallel_group()
    ...
    destroy_expert_parallel()
"""

import contextlib
import dataclasses

import cadre


@dataclasses.dataclass
class _State:
    world: cadre.ProcessGroup  # all processes of the launch
    group: cadre.ProcessGroup  # this process's block


_state = None


def initialize_expert_parallel(expert_parallel_size=None, timeout=60.0):
    """Joins the launch and forms the blocks; all processes call it. By default all processes are one block."""
    global _state
    if _state is not None:
        raise RuntimeError("expert parallelism is initialized already")
    launch = cadre.read_launch()
    size = launch.size if expert_parallel_size is None else expert_parallel_size
    if size < 1:
        raise ValueError(f"expert_parallel_size ({size}) must be at least 1")
    if size > launch.size:
        raise ValueError(f"expert_parallel_size ({size}) > world_size ({launch.size})")
    if launch.size % size:
        raise ValueError(f"world_size ({launch.size}) must be divisible by expert_parallel_size ({size})")
    world = cadre.init_process_group(launch, timeout=timeout)
    first = launch.rank // size * size
    _state = _State(world, world.subgroup(range(first, first + size)))


def is_initialized():
    return _state is not None


def _get():
    if _state is None:
        raise RuntimeError("expert parallelism is not initialized: call initialize_expert_parallel() first")
    return _state


def get_world_group():
    return _get().world


def get_expert_parallel_group():
    return _get().group


def get_expert_parallel_rank():
    return _get().group.rank


def get_expert_parallel_size():
    return _get().group.size


def barrier():
    """Returns when the whole launch has come."""
    _get().world.barrier()


def all_gather(array):
    """The arrays of this block's members, by rank; their shapes may differ."""
    return _get().group.all_gather(array)


def all_reduce(array):
    """The sum over this block's members."""
    return _get().group.all_reduce(array)


def reduce_scatter(array):
    """The sum over this block's members, of which each gets its share of the rows."""
    return _get().group.reduce_scatter(array)


def destroy_expert_parallel():
    """Leaves the launch together with all other processes."""
    global _state
    if _state is not None:
        state, _state = _state, None
        state.world.close()


@contextlib.contextmanager
def expert_parallel(expert_parallel_size=None, timeout=60.0):
    """Initialized inside, destroyed at the end. If something fails inside, the others are told why at once."""
    global _state
    initialize_expert_parallel(expert_parallel_size, timeout)
    with _state.world:
        try:
            yield _state.group
        finally:
            _state = None
