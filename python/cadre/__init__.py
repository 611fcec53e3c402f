"""Cadre from Python: models that answer (LLM, AsyncLLM, with vLLM's names), and the parts that they are made of.

    import cadre

    with cadre.LLM("models/demo") as llm:
        print(llm.generate("What is 17 + 25?", cadre.SamplingParams(temperature=0))[0].outputs[0].text)

    with cadre.init_process_group() as group:          # under torchrun, or cadre demo --python
        exchange = cadre.Exchange(group, num_experts=8, top_k=2, hidden_size=128, max_tokens=64)
        ...

See docs/python.md, and examples/expert_parallel for a whole layer.
"""

import importlib
from typing import TYPE_CHECKING

from ._engine import version as __version__
from .async_llm import AsyncLLM, AsyncLLMEngine
from .device import Device, choose_device
from .engine_args import AsyncEngineArgs, EngineArgs
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
from .inputs import TextPrompt, TokensPrompt
from .launch import Launch, read_launch
from .llm import LLM
from .llm_engine import LLMEngine
from .lora import LoRARequest
from .outputs import CompletionOutput, Logprob, RequestOutput
from .sampling_params import RequestOutputKind, SamplingParams

if TYPE_CHECKING:
    from .distributed import ProcessGroup, default_device, init_process_group
    from .experts import Exchange, ExpertBank, Linear, Received, top_k

# What works on numpy's arrays; a model needs none.
_WITH_NUMPY = {
    "ProcessGroup": "distributed",
    "default_device": "distributed",
    "init_process_group": "distributed",
    "Exchange": "experts",
    "ExpertBank": "experts",
    "Linear": "experts",
    "Received": "experts",
    "top_k": "experts",
}


def __getattr__(name):
    if name not in _WITH_NUMPY:
        raise AttributeError(f"module 'cadre' has no attribute '{name}'")
    value = getattr(importlib.import_module("." + _WITH_NUMPY[name], __name__), name)
    globals()[name] = value
    return value


__all__ = [
    "AsyncEngineArgs",
    "AsyncLLM",
    "AsyncLLMEngine",
    "CancelledError",
    "CompletionOutput",
    "DataLossError",
    "DeadlineExceededError",
    "Device",
    "EngineArgs",
    "Error",
    "Exchange",
    "ExpertBank",
    "InternalError",
    "InvalidArgumentError",
    "LLM",
    "LLMEngine",
    "Launch",
    "Linear",
    "LoRARequest",
    "Logprob",
    "NotFoundError",
    "ProcessGroup",
    "Received",
    "RequestOutput",
    "RequestOutputKind",
    "ResourceExhaustedError",
    "SamplingParams",
    "TextPrompt",
    "TokensPrompt",
    "UnauthenticatedError",
    "UnavailableError",
    "UnsupportedError",
    "__version__",
    "choose_device",
    "default_device",
    "init_process_group",
    "read_launch",
    "top_k",
]
