"""What a request answers, with vLLM's field names."""

import dataclasses
from typing import Any, Optional, Union


@dataclasses.dataclass
class Logprob:
    """Of one token at one place: its log probability, its rank (1: likeliest) and its text."""

    logprob: float
    rank: Optional[int] = None
    decoded_token: Optional[str] = None


@dataclasses.dataclass
class RequestStateStats:
    """When what happened, in seconds of time.monotonic(); 0 where it did not."""

    num_generation_tokens: int = 0
    arrival_time: float = 0.0
    queued_ts: float = 0.0
    scheduled_ts: float = 0.0
    first_token_ts: float = 0.0
    last_token_ts: float = 0.0
    first_token_latency: float = 0.0
    num_preemptions: int = 0


@dataclasses.dataclass
class CompletionOutput:
    """One answer. ``logprobs`` is a list with a dict of token id to Logprob for each token, if asked for.

    ``finish_reason`` is "stop", "length" or "abort", None while it goes on; ``stop_reason`` the stop string or token
    that ended it, None for the model's own end.
    """

    index: int
    text: str
    token_ids: "list[int]"
    cumulative_logprob: Optional[float] = None
    logprobs: Optional["list[dict[int, Logprob]]"] = None
    routed_experts: Any = None
    finish_reason: Optional[str] = None
    stop_reason: Union[int, str, None] = None
    lora_request: Any = None

    def finished(self):
        return self.finish_reason is not None


@dataclasses.dataclass
class RequestOutput:
    """A prompt and its answers, ``n`` of them."""

    request_id: str
    prompt: Optional[str]
    prompt_token_ids: Optional["list[int]"]
    prompt_logprobs: Optional["list[Optional[dict[int, Logprob]]]"]
    outputs: "list[CompletionOutput]"
    finished: bool
    metrics: Optional[RequestStateStats] = None
    lora_request: Any = None
    encoder_prompt: Optional[str] = None
    encoder_prompt_token_ids: Optional[list] = None
    num_cached_tokens: Optional[int] = None
    kv_transfer_params: Optional[dict] = None
