"""The variables that a launcher (torchrun, ``cadre demo --python``) leaves for each process."""

import dataclasses
import os

from .errors import InvalidArgumentError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_HOW = (
    "start the script with torchrun --nproc_per_node=2 or with cadre demo --python, or set RANK, WORLD_SIZE, "
    "MASTER_ADDR and MASTER_PORT for each process yourself"
)


@dataclasses.dataclass(frozen=True)
class Launch:
    """One process among all: ``rank`` of ``size``, ``local_rank`` of the ``local_size`` on its host."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    address: str
    port: int


def _text(env, name):
    value = env.get(name, "").strip()
    if not value:
        raise InvalidArgumentError(f"{name} is not set: {_HOW}", name)
    return value


def _number(env, name, least, most):
    value = _text(env, name)
    try:
        number = int(value)
    except ValueError:
        number = None
    if number is None or not least <= number <= most:
        raise InvalidArgumentError(f"{name} is '{value[:40]}'; it is a number from {least} to {most}", name)
    return number


def read_launch(env=None):
    """Reads RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, LOCAL_RANK and LOCAL_WORLD_SIZE.

    Without LOCAL_WORLD_SIZE all processes are on this host if MASTER_ADDR is a loopback address; otherwise each counts
    as a host of its own, which always works, but rows then travel over TCP even between neighbours.

    Raises InvalidArgumentError for what is missing or makes no sense.
    """
    env = os.environ if env is None else env
    size = _number(env, "WORLD_SIZE", 1, 65536)
    rank = _number(env, "RANK", 0, size - 1)
    address = _text(env, "MASTER_ADDR")
    port = _number(env, "MASTER_PORT", 1, 65535)
    if env.get("LOCAL_WORLD_SIZE", "").strip():
        local_size = _number(env, "LOCAL_WORLD_SIZE", 1, size)
        local_rank = _number(env, "LOCAL_RANK", 0, local_size - 1)
    elif address in _LOOPBACK:
        local_size, local_rank = size, rank
    else:
        local_size, local_rank = 1, 0
    return Launch(rank, size, local_rank, local_size, address, port)
