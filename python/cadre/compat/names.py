"""Small things that scripts import from vLLM beside the engine."""

import argparse
import enum
import uuid

from ..errors import UnsupportedError

VLLM_VERSION = "0.32.0"  # whose interface this is


class UsageContext(enum.Enum):
    """Where an engine is used, for statistics that Cadre does not send."""

    UNKNOWN_CONTEXT = "UNKNOWN_CONTEXT"
    LLM_CLASS = "LLM_CLASS"
    API_SERVER = "API_SERVER"
    ENGINE_CONTEXT = "ENGINE_CONTEXT"


def random_uuid():
    return uuid.uuid4().hex


class FlexibleArgumentParser(argparse.ArgumentParser):
    """An argparse parser in whose flags ``_`` and ``-`` are the same."""

    def parse_known_args(self, args=None, namespace=None):
        import sys

        words = list(sys.argv[1:] if args is None else args)
        for index, word in enumerate(words):
            if word.startswith("--"):
                flag, equals, value = word.partition("=")
                words[index] = "--" + flag[2:].replace("_", "-") + equals + value
        return super().parse_known_args(words, namespace)

    def add_argument(self, *names, **more):
        plain = [name.replace("_", "-") if name.startswith("--") else name for name in names]
        if plain != list(names) and "dest" not in more:
            more["dest"] = next(name for name in names if name.startswith("--"))[2:].replace("-", "_")
        return super().add_argument(*plain, **more)


class _Config(dict):
    """Members of a JSON flag as keywords; also attributes. The engine checks them when it starts."""

    def __init__(self, *levels, **members):
        super().__init__(**members)
        if levels:
            self["mode"] = levels[0]

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class EPLBConfig(_Config):
    """For LLM(eplb_config=...)."""


class KVTransferConfig(_Config):
    """For LLM(kv_transfer_config=...)."""


class CompilationConfig(_Config):
    """For LLM(compilation_config=...), which has no effect."""


class ParallelConfig(_Config):
    """Its members are keywords of LLM(...)."""


class LoRARequest:
    """Adapters are not built."""

    def __init__(self, *args, **more):
        del args, more
        raise UnsupportedError("LoRARequest: adapters are not built; merge the adapter into the checkpoint", "lora_request")
