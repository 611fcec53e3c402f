"""vLLM's names for this package, so that scripts written for vLLM run unchanged.

``python -m cadre.compat script.py`` runs a script in which ``from vllm import LLM, SamplingParams`` and the other imports of
scripts (see MODULES) mean Cadre; ``import cadre.compat`` does the same for a program that goes on. Where vLLM itself is
installed, one line on stderr says that it is not used.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import logging
import os
import sys
import types

import cadre

from .. import async_llm, engine_args, errors, inputs, llm, llm_engine, lora, outputs, sampling_params
from . import names

_SHIM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "shim")  # what spawned processes import as vllm

_LLM = {"LLM": llm.LLM}
_SAMPLING = {name: getattr(sampling_params, name) for name in ("SamplingParams", "RequestOutputKind")}
_OUTPUTS = {name: getattr(outputs, name) for name in ("RequestOutput", "CompletionOutput")}
_LOGPROB = {"Logprob": outputs.Logprob}
_ARGS = {name: getattr(engine_args, name) for name in ("EngineArgs", "AsyncEngineArgs")}
_INPUTS = {name: getattr(inputs, name) for name in ("TextPrompt", "TokensPrompt")}
_ENGINE = {"LLMEngine": llm_engine.LLMEngine}
_ASYNC = {"AsyncLLM": async_llm.AsyncLLM, "AsyncLLMEngine": async_llm.AsyncLLM}
_UTILS = {name: getattr(names, name) for name in ("FlexibleArgumentParser", "get_open_port", "random_uuid")}
_REFUSED = {name: getattr(names, name) for name in ("StructuredOutputsParams", "GuidedDecodingParams", "BeamSearchParams")}
_CLEANING = ("cleanup_dist_env_and_memory", "destroy_distributed_environment", "destroy_model_parallel")
_DISTRIBUTED = {name: names.nothing for name in _CLEANING}

# Every module that scripts can import, and what is in it.
MODULES = {
    "vllm": {
        **_LLM,
        **_SAMPLING,
        **_OUTPUTS,
        **_ARGS,
        **_INPUTS,
        **_ENGINE,
        **_ASYNC,
        "PoolingParams": names.PoolingParams,
        "__version__": names.VLLM_VERSION,
        "__cadre_version__": cadre.__version__,
    },
    "vllm.config": {
        name: getattr(names, name) for name in ("EPLBConfig", "KVTransferConfig", "CompilationConfig", "ParallelConfig")
    },
    "vllm.config.compilation": {"CompilationConfig": names.CompilationConfig},
    "vllm.config.kv_transfer": {"KVTransferConfig": names.KVTransferConfig},
    "vllm.config.parallel": {"EPLBConfig": names.EPLBConfig, "ParallelConfig": names.ParallelConfig},
    "vllm.distributed": _DISTRIBUTED,
    "vllm.distributed.parallel_state": _DISTRIBUTED,
    "vllm.engine": {},
    "vllm.engine.arg_utils": _ARGS,
    "vllm.engine.async_llm_engine": _ASYNC,
    "vllm.engine.llm_engine": _ENGINE,
    "vllm.entrypoints": {},
    "vllm.entrypoints.llm": _LLM,
    "vllm.inputs": _INPUTS,
    "vllm.inputs.data": _INPUTS,
    "vllm.logger": {"init_logger": logging.getLogger},
    "vllm.logprobs": _LOGPROB,
    "vllm.lora": {},
    "vllm.lora.request": {"LoRARequest": lora.LoRARequest},
    "vllm.outputs": _OUTPUTS,
    "vllm.platforms": {"current_platform": names.current_platform},
    "vllm.pooling_params": {"PoolingParams": names.PoolingParams},
    "vllm.sampling_params": {**_SAMPLING, **_REFUSED},
    "vllm.sequence": _LOGPROB,
    "vllm.usage": {},
    "vllm.usage.usage_lib": {"UsageContext": names.UsageContext},
    "vllm.utils": _UTILS,
    "vllm.utils.argparse_utils": {"FlexibleArgumentParser": names.FlexibleArgumentParser},
    "vllm.utils.network_utils": {"get_open_port": names.get_open_port},
    "vllm.v1": {},
    "vllm.v1.engine": {},
    "vllm.v1.engine.async_llm": _ASYNC,
    "vllm.v1.engine.exceptions": {"EngineDeadError": errors.UnavailableError, "EngineGenerateError": errors.InternalError},
    "vllm.v1.engine.llm_engine": _ENGINE,
    "vllm.v1.metrics": {},
    "vllm.v1.metrics.reader": {"Counter": llm.Counter, "Gauge": llm.Gauge, "Metric": llm.Metric},
}


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds vllm and what is below it here, whatever is installed."""

    def find_spec(self, name, path=None, target=None):
        del path, target
        if name.partition(".")[0] != "vllm":
            return None
        if name not in MODULES:
            raise ModuleNotFoundError(f"cadre.compat has no module '{name}'; it has {', '.join(sorted(MODULES))}", name=name)
        return importlib.machinery.ModuleSpec(name, self, origin="cadre.compat", is_package=True)

    def create_module(self, spec):
        return _Module(spec.name)

    def exec_module(self, module):
        module.__dict__.update(MODULES[module.__name__])


class _Module(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        known = sorted(key for key in MODULES[self.__name__] if not key.startswith("__"))
        raise AttributeError(f"cadre.compat: {self.__name__} has no '{name}' here; it has {', '.join(known) or 'nothing'}")


def install():
    """Makes ``import vllm`` mean this package. Again: no effect.

    Raises RuntimeError if vLLM itself has been imported already: its classes are in use then.
    """
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    loaded = sys.modules.get("vllm")
    if loaded is not None and not isinstance(loaded, _Module):
        where = getattr(loaded, "__file__", None) or "this process"
        raise RuntimeError(f"vLLM itself ({where}) is imported already; import cadre.compat before it")
    spec = importlib.util.find_spec("vllm") if _SHIM not in sys.path else None
    if spec is not None and spec.origin:
        print(f"cadre.compat: vllm means Cadre {cadre.__version__} here; the vLLM in {spec.origin} is not used", file=sys.stderr)
    sys.meta_path.insert(0, _Finder())
    if _SHIM not in sys.path:
        sys.path.insert(1, _SHIM)  # spawned processes get this list


install()
