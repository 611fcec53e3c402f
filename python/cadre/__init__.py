"""Cadre's engine from Python: groups of ranks, expert-parallel exchanges, and the kernels for experts.

    import cadre

    with cadre.init_process_group() as group:          # under torchrun, or cadre demo --python
        exchange = cadre.Exchange(group, num_experts=8, top_k=2, hidden_size=128, max_tokens=64)
        ...

See examples/expert_parallel for a whole layer.
"""

from .device import Device, choose_device
from .distributed import ProcessGroup, default_device, init_process_group
from .errors import (
    CancelledError,
    DataLossError,
    DeadlineExceededError,
    Error,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from .experts import Exchange, ExpertBank, Linear, Received, top_k
from .launch import Launch, read_launch

__all__ = [
    "CancelledError",
    "DataLossError",
    "DeadlineExceededError",
    "Device",
    "Error",
    "Exchange",
    "ExpertBank",
    "InternalError",
    "InvalidArgumentError",
    "Launch",
    "Linear",
    "NotFoundError",
    "ProcessGroup",
    "Received",
    "ResourceExhaustedError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnsupportedError",
    "choose_device",
    "default_device",
    "init_process_group",
    "read_launch",
    "top_k",
]
