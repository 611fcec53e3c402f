from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from typing_extensions import Self, Unpack

from ._settings import Settings
from .engine_args import EngineArgs
from .inputs import TextPrompt, TokensPrompt
from .llm_engine import LLMEngine
from .lora import LoRARequest
from .outputs import RequestOutput
from .sampling_params import SamplingParams
from .tokenizer import Tokenizer

Prompt: TypeAlias = str | Sequence[int] | TextPrompt | TokensPrompt
Message: TypeAlias = Mapping[str, Any]
Params: TypeAlias = SamplingParams | Sequence[SamplingParams] | None
Progress: TypeAlias = bool | Callable[..., Any]

class LLM:
    def __init__(self, model: str | None = None, **settings: Unpack[Settings]) -> None: ...
    @classmethod
    def from_engine_args(cls, engine_args: EngineArgs) -> LLM: ...
    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: Params = None,
        use_tqdm: Progress = True,
        lora_request: LoRARequest | Sequence[LoRARequest | None] | None = None,
        priority: Sequence[int] | None = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
    ) -> list[RequestOutput]: ...
    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: Params = None,
        use_tqdm: Progress = True,
        lora_request: LoRARequest | Sequence[LoRARequest | None] | None = None,
        chat_template: str | None = None,
        chat_template_content_format: str = "auto",
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        mm_processor_kwargs: None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[RequestOutput]: ...
    def enqueue(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: Params = None,
        lora_request: LoRARequest | Sequence[LoRARequest | None] | None = None,
        priority: Sequence[int] | None = None,
        use_tqdm: Progress = True,
        tokenization_kwargs: Mapping[str, Any] | None = None,
    ) -> list[str]: ...
    def wait_for_completion(self, use_tqdm: Progress = True) -> list[RequestOutput]: ...
    def get_tokenizer(self) -> Tokenizer: ...
    def get_default_sampling_params(self) -> SamplingParams: ...
    def get_world_size(self, include_dp: bool = True) -> int: ...
    def get_metrics(self) -> list[Metric]: ...
    def reset_prefix_cache(self) -> bool: ...
    @property
    def llm_engine(self) -> LLMEngine: ...
    @property
    def model_config(self) -> Any: ...
    def shutdown(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: object) -> None: ...
    def __del__(self) -> None: ...
    def __reduce__(self) -> Any: ...

class Metric:
    name: str
    value: float
    labels: dict[str, str]
    def __init__(self, name: str, value: float, labels: dict[str, str]) -> None: ...

class Counter(Metric): ...
class Gauge(Metric): ...
