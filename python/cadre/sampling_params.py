"""How tokens are drawn and where an answer ends, with the names, meanings and defaults of vLLM 0.32."""

import copy
import enum

from . import _engine
from ._names import nearest
from .errors import UnsupportedError


class RequestOutputKind(enum.Enum):
    """What each output of a stream holds: all so far, what is new, or only the end."""

    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


# Fields that the engine looks at, with their defaults.
_ENGINE = {
    "n": 1,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "seed": None,
    "stop": None,
    "stop_token_ids": None,
    "ignore_eos": False,
    "max_tokens": 16,
    "min_tokens": 0,
    "logprobs": None,
    "prompt_logprobs": None,
    "skip_special_tokens": True,
    "include_stop_str_in_output": False,
    "logit_bias": None,
    "allowed_token_ids": None,
    "bad_words": None,
}
# Fields that this package looks at, or that change nothing here.
_OWN = {
    "detokenize": True,
    "output_kind": RequestOutputKind.CUMULATIVE,
    "stream_interval": None,
    "spaces_between_special_tokens": True,  # fast tokenizers put no spaces there
    "skip_clone": False,
    "output_text_buffer_length": 0,
}
# Fields that are refused unless they have their default, with the reason.
_NOT_BUILT = {
    "watermarking": (None, "watermarking is not built"),
    "prompt_logprob_token_ids": (None, "logprobs of chosen tokens are not built"),
    "prompt_logprob_start": (None, "prompt_logprobs are of the whole prompt"),
    "logprob_token_ids": (None, "logprobs of chosen tokens are not built"),
    "flat_logprobs": (False, "logprobs come as a list of dicts"),
    "structured_outputs": (None, "it needs a grammar for the answer, which is not built"),
    "extra_args": (None, "there are no plug-ins that could read it"),
    "skip_reading_prefix_cache": (None, "set cache_salt on the prompt to keep a request out of the prefix cache"),
    "thinking_token_budget": (None, "it needs a parser for reasoning, which is not built"),
    "repetition_detection": (None, "stopping at repetitions is not built"),
    "routed_experts_prompt_start": (0, "returning routed experts is not built"),
    "trace_decode_token_ids": (None, "replaying traces is not built"),
}
_GONE = {
    "best_of": "it is gone from vLLM as well; use n",
    "use_beam_search": "beam search is not built",
    "guided_decoding": "it needs a grammar for the answer, which is not built",
    "logits_processors": "no Python runs between the steps of the engine",
    "truncate_prompt_tokens": "give it to generate() as tokenization_kwargs={'truncate_prompt_tokens': N}",
}
_DEFAULTS = {**_ENGINE, **_OWN, **{name: default for name, (default, _) in _NOT_BUILT.items()}}
_LISTS = ("stop", "stop_token_ids", "bad_words", "allowed_token_ids")


class SamplingParams:
    """Parameters of a request; every field is a keyword and an attribute.

    Values are checked here by the engine's own rules (InvalidArgumentError, a ValueError) and once more against the model
    when a request starts. An unknown field is a TypeError that names the nearest one.
    """

    __slots__ = tuple(_DEFAULTS)

    def __init__(self, **fields):
        for name in fields:
            if name in _GONE:
                raise UnsupportedError(f"SamplingParams({name}=...): {_GONE[name]}", name)
            if name not in _DEFAULTS:
                raise TypeError(f"SamplingParams has no field '{name}'{nearest(name, _DEFAULTS)}")
        for name, default in _DEFAULTS.items():
            object.__setattr__(self, name, fields.get(name, default))
        self._normalize()
        self.check()

    def _normalize(self):
        if isinstance(self.stop, str):
            self.stop = [self.stop]
        for name in _LISTS:
            value = getattr(self, name)
            if value is not None and not isinstance(value, (str, bytes)) and not isinstance(value, list):
                try:
                    setattr(self, name, list(value))
                except TypeError:
                    pass  # the check below says what it takes
        for name in ("logprobs", "prompt_logprobs"):
            if isinstance(getattr(self, name), bool):
                setattr(self, name, 1 if getattr(self, name) else None)
        if self.seed == -1:
            self.seed = None
        if isinstance(self.logit_bias, dict):
            self.logit_bias = {int(token): float(bias) for token, bias in self.logit_bias.items()}
        for name in (
            "presence_penalty",
            "frequency_penalty",
            "repetition_penalty",
            "temperature",
            "top_p",
            "top_k",
            "min_p",
            "n",
        ):
            if getattr(self, name) is None:
                setattr(self, name, _DEFAULTS[name])

    def check(self):
        """Raises what is wrong with the fields as they are now."""
        for name, (default, reason) in _NOT_BUILT.items():
            value = getattr(self, name)
            if value != default and value not in (None, [], {}, False):
                raise UnsupportedError(f"{name} is not supported: {reason}", name)
        if not isinstance(self.output_kind, RequestOutputKind):
            raise TypeError(f"output_kind is {self.output_kind!r}; it takes a RequestOutputKind")
        if self.stop and not self.detokenize:
            raise ValueError("stop strings are only supported when detokenize is True.")
        _engine.check_sampling(self.engine_fields())

    def engine_fields(self):
        """What the engine is told, as a dict."""
        fields = {name: getattr(self, name) for name in _ENGINE}
        if fields["logit_bias"] is not None:
            fields["logit_bias"] = [(int(token), bias) for token, bias in fields["logit_bias"].items()]
        return fields

    @classmethod
    def from_optional(cls, **fields):
        """As the constructor, where None stands for a field's default."""
        return cls(**{name: value for name, value in fields.items() if value is not None or name == "max_tokens"})

    def clone(self):
        """A copy that shares no list with this one."""
        return copy.deepcopy(self)

    @property
    def all_stop_token_ids(self):
        return set(self.stop_token_ids or ())

    def __copy__(self):
        return type(self)(**{name: getattr(self, name) for name in _DEFAULTS})

    def __deepcopy__(self, memo):
        return type(self)(**{name: copy.deepcopy(getattr(self, name), memo) for name in _DEFAULTS})

    def __reduce__(self):
        return _rebuild, ({name: getattr(self, name) for name in _DEFAULTS},)

    def __eq__(self, other):
        if not isinstance(other, SamplingParams):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in _DEFAULTS)

    __hash__ = None

    def __repr__(self):
        return "SamplingParams(" + ", ".join(f"{name}={getattr(self, name)!r}" for name in _ENGINE) + ")"


def _rebuild(fields):
    return SamplingParams(**fields)
