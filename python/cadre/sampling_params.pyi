import enum
from collections.abc import Mapping, Sequence
from typing import Any

class RequestOutputKind(enum.Enum):
    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2

class SamplingParams:
    n: int
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    seed: int | None
    stop: list[str] | None
    stop_token_ids: list[int] | None
    ignore_eos: bool
    max_tokens: int | None
    min_tokens: int
    logprobs: int | None
    prompt_logprobs: int | None
    skip_special_tokens: bool
    include_stop_str_in_output: bool
    logit_bias: dict[int, float] | None
    allowed_token_ids: list[int] | None
    bad_words: list[str] | None
    detokenize: bool
    output_kind: RequestOutputKind
    stream_interval: int | None
    spaces_between_special_tokens: bool
    skip_clone: bool
    output_text_buffer_length: int
    watermarking: Any
    prompt_logprob_token_ids: Any
    prompt_logprob_start: Any
    logprob_token_ids: Any
    flat_logprobs: bool
    structured_outputs: Any
    extra_args: Any
    skip_reading_prefix_cache: Any
    thinking_token_budget: Any
    repetition_detection: Any
    routed_experts_prompt_start: int
    trace_decode_token_ids: Any
    def __init__(
        self,
        *,
        n: int = 1,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        repetition_penalty: float = 1.0,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        min_p: float = 0.0,
        seed: int | None = None,
        stop: str | Sequence[str] | None = None,
        stop_token_ids: Sequence[int] | None = None,
        ignore_eos: bool = False,
        max_tokens: int | None = 16,
        min_tokens: int = 0,
        logprobs: int | None = None,
        prompt_logprobs: int | None = None,
        skip_special_tokens: bool = True,
        include_stop_str_in_output: bool = False,
        logit_bias: Mapping[int, float] | None = None,
        allowed_token_ids: Sequence[int] | None = None,
        bad_words: Sequence[str] | None = None,
        detokenize: bool = True,
        output_kind: RequestOutputKind = ...,
        stream_interval: int | None = None,
        spaces_between_special_tokens: bool = True,
        skip_clone: bool = False,
    ) -> None: ...
    def check(self) -> None: ...
    def engine_fields(self) -> dict[str, Any]: ...
    @classmethod
    def from_optional(cls, **fields: Any) -> SamplingParams: ...
    def clone(self) -> SamplingParams: ...
    @property
    def all_stop_token_ids(self) -> set[int]: ...
    def __copy__(self) -> SamplingParams: ...
    def __deepcopy__(self, memo: Any) -> SamplingParams: ...
    def __eq__(self, other: object) -> bool: ...
    __hash__: None  # type: ignore[assignment]
