"""The extension: the engine's parts, writing into memory that the caller brings.

Buffers are C-contiguous and of the type that the name says. The classes of the package (cadre.ProcessGroup, Exchange,
ExpertBank, Linear) are what one wants to use.
"""

from collections.abc import Sequence
from typing import Any

from typing_extensions import Buffer

class World:
    """A launch's processes, joined. See cadre.init_process_group."""

    def __init__(
        self, *, rank: int, size: int, local_rank: int, local_size: int, address: str, port: int, timeout: float
    ) -> None: ...
    def leave(self) -> None:
        """Together with all others; nothing can be done with the world afterwards."""

    def abandon(self, reason: str) -> None:
        """Alone: the others' waits end with the reason."""

    def check(self) -> None:
        """Raises UnavailableError if a rank has failed, or this one has left."""

class Collective:
    """Collectives of the world ranks given, in rising order."""

    def __init__(self, world: World | None, ranks: Sequence[int], *, timeout: float) -> None: ...
    def barrier(self) -> None: ...
    def all_reduce(self, array: Buffer) -> None:
        """float32 [n], in place: the sum over the ranks, added in rank order."""

    def all_gather(self, own: Buffer, sizes: Sequence[int], out: Buffer) -> None:
        """Every rank's bytes one behind the other; all know all sizes."""

    def broadcast(self, root: int, data: bytes) -> bytes: ...

class Device:
    """Kernels of an instruction set ("auto": the fastest here) and threads that run them."""

    def __init__(self, isa: str = "auto", threads: int = 1) -> None: ...
    @property
    def isa(self) -> str: ...
    @property
    def threads(self) -> int: ...

class Linear:
    """A packed float32 matrix [outputs, inputs]."""

    def __init__(self, weight: Buffer) -> None: ...
    def run(self, device: Device, rows: Buffer, out: Buffer) -> None:
        """rows [n, inputs] -> out [n, outputs]."""

class ExpertBank:
    """Packed float32 experts."""

    def __init__(self, num_experts: int, hidden_size: int, intermediate_size: int) -> None: ...
    def set(self, index: int, gate: Buffer, up: Buffer, down: Buffer) -> None: ...
    def run(self, device: Device, rows: Buffer, offsets: Buffer, weights: Buffer, out: Buffer) -> None:
        """rows and out [n, hidden], offsets int32 [experts + 1], weights [n]."""

    @property
    def num_experts(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def intermediate_size(self) -> int: ...
    @property
    def nbytes(self) -> int: ...

class Exchange:
    """Dispatch and combine of one expert layer over the world ranks given, in rising order."""

    def __init__(
        self,
        world: World | None,
        ranks: Sequence[int],
        device: Device,
        *,
        backend: str,
        num_experts: int,
        top_k: int,
        hidden_size: int,
        max_tokens: int,
        placement: str,
        timeout: float,
    ) -> None: ...
    def dispatch(self, rows: Buffer, experts: Buffer, weights: Buffer) -> int:
        """rows [t, hidden], experts int32 [t, top_k], weights [t, top_k]; how many rows came."""

    def received(self, rows: Buffer, offsets: Buffer, weights: Buffer) -> None:
        """Copies what came: rows [n, hidden], offsets int32 [held + 1], weights [n]."""

    def run(self, bank: ExpertBank) -> None: ...
    def combine(self, expert_rows: Buffer | None, out: Buffer) -> None:
        """expert_rows [n, hidden], or None after run; out [t, hidden]."""

    @property
    def num_received(self) -> int: ...
    @property
    def held(self) -> list[int]: ...
    @property
    def homes(self) -> list[int]: ...
    @property
    def description(self) -> str: ...
    @property
    def bytes(self) -> dict[str, int]: ...

def top_k(device: Device, logits: Buffer, experts: Buffer, weights: Buffer) -> None:
    """logits [n, num_experts] -> experts int32 [n, k], weights [n, k]: softmax over the k largest."""

def cpu_name() -> str: ...
def usable_cpus() -> int: ...
def find_gpus() -> tuple[int, str]:
    """How many GPUs the drivers show, and where that was seen."""

version: str

class Mailbox:
    """Where results of requests wait for one reader. See cadre._model."""

    def __init__(self) -> None: ...
    def fileno(self) -> int:
        """Readable while updates wait."""

    def take(self, seconds: float) -> list[dict[str, Any]]:
        """As soon as there is something; after `seconds` at the latest. Signals come through."""

class Request:
    """A request on its way; for Llm.cancel."""

class Llm:
    """A model in this process: the deployment of `cadre serve` without its HTTP door. See cadre.LLM."""

    def __init__(self, words: Sequence[str], *, program: str, chat_template: str) -> None: ...
    def wait_started(self) -> None: ...
    @property
    def busy(self) -> bool: ...
    @property
    def is_fork(self) -> bool: ...
    def close(self) -> None: ...
    def submit(
        self, mailbox: Mailbox, number: int, prompt: str | Sequence[int], sampling: dict[str, Any], options: dict[str, Any]
    ) -> Request: ...
    def cancel(self, request: Request) -> None: ...
    def load_adapter(self, name: str, path: str, in_place: bool) -> None: ...
    def unload_adapter(self, name: str) -> None: ...
    def explain(self, message: str) -> str:
        """What has died, if something has, instead of `message`."""

    def check_health(self) -> None: ...
    def reset_prefix_cache(self) -> None: ...
    def stats(self) -> list[dict[str, Any]]: ...
    @property
    def info(self) -> dict[str, Any]: ...
    def encode(self, text: str, add_special_tokens: bool) -> list[int]: ...
    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool) -> str: ...
    def token(self, token_id: int) -> str: ...
    def render_chat(self, chat: str) -> str: ...
    @property
    def tokenizer_info(self) -> dict[str, Any]: ...

class MappedMemory:
    """Memory that can be read over UCX as long as this object is there, which also keeps the memory."""

    @property
    def address(self) -> int: ...
    @property
    def num_bytes(self) -> int: ...
    @property
    def key(self) -> bytes: ...

class MemoryOwner:
    """Serves reads of this process's memory over UCX, in a thread of its own. See cadre.rl."""

    def __init__(self, addresses: Sequence[str] = ()) -> None:
        """addresses: local ones at which readers come in; none: any. Raises UnsupportedError without UCX."""

    @property
    def port(self) -> str:
        """Where readers call."""

    def map(self, memory: Buffer) -> MappedMemory: ...
    def close(self) -> None:
        """Ends all reading."""

def check_sampling(sampling: dict[str, Any]) -> None:
    """Raises what is wrong with a request's sampling whatever the model."""

def engine_flags() -> list[dict[str, str]]:
    """The table of flags that concern an engine."""

def edit_distance(a: str, b: str) -> int: ...
