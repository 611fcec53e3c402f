"""LLM: a model for programs that have their prompts at hand."""

import itertools
import time

from . import inputs, progress
from ._model import Batch, Model
from .engine_args import EngineArgs
from .errors import UnsupportedError
from .llm_engine import LLMEngine
from .tokenizer import Tokenizer

_POOLING = "pooling and embedding models are not built; Cadre generates text"
_WORKERS = "the workers are C++ processes; no Python runs in them"
_LATER = "it is a request to `cadre serve`, not a call of this package"
_REFUSED = {
    "encode": _POOLING,
    "embed": _POOLING,
    "classify": _POOLING,
    "score": _POOLING,
    "reward": _POOLING,
    "beam_search": "beam search is not built; n with temperature draws several answers",
    "apply_model": _WORKERS,
    "collective_rpc": _WORKERS,
    "sleep": "weights stay where they are; shutdown() gives their memory back",
    "wake_up": "weights stay where they are; shutdown() gives their memory back",
    "release_kv_cache_memory": "the KV cache keeps its memory; shutdown() gives it back",
    "start_profile": "there is no profiler; perf and CADRE's benchmarks measure",
    "stop_profile": "there is no profiler; perf and CADRE's benchmarks measure",
    "reset_mm_cache": "images, audio and video are not built",
    "init_weight_transfer_engine": _LATER,
    "shutdown_weight_transfer_engine": _LATER,
    "start_weight_update": _LATER,
    "start_draft_weight_update": _LATER,
    "finish_weight_update": _LATER,
    "update_weights": _LATER,
    "update_weight_version": _LATER,
    "get_weight_version": _LATER,
}


class LLM:
    """A model that answers lists of prompts.

    ``model`` is a folder or a hub name in the local cache; every flag of ``cadre serve`` that concerns the engine is a keyword
    by its name with ``_``. Ranks of ``data_parallel_size`` or ``tensor_parallel_size`` above 1 are child processes.

    Ctrl-C in a call ends its requests and raises KeyboardInterrupt; the LLM can be used again. A fork of the process cannot use
    it. shutdown(), the end of a ``with`` block and the end of the program end it; what still runs then is aborted.
    """

    def __init__(self, model=None, **settings):
        self._start(settings.pop("_args", None) or EngineArgs(model, **settings))

    @classmethod
    def from_engine_args(cls, engine_args):
        """An LLM of EngineArgs."""
        return cls(_args=engine_args)

    def _start(self, args):
        self._model = Model(args)
        self._engine = None
        self._queued = None

    # Answers.

    def generate(
        self,
        prompts,
        sampling_params=None,
        use_tqdm=True,
        lora_request=None,
        priority=None,
        tokenization_kwargs=None,
    ):
        """A RequestOutput for each prompt, in their order.

        ``prompts``: a string, token ids, a dict ({"prompt": ...} or {"prompt_token_ids": ...}), or a list of these.
        ``sampling_params``: one for all, a list with one for each, or None for the model's generation_config.json.
        ``use_tqdm``: a progress bar on stderr; or a class like tqdm. ``priority``: a list, with scheduling_policy="priority".
        ``lora_request``: a LoRARequest for all, or a list with one or None for each; with enable_lora.
        """
        prompts, _ = inputs.listed(prompts)
        requests = [{"prompt": prompt, "tokenization": tokenization_kwargs} for prompt in prompts]
        return self._run(requests, sampling_params, use_tqdm, priority, lora_request)

    def chat(
        self,
        messages,
        sampling_params=None,
        use_tqdm=True,
        lora_request=None,
        chat_template=None,
        chat_template_content_format="auto",
        add_generation_prompt=True,
        continue_final_message=False,
        tools=None,
        chat_template_kwargs=None,
        tokenization_kwargs=None,
        mm_processor_kwargs=None,
        documents=None,
    ):
        """A RequestOutput for each chat. ``messages``: one chat (a list of dicts), or a list of chats."""
        if mm_processor_kwargs:
            raise UnsupportedError("mm_processor_kwargs: images, audio and video are not built", "mm_processor_kwargs")
        if chat_template_content_format != "auto":
            raise UnsupportedError(
                "chat_template_content_format is given to LLM(...), for all chats", "chat_template_content_format"
            )
        chats = list(messages)
        if chats and isinstance(chats[0], dict):
            chats = [chats]
        rest = {
            "tools": tools,
            "documents": documents,
            "chat_template": chat_template,
            "chat_template_kwargs": chat_template_kwargs,
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": continue_final_message,
        }
        return self._run(
            [{"prompt": None, "chat": {"messages": list(chat), **rest}, "tokenization": tokenization_kwargs} for chat in chats],
            sampling_params,
            use_tqdm,
            lora_request=lora_request,
        )

    def _adapters(self, lora_request, count):
        adapters = _for_each(lora_request, count, "lora_request")
        self._model.take_adapters(adapters)
        return adapters

    def _run(self, requests, sampling_params, use_tqdm, priority=None, lora_request=None):
        params = _for_each(sampling_params, len(requests), "sampling_params")
        adapters = self._adapters(lora_request, len(requests))
        priorities = _for_each(0 if priority is None else priority, len(requests), "priority")
        batch, bar = Batch(self._model), None
        try:
            started = []
            for request, one, rank, lora in zip(requests, params, priorities, adapters):
                started.append(batch.start(request.pop("prompt"), one, priority=rank, lora=lora, **request))
            bar = progress.make(use_tqdm, len(requests))
            ended, counted = 0, [0, 0]
            begin = time.monotonic()
            while ended < len(started):
                for pending in batch.step(3600):
                    if pending.error is not None:
                        raise pending.error
                    if not pending.ended:
                        continue
                    ended += 1
                    if bar is not None:
                        counted[0] += len(pending.prompt_token_ids)
                        counted[1] += sum(len(sequence.token_ids) for sequence in pending.sequences)
                        spent = max(time.monotonic() - begin, 1e-9)
                        bar.postfix = progress.speed(counted[0] / spent, counted[1] / spent)
                        bar.update(1)
            return [pending.output() for pending in started]
        finally:
            batch.cancel()
            if bar is not None:
                bar.close()

    def enqueue(self, prompts, sampling_params=None, lora_request=None, priority=None, use_tqdm=True, tokenization_kwargs=None):
        """Starts requests and returns their ids; wait_for_completion() gives the answers."""
        del use_tqdm
        prompts, _ = inputs.listed(prompts)
        params = _for_each(sampling_params, len(prompts), "sampling_params")
        priorities = _for_each(0 if priority is None else priority, len(prompts), "priority")
        adapters = self._adapters(lora_request, len(prompts))
        if self._queued is None:
            self._queued = (Batch(self._model), [])
        batch, order = self._queued
        names = []
        for prompt, one, rank, lora in zip(prompts, params, priorities, adapters):
            order.append(batch.start(prompt, one, priority=rank, tokenization=tokenization_kwargs, lora=lora))
            names.append(order[-1].name)
        return names

    def wait_for_completion(self, use_tqdm=True):
        """The RequestOutputs of everything enqueued, in that order."""
        batch, order = self._queued or (Batch(self._model), [])
        self._queued = None
        bar = progress.make(use_tqdm, len(order))
        try:
            while batch.pending or batch.news:
                for pending in batch.step(3600):
                    if pending.error is not None:
                        raise pending.error
                    if bar is not None and pending.ended:
                        bar.update(1)
            return [pending.output() for pending in order]
        finally:
            batch.cancel()
            if bar is not None:
                bar.close()

    # The model.

    def get_tokenizer(self):
        """encode, decode, apply_chat_template and what scripts usually call besides."""
        return Tokenizer(self._model)

    def get_default_sampling_params(self):
        """SamplingParams with what the model's generation_config.json presets."""
        return self._model.default_sampling()

    def get_world_size(self, include_dp=True):
        """The number of ranks."""
        info = self._model.info
        return info["tensor_parallel_size"] * (info["data_parallel_size"] if include_dp else 1)

    def get_metrics(self):
        """Counters and gauges of each rank, under vLLM's names."""
        return [metric for rank in self._model.handle.stats() for metric in _metrics(rank)]

    def reset_prefix_cache(self):
        """Forgets cached prefixes that no running request holds."""
        self._model.handle.reset_prefix_cache()
        return True

    @property
    def llm_engine(self):
        """The LLMEngine over the same model: add_request() and step()."""
        if self._engine is None:
            self._engine = LLMEngine(self._model)
        return self._engine

    @property
    def model_config(self):
        return self.llm_engine.model_config

    # The end.

    def shutdown(self):
        """Ends the engine and its ranks; running requests are aborted. Again: no effect."""
        if getattr(self, "_model", None) is not None:
            self._model.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.shutdown()

    def __del__(self):
        try:
            self.shutdown()
        except Exception:  # pragma: no cover - the interpreter is ending
            pass

    def __reduce__(self):
        raise TypeError("an LLM cannot be sent to another process; make one there")

    def __repr__(self):
        return f"LLM(model={self._model.args.model!r})"


def _refuse(name, reason):
    def refused(self, *args, **more):
        del self, args, more
        raise UnsupportedError(f"LLM.{name} is not supported: {reason}", name)

    refused.__name__, refused.__doc__ = name, f"Not supported: {reason}."
    return refused


for _name, _reason in _REFUSED.items():
    setattr(LLM, _name, _refuse(_name, _reason))


class Metric:
    """A counter or gauge: ``name``, ``value`` and ``labels``."""

    def __init__(self, name, value, labels):
        self.name, self.value, self.labels = name, value, labels

    def __repr__(self):
        return f"{type(self).__name__}(name={self.name!r}, value={self.value!r}, labels={self.labels!r})"


class Counter(Metric):
    pass


class Gauge(Metric):
    pass


def _metrics(rank):
    labels = {"engine": str(rank["rank"])}
    for name, field in (
        ("num_requests_running", "num_running"),
        ("num_requests_waiting", "num_waiting"),
        ("kv_cache_usage_perc", "kv_cache_usage"),
    ):
        yield Gauge("vllm:" + name, rank[field], labels)
    for name, field in (
        ("prompt_tokens", "prompt_tokens"),
        ("generation_tokens", "generation_tokens"),
        ("num_preemptions", "num_preemptions"),
        ("prefix_cache_queries", "prefix_cache_queries"),
        ("prefix_cache_hits", "prefix_cache_hits"),
    ):
        yield Counter("vllm:" + name, rank[field], labels)


def _for_each(given, count, name):
    if isinstance(given, (list, tuple)):
        if len(given) != count:
            raise ValueError(f"The lengths of prompts ({count}) and {name} ({len(given)}) must be the same.")
        return list(given)
    return list(itertools.repeat(given, count))
