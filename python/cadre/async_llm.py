"""AsyncLLM: requests as asynchronous generators."""

import asyncio
import itertools
import weakref

from . import _engine
from ._model import Model, wants_delta
from .engine_args import EngineArgs
from .errors import InvalidArgumentError, ResourceExhaustedError, UnavailableError, UnsupportedError
from .llm_engine import LLMEngine
from .sampling_params import RequestOutputKind
from .tokenizer import Tokenizer


class _Inbox:
    """The requests of one event loop; its loop watches the mailbox."""

    def __init__(self, loop):
        self.mailbox = _engine.Mailbox()
        self.pending = {}  # number -> (Pending, asyncio.Event)
        self.loop = loop
        loop.add_reader(self.mailbox.fileno(), self.drain)

    def drain(self):
        for update in self.mailbox.take(0):
            found = self.pending.get(update["request"])
            if found is not None:
                found[0].take(update)
                found[1].set()

    def close(self):
        if not self.loop.is_closed():
            self.loop.remove_reader(self.mailbox.fileno())


class AsyncLLM:
    """A model for asyncio: ``async for output in engine.generate(prompt, params, request_id): ...``

    A generator that is closed or cancelled aborts its request. One AsyncLLM serves any number of event loops, each from its own
    thread. Making it blocks until the model is loaded.
    """

    def __init__(self, engine_args):
        if not isinstance(engine_args, EngineArgs):
            raise TypeError(f"engine_args is {type(engine_args).__name__}; it takes AsyncEngineArgs")
        self._model = Model(engine_args)
        self._inboxes = weakref.WeakKeyDictionary()
        self._names = itertools.count()
        self._closed = False

    @classmethod
    def from_engine_args(cls, engine_args, **unused):
        """An AsyncLLM of AsyncEngineArgs. vLLM's further keywords (usage_context, stat_loggers, ...) change nothing here."""
        del unused
        return cls(engine_args)

    def _inbox(self):
        loop = asyncio.get_running_loop()
        if loop not in self._inboxes:
            self._inboxes[loop] = _Inbox(loop)
        return self._inboxes[loop]

    def _find(self, request_id):
        for inbox in list(self._inboxes.values()):
            for pending, event in list(inbox.pending.values()):
                if pending.name == request_id:
                    yield inbox, pending, event

    async def _start(self, inbox, *args, **more):
        while True:
            try:
                return self._model.submit(inbox.mailbox, *args, **more)
            except ResourceExhaustedError:  # the queue is full
                await asyncio.sleep(0.02)

    async def generate(
        self,
        prompt,
        sampling_params=None,
        request_id=None,
        *,
        lora_request=None,
        priority=0,
        tokenization_kwargs=None,
        data_parallel_rank=None,
        **unused,
    ):
        """RequestOutputs of one prompt as it is answered, by sampling_params.output_kind; the last one is ``finished``."""
        if set(unused) - {"trace_headers", "prompt_text"}:
            raise TypeError(f"generate() has no argument '{sorted(unused)[0]}'")
        if request_id is not None and any(self._find(request_id)):
            raise InvalidArgumentError(f"request '{request_id}' is running; ids must differ", "request_id")
        params = self._model.default_sampling() if sampling_params is None else sampling_params
        inbox, event, streams = self._inbox(), asyncio.Event(), params.output_kind is not RequestOutputKind.FINAL_ONLY
        name = f"async-{next(self._names)}" if request_id is None else str(request_id)
        if lora_request is not None:
            await asyncio.to_thread(self._model.take_adapters, [lora_request])
        pending = await self._start(
            inbox,
            prompt,
            params,
            name,
            stream=streams,
            priority=priority,
            tokenization=tokenization_kwargs,
            rank=data_parallel_rank,
            lora=lora_request,
        )
        inbox.pending[pending.number] = (pending, event)
        try:
            while True:
                await event.wait()
                event.clear()
                if pending.error is not None:
                    raise pending.error
                ended = pending.ended
                if ended or streams:
                    output = pending.output(delta=wants_delta(params))
                    if output.outputs or ended:
                        yield output
                if ended:
                    return
        finally:
            inbox.pending.pop(pending.number, None)
            if not self._closed:
                self._model.cancel(pending)

    async def add_lora(self, lora_request):
        """Loads an adapter, if it is not loaded."""
        await asyncio.to_thread(self._model.take_adapters, [lora_request])
        return True

    async def remove_lora(self, lora_id):
        """Unloads one; False if there is none. Its requests end with an error."""
        return await asyncio.to_thread(self._model.drop_adapter, lora_id)

    async def list_loras(self):
        """The numbers of those that are loaded."""
        return self._model.adapter_numbers()

    async def abort(self, request_id, internal=False):
        """Ends a request, or a list of them, from the event loop that runs it; its generator gives what there is, with
        finish_reason "abort"."""
        del internal
        for one in [request_id] if isinstance(request_id, str) else list(request_id):
            for inbox, pending, event in self._find(one):
                pending.abort()
                inbox.loop.call_soon_threadsafe(event.set)

    async def get_tokenizer(self):
        return Tokenizer(self._model)

    async def get_model_config(self):
        return LLMEngine(self._model).model_config

    @property
    def model_config(self):
        return LLMEngine(self._model).model_config

    async def check_health(self):
        """Raises what is wrong with the engine, if something is."""
        self._model.handle.check_health()

    async def reset_prefix_cache(self):
        self._model.handle.reset_prefix_cache()
        return True

    async def encode(self, *args, **more):
        raise UnsupportedError("AsyncLLM.encode is not supported: pooling and embedding models are not built", "encode")

    @property
    def is_running(self):
        return not self._closed and not self.errored

    @property
    def errored(self):
        try:
            self._model.handle.check_health()
        except Exception:
            return True
        return False

    @property
    def dead_error(self):
        return UnavailableError("the engine has died")

    def shutdown(self, timeout=None):
        """Ends the engine and its ranks; running requests end with "abort"."""
        del timeout
        if self.__dict__.get("_closed", True):
            return
        self._closed = True
        self._model.close()
        for inbox in list(self._inboxes.values()):
            for pending, event in list(inbox.pending.values()):
                for sequence in pending.sequences:
                    sequence.finish_reason = sequence.finish_reason or "abort"
                pending.ended = True
                if not inbox.loop.is_closed():
                    inbox.loop.call_soon_threadsafe(event.set)
            if not inbox.loop.is_closed():
                inbox.loop.call_soon_threadsafe(inbox.close)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.shutdown()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *exception):
        self.shutdown()

    def __del__(self):
        try:
            self.shutdown()
        except Exception:  # pragma: no cover - the interpreter is ending
            pass


AsyncLLMEngine = AsyncLLM
