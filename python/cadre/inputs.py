"""The forms in which prompts are written."""

from typing import TypedDict

from .errors import InvalidArgumentError, UnsupportedError


class TextPrompt(TypedDict, total=False):
    """A prompt as text: {"prompt": "..."}"""

    prompt: str
    cache_salt: str


class TokensPrompt(TypedDict, total=False):
    """A prompt as token ids: {"prompt_token_ids": [...]}; ``prompt`` is the text they came from, for the output."""

    prompt_token_ids: "list[int]"
    prompt: str
    cache_salt: str


_KEYS = {"prompt", "prompt_token_ids", "cache_salt"}
_NOT_TEXT = {
    "multi_modal_data": "images, audio and video are not built",
    "multi_modal_uuids": "images, audio and video are not built",
    "mm_processor_kwargs": "images, audio and video are not built",
    "prompt_embeds": "prompts as embeddings are not built; give text or token ids",
    "encoder_prompt": "encoder-decoder models are not built",
}


def is_token_ids(value):
    """A list (tuple, array) of integers, and not of prompts."""
    if isinstance(value, (str, bytes, dict)) or not hasattr(value, "__len__") or not hasattr(value, "__getitem__"):
        return False
    if getattr(value, "ndim", 1) != 1:  # an array of prompts
        return False
    return len(value) > 0 and not isinstance(value[0], (str, dict, list, tuple)) and hasattr(value[0], "__index__")


def listed(prompts):
    """(list of prompts, whether there was only one)"""
    if isinstance(prompts, (str, dict)) or is_token_ids(prompts):
        return [prompts], True
    if isinstance(prompts, bytes):
        raise TypeError("a prompt is bytes; it takes a string (decode it first) or a list of token ids")
    try:
        return list(prompts), False
    except TypeError:
        raise TypeError(f"prompts is {type(prompts).__name__}; it takes a prompt or a list of prompts") from None


def parse(prompt):
    """(text or list of ids, text to show or None, cache salt) of one prompt in any of its forms."""
    if isinstance(prompt, str):
        return prompt, prompt, ""
    if isinstance(prompt, dict):
        for key, value in prompt.items():
            if key in _NOT_TEXT and value:
                raise UnsupportedError(f"'{key}' in a prompt: {_NOT_TEXT[key]}", key)
            if key not in _KEYS and key not in _NOT_TEXT:
                raise InvalidArgumentError(f"a prompt has no key '{key}'; it has prompt or prompt_token_ids", key)
        salt, text = prompt.get("cache_salt") or "", prompt.get("prompt")
        if prompt.get("prompt_token_ids") is not None:
            return _ids(prompt["prompt_token_ids"]), text, salt
        if not isinstance(text, str):
            raise InvalidArgumentError("a prompt has neither 'prompt' (a string) nor 'prompt_token_ids'", "prompt")
        return text, text, salt
    return _ids(prompt), None, ""


def _ids(value):
    if hasattr(value, "tolist"):
        value = value.tolist()
    try:
        return [int(token.__index__()) for token in value]
    except (TypeError, AttributeError):
        raise TypeError("a prompt is a string, a list of token ids, or a dict with 'prompt' or 'prompt_token_ids'") from None
