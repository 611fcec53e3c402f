"""Small things that scripts import from vLLM beside the engine."""

import argparse
import enum
import socket
import sys
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


def _refusing(name, reason):
    """A class that scripts may import, but not make."""

    def __init__(self, *args, **more):
        del self, args, more
        raise UnsupportedError(f"{name}: {reason}", name)

    return type(name, (), {"__init__": __init__, "__doc__": f"Refused: {reason}."})


StructuredOutputsParams = _refusing("StructuredOutputsParams", "it needs a grammar for the answer, which is not built")
GuidedDecodingParams = _refusing("GuidedDecodingParams", "it needs a grammar for the answer, which is not built")
BeamSearchParams = _refusing("BeamSearchParams", "beam search is not built")
PoolingParams = _refusing("PoolingParams", "pooling and embedding models are not built; Cadre generates text")


def get_open_port():
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def nothing(*args, **more):
    """What vLLM cleans up here cleans itself."""
    del args, more


class _Platform:
    """What vLLM asks about the device: a CPU."""

    device_type, device_name = "cpu", "cpu"

    def is_cpu(self):
        return True

    def __getattr__(self, name):
        if name.startswith("is_"):
            return lambda: False
        raise AttributeError(f"cadre.compat: current_platform has no '{name}'")


current_platform = _Platform()
