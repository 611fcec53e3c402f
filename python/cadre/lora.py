"""LoRA adapters for LLM(..., enable_lora=True)."""

import os
from dataclasses import dataclass
from typing import Any

from .errors import UnsupportedError


@dataclass(eq=False)
class LoRARequest:
    """An adapter: a name, a number of the caller's, and the folder that PEFT wrote.

    It is loaded when a request first brings it, and stays; ``lora_int_id`` tells adapters apart. With ``load_inplace`` each call
    that brings it reads the folder again, in the place of the adapter with that number.
    """

    lora_name: str
    lora_int_id: int
    lora_path: "str | os.PathLike[str]" = ""
    base_model_name: "str | None" = None
    tensorizer_config_dict: "dict[str, Any] | None" = None
    load_inplace: bool = False
    is_3d_lora_weight: bool = False

    def __post_init__(self):
        if self.lora_int_id < 1:
            raise ValueError(f"id must be > 0, got {self.lora_int_id}")
        self.lora_path = os.fspath(self.lora_path)
        if not self.lora_name or not self.lora_path:
            raise ValueError("lora_name and lora_path cannot be empty")
        if self.tensorizer_config_dict is not None:
            raise UnsupportedError("tensorizer_config_dict: adapters are read from safetensors", "tensorizer_config_dict")
        if self.is_3d_lora_weight:
            raise UnsupportedError("is_3d_lora_weight: LoRA on experts is not built", "is_3d_lora_weight")

    @property
    def adapter_id(self):
        return self.lora_int_id

    @property
    def name(self):
        return self.lora_name

    @property
    def path(self):
        return self.lora_path

    def __eq__(self, other):
        return isinstance(other, LoRARequest) and self.lora_name == other.lora_name

    def __hash__(self):
        return hash(self.lora_name)
