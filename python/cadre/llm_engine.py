"""LLMEngine: requests that come one by one, and steps that the caller makes."""

import types

from ._model import Batch, Model, wants_delta
from .engine_args import EngineArgs
from .errors import InvalidArgumentError
from .sampling_params import RequestOutputKind
from .tokenizer import Tokenizer


class LLMEngine:
    """add_request() starts a request, step() waits for news of any. The engine itself runs on its own threads."""

    def __init__(self, model):
        self._model = model
        self._batch = Batch(model)

    @classmethod
    def from_engine_args(cls, engine_args):
        """Opens a model."""
        if not isinstance(engine_args, EngineArgs):
            raise TypeError(f"engine_args is {type(engine_args).__name__}; it takes EngineArgs")
        return cls(Model(engine_args))

    def add_request(self, request_id, prompt, params, arrival_time=None, lora_request=None, tokenization_kwargs=None, priority=0):
        """Starts a request under an id of the caller's, which no running request has."""
        del arrival_time
        if any(pending.name == request_id for pending in self._batch.pending.values()):
            raise InvalidArgumentError(f"request '{request_id}' is running; ids must differ", "request_id")
        stream = params is None or params.output_kind is not RequestOutputKind.FINAL_ONLY
        self._model.take_adapters([lora_request])
        self._batch.start(
            prompt, params, request_id, stream=stream, priority=priority, tokenization=tokenization_kwargs, lora=lora_request
        )
        return request_id

    def add_lora(self, lora_request):
        """Loads an adapter, if it is not loaded."""
        self._model.take_adapters([lora_request])
        return True

    def remove_lora(self, lora_id):
        """Unloads one; False if there is none. Its requests end with an error."""
        return self._model.drop_adapter(lora_id)

    def list_loras(self):
        """The numbers of those that are loaded."""
        return self._model.adapter_numbers()

    def abort_request(self, request_ids):
        """Ends requests; nothing more comes of them."""
        wanted = {request_ids} if isinstance(request_ids, str) else set(request_ids)
        for pending in list(self._batch.pending.values()):
            if pending.name in wanted:
                self._model.cancel(pending)
                del self._batch.pending[pending.number]

    def step(self):
        """Waits until a request has news; a RequestOutput of each that has."""
        if not self.has_unfinished_requests():
            return []
        outputs = []
        for pending in self._batch.step(3600):
            if pending.error is not None:
                raise pending.error
            if pending.ended or pending.params.output_kind is not RequestOutputKind.FINAL_ONLY:
                outputs.append(pending.output(delta=wants_delta(pending.params)))
        return outputs

    def has_unfinished_requests(self):
        return bool(self._batch.pending or self._batch.news)

    def get_num_unfinished_requests(self):
        return len(self._batch.pending)

    def get_tokenizer(self):
        return Tokenizer(self._model)

    @property
    def model_config(self):
        """model, max_model_len, dtype, seed, get_vocab_size()."""
        info = self._model.info
        names = ("model", "max_model_len", "dtype", "seed", "vocab_size", "architecture")
        config = types.SimpleNamespace(**{name: info[name] for name in names})
        config.get_vocab_size = lambda: info["vocab_size"]
        return config

    @property
    def vllm_config(self):
        """model_config and the parallel sizes, in vLLM's places."""
        info = self._model.info
        names = ("tensor_parallel_size", "data_parallel_size", "enable_expert_parallel")
        parallel = types.SimpleNamespace(**{name: info[name] for name in names})
        cache = types.SimpleNamespace(block_size=info["block_size"], num_gpu_blocks=info["num_kv_blocks"])
        return types.SimpleNamespace(model_config=self.model_config, parallel_config=parallel, cache_config=cache)

    def reset_prefix_cache(self):
        self._model.handle.reset_prefix_cache()
        return True

    def shutdown(self):
        self._model.close()
