"""An open model and the requests on their way: what LLM, LLMEngine and AsyncLLM share."""

import atexit
import itertools
import json
import os
import sys
import threading
import weakref

from . import _engine
from .engine_args import find_program
from .errors import InvalidArgumentError, ResourceExhaustedError, UnsupportedError
from .inputs import parse
from .lora import LoRARequest
from .outputs import CompletionOutput, Logprob, RequestOutput, RequestStateStats
from .sampling_params import RequestOutputKind, SamplingParams

_open_models: "weakref.WeakSet[Model]" = weakref.WeakSet()
_given_up: "list[_engine.Llm]" = []  # starts that Ctrl-C ended; the objects live on until their threads have


@atexit.register  # early, so that it runs late
def _close_all():
    for model in list(_open_models):
        model.close()
    if any(handle.busy for handle in _given_up):
        # Loading cannot be interrupted, and nobody wants its result. Ranks end with this process.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(130)


class Model:
    """A model in this process. Its requests may be started and read by any thread; each reader has a mailbox."""

    def __init__(self, args):
        self.args = args
        self.handle = _engine.Llm(
            args.words(), program=find_program(), chat_template=_template(args.settings.get("chat_template"))
        )
        try:
            self.handle.wait_started()
        except BaseException:
            self.handle.close()
            if self.handle.busy:
                _given_up.append(self.handle)
            raise
        self.info = self.handle.info
        self._numbers = itertools.count()
        self._names = itertools.count()
        self._texts = {}
        self._adapters = {}  # LoRARequest.lora_int_id -> (name that the engine knows, LoRARequest)
        self._adapters_lock = threading.Lock()
        _open_models.add(self)

    def close(self):
        self.handle.close()

    def new_name(self):
        return str(next(self._names))

    def default_sampling(self):
        """SamplingParams with what generation_config.json presets."""
        preset = {name: value for name, value in self.info["sampling_defaults"].items() if value is not None}
        return SamplingParams(**preset)

    def token_text(self, token):
        """The text of one token, kept."""
        text = self._texts.get(token)
        if text is None and not self.args.skip_tokenizer_init:
            text = self._texts[token] = self.handle.decode([token], False)
        return text

    def take_adapters(self, requests):
        """Loads the adapters of a call that are not loaded, or are to be loaded anew."""
        for request in {id(request): request for request in requests if request is not None}.values():
            if not isinstance(request, LoRARequest):
                raise TypeError(f"lora_request is {type(request).__name__}; it takes LoRARequest")
            with self._adapters_lock:
                self._take_adapter(request)

    def _take_adapter(self, request):
        name, known = self._adapters.get(request.lora_int_id, (None, None))
        if known is not None and not request.load_inplace:
            if known.lora_path == request.lora_path:
                return
            raise InvalidArgumentError(
                f"lora_int_id {request.lora_int_id} is the adapter in {known.lora_path}; give the one in {request.lora_path} a "
                "number of its own, or set load_inplace",
                "lora_request",
            )
        if name is None:  # two adapters may have one name, but not one number
            taken = {name for name, _ in self._adapters.values()}
            name = request.lora_name if request.lora_name not in taken else f"{request.lora_name}#{request.lora_int_id}"
        self.handle.load_adapter(name, request.lora_path, known is not None)
        self._adapters[request.lora_int_id] = (name, request)

    def drop_adapter(self, number):
        """Whether there was one."""
        with self._adapters_lock:
            if number not in self._adapters:
                return False
            self.handle.unload_adapter(self._adapters[number][0])
            del self._adapters[number]
            return True

    def adapter_numbers(self):
        return set(self._adapters)

    def submit(
        self, mailbox, prompt, params, name=None, *, chat=None, stream=False, priority=0, tokenization=None, rank=None, lora=None
    ):
        """Starts a request and returns its Pending. ``chat``: the members of a chat instead of a prompt."""
        params = self.default_sampling() if params is None else params
        if not isinstance(params, SamplingParams):
            raise TypeError(f"sampling_params is {type(params).__name__}; it takes SamplingParams")
        params.check()
        options = _tokenization(tokenization)
        if chat is not None:
            what, shown, options["is_chat"], options["cache_salt"] = json.dumps(chat), None, True, ""
            options.setdefault("add_special_tokens", False)  # a chat template writes them itself
        else:
            what, shown, options["cache_salt"] = parse(prompt)
        pending = Pending(next(self._numbers), self.new_name() if name is None else name, params, shown, self)
        options.update(id=pending.name, stream=stream, priority=int(priority))
        if params.stream_interval is not None:
            options["stream_interval"] = params.stream_interval
        if rank is not None:
            options["data_parallel_rank"] = rank
        if lora is not None:
            options["adapter"], pending.lora = self._adapters[lora.lora_int_id][0], lora
        pending.request = self.handle.submit(mailbox, pending.number, what, params.engine_fields(), options)
        return pending

    def cancel(self, pending):
        if pending.request is not None and not pending.ended:
            self.handle.cancel(pending.request)


class Pending:
    """A request on its way: what has come of it so far."""

    def __init__(self, number, name, params, prompt, model):
        self.number, self.name, self.params, self.model = number, name, params, model
        self.prompt, self.prompt_token_ids, self.prompt_logprobs, self.num_cached_tokens = prompt, None, None, None
        self.sequences = [_Sequence(index, params) for index in range(params.n)]
        self.request, self.ended, self.error, self.metrics, self.lora = None, False, None, None, None
        self.shown = [(0, 0)] * params.n  # of each sequence in the last delta: characters, tokens

    def take(self, update):
        """Adds one update of the mailbox."""
        if "prompt_token_ids" in update:
            self.prompt_token_ids = update["prompt_token_ids"]
            self.prompt = update["prompt"] if self.prompt is None and update["prompt"] else self.prompt
        for part in update["parts"]:
            sequence = self.sequences[part["sequence"]]
            if part["sequence"] == 0 and "num_cached_tokens" in part:
                self.num_cached_tokens = part["num_cached_tokens"]
                self.prompt_logprobs = self._prompt_logprobs(part["prompt_logprobs"])
            sequence.add(part, self._logprob_dict)
            end = part.get("end")
            if end is None:
                continue
            if end["error"] is not None and self.error is None:
                self.error = self._explained(end["error"])
            sequence.finish_reason, sequence.stop_reason = end["reason"], end["stop_reason"]
            if sequence.index == 0:
                queued, scheduled, first, last = end["times"]
                self.metrics = RequestStateStats(
                    len(sequence.token_ids),
                    queued,
                    queued,
                    scheduled,
                    first,
                    last,
                    max(0.0, first - queued),
                    end["num_preemptions"],
                )
        if update["error"] is not None and self.error is None:
            self.error = self._explained(update["error"])
        self.ended = self.ended or update["ended"]

    def abort(self):
        """Ends what has not ended."""
        self.model.cancel(self)
        for sequence in self.sequences:
            if sequence.finish_reason is None:
                sequence.finish_reason, sequence.news = "abort", True
        self.ended = True

    def output(self, delta=False):
        """A RequestOutput of all so far, or of what is new since the last delta."""
        outputs = []
        for sequence in self.sequences:
            chars, tokens = self.shown[sequence.index] if delta else (0, 0)
            if delta and sequence.num_chars == chars and len(sequence.token_ids) == tokens and not sequence.news:
                continue
            outputs.append(sequence.output(chars, tokens))
            if delta:
                self.shown[sequence.index] = (sequence.num_chars, len(sequence.token_ids))
                sequence.news = False
        return RequestOutput(
            request_id=self.name,
            prompt=self.prompt,
            prompt_token_ids=self.prompt_token_ids,
            prompt_logprobs=self.prompt_logprobs,
            outputs=outputs,
            finished=self.ended,
            metrics=self.metrics,
            num_cached_tokens=self.num_cached_tokens,
            lora_request=self.lora,
        )

    def _explained(self, error):
        if isinstance(error, ConnectionError):
            return type(error)(self.model.handle.explain(str(error)), error.param)
        return error

    def _logprob_dict(self, triples):
        # The sampled token first, then the likeliest; a token that is both stands there once.
        known = {}
        for token, logprob, rank in triples:
            if token not in known:
                known[token] = Logprob(logprob, rank, self.model.token_text(token))
        return known

    def _prompt_logprobs(self, entries):
        return None if entries is None else [self._logprob_dict(entry) if entry else None for entry in entries]


class _Sequence:
    def __init__(self, index, params):
        self.index, self.detokenize = index, params.detokenize
        self.texts, self.num_chars, self.token_ids = [], 0, []
        self.logprobs = None if params.logprobs is None else []
        self.cumulative = None if params.logprobs is None else 0.0
        self.finish_reason = self.stop_reason = None
        self.news = False

    def add(self, part, logprob_dict):
        if self.detokenize and part["text"]:
            self.texts.append(part["text"])
            self.num_chars += len(part["text"])
        self.token_ids += part["token_ids"]
        if self.logprobs is not None and part["logprobs"] is not None:
            for triples in part["logprobs"]:
                self.logprobs.append(logprob_dict(triples))
                self.cumulative += triples[0][1] if triples else 0.0
        self.news = self.news or "end" in part

    def output(self, chars, tokens):
        if len(self.texts) > 1:
            self.texts = ["".join(self.texts)]
        text = self.texts[0] if self.texts else ""
        return CompletionOutput(
            index=self.index,
            text=text[chars:],
            token_ids=self.token_ids[tokens:],
            cumulative_logprob=self.cumulative,
            logprobs=None if self.logprobs is None else self.logprobs[tokens:],
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
        )


class Batch:
    """Requests that one caller waits for."""

    def __init__(self, model):
        self.model, self.mailbox, self.pending = model, _engine.Mailbox(), {}
        self.news = {}  # number -> Pending, not yet told by step()

    def start(self, *args, **more):
        """Starts a request; where the engine's queue is full, waits until it is not."""
        while True:
            try:
                pending = self.model.submit(self.mailbox, *args, **more)
            except ResourceExhaustedError:
                self._take(0.05)
                continue
            self.pending[pending.number] = pending
            return pending

    def step(self, seconds):
        """Waits for news; the requests that have some, ended ones for the last time."""
        if not self.news:
            self._take(seconds)
        news, self.news = self.news, {}
        return list(news.values())

    def _take(self, seconds):
        for update in self.mailbox.take(seconds):
            pending = self.pending.get(update["request"])
            if pending is None:
                continue
            pending.take(update)
            self.news[pending.number] = pending
            if pending.ended:
                del self.pending[pending.number]

    def cancel(self):
        for pending in list(self.pending.values()):
            self.model.cancel(pending)
        self.pending.clear()


def wants_delta(params):
    return params.output_kind is RequestOutputKind.DELTA


def _template(template):
    if template is None:
        return ""
    return os.fspath(template) if hasattr(template, "__fspath__") else str(template)


def _tokenization(given):
    options, known = {}, {"add_special_tokens", "truncate_prompt_tokens", "truncation_side"}
    for name, value in (given or {}).items():
        if name not in known:
            raise UnsupportedError(f"tokenization_kwargs: '{name}' is not supported; it takes {', '.join(sorted(known))}", name)
        if name == "truncation_side":
            options["truncate_left"] = value != "right"
        elif value is not None:
            options[name] = value
    return options
