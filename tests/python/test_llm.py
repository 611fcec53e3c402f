"""LLM, LLMEngine and AsyncLLM on the demo model: against the reference's greedy tokens and against the server's answers."""

import asyncio
import io
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from ports import free_port
from ranks import BIN, PACKAGE, ROOT, environment, needs_package, needs_program

pytestmark = [needs_package, needs_program]
sys.path.insert(0, str(PACKAGE))
cadre = pytest.importorskip("cadre")

MODEL = str(ROOT / "models/demo")
SMALL = {"dtype": "float32", "max_model_len": 512, "num_gpu_blocks_override": 256, "log_level": "warning"}
# Questions with the greedy tokens of transformers 5 in f32 (the demo model's expected.json).
EXPECTED = [
    ("What is 17 + 25?", [22, 20, 2], "42"),
    ("What is the capital of France?", [50, 267, 292, 16, 2], "Paris."),
    ("Count from 3 to 9.", [21, 223, 22, 223, 23, 223, 24, 223, 25, 223, 26, 223, 27, 2], "3 4 5 6 7 8 9"),
    ("Add 40 and 64.", [19, 18, 22, 2], "104"),
]
CHATS = [[{"role": "user", "content": question}] for question, _, _ in EXPECTED]
GREEDY = {"temperature": 0, "max_tokens": 32}
PROSE = "Four score and seven years ago our fathers brought forth"


def python(code, timeout=60, interpreter=sys.executable, **more):
    """A process of its own; its name is __main__ and spawned processes can import it."""
    return subprocess.run(
        [interpreter, *code], env=environment(**more), cwd=ROOT, capture_output=True, text=True, timeout=timeout
    )


@pytest.fixture(scope="module", params=[1, 2], ids=["alone", "dp2"])
def llm(request):
    more = {"data_parallel_size": 2, "enable_expert_parallel": True, "all2all_backend": "pplx"} if request.param == 2 else {}
    with cadre.LLM(MODEL, **SMALL, **more) as model:
        model.ranks = request.param
        yield model


@pytest.fixture(scope="module")
def alone():
    with cadre.LLM(MODEL, **SMALL) as model:
        yield model


@pytest.fixture(scope="module")
def http():
    httpx = pytest.importorskip("httpx")
    flags = ["--dtype", "float32", "--max-model-len", "512", "--num-gpu-blocks-override", "256", "--port", "0"]
    process = subprocess.Popen([str(BIN), "serve", MODEL, *flags], stderr=subprocess.PIPE, text=True, env=environment())
    url = None
    for line in process.stderr:
        found = re.search(r"ready after .*?http://\S+:(\d+)", line)
        if found:
            url = f"http://127.0.0.1:{found.group(1)}/v1/"
            break
    assert url, "the server did not start"
    threading.Thread(target=process.stderr.read, daemon=True).start()

    def ask(route, **body):
        answer = httpx.post(url + route, json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()

    yield ask
    process.terminate()
    assert process.wait(20) == 0


def texts(outputs):
    return [output.outputs[0].text for output in outputs]


# Answers.


def test_the_references_greedy_tokens(llm):
    answers = llm.chat(CHATS, cadre.SamplingParams(**GREEDY), use_tqdm=False)
    for answer, (question, tokens, text) in zip(answers, EXPECTED):
        assert answer.outputs[0].token_ids == tokens, question
        assert answer.outputs[0].text == text
        assert (answer.outputs[0].finish_reason, answer.outputs[0].stop_reason, answer.finished) == ("stop", None, True)
        assert question in answer.prompt and answer.prompt.startswith("<|im_start|>user")
    # The same prompts as token ids: in a list, in a dict, one alone.
    ids = [answer.prompt_token_ids for answer in answers]
    params = cadre.SamplingParams(**GREEDY)
    again = llm.generate(ids, params, use_tqdm=False)
    assert [a.outputs[0].token_ids for a in again] == [tokens for _, tokens, _ in EXPECTED]
    assert again[0].prompt is None and again[0].prompt_token_ids == ids[0]
    one = llm.generate(cadre.TokensPrompt(prompt_token_ids=ids[1], prompt="shown"), params, use_tqdm=False)
    assert len(one) == 1 and one[0].outputs[0].text == "Paris." and one[0].prompt == "shown"
    assert llm.generate(tuple(ids[0]), params, use_tqdm=False)[0].outputs[0].text == "42"
    np = pytest.importorskip("numpy")
    assert texts(llm.generate(np.array(ids[0]), params, use_tqdm=False)) == ["42"]
    assert texts(llm.generate(np.array([ids[0], ids[0]]), params, use_tqdm=False)) == ["42", "42"]


def test_the_same_answers_as_the_server(alone, http):
    params = cadre.SamplingParams(temperature=0, max_tokens=24, logprobs=3, prompt_logprobs=2)
    ours = alone.generate(PROSE, params, use_tqdm=False)[0]
    theirs = http("completions", prompt=PROSE, temperature=0, max_tokens=24, logprobs=3, prompt_logprobs=2, return_token_ids=True)
    choice, mine = theirs["choices"][0], ours.outputs[0]
    assert (mine.text, mine.token_ids, mine.finish_reason) == (choice["text"], choice["token_ids"], choice["finish_reason"])
    assert ours.prompt == PROSE and len(mine.logprobs) == 24
    sampled = [entry[token].logprob for entry, token in zip(mine.logprobs, mine.token_ids)]
    assert sampled == pytest.approx(choice["logprobs"]["token_logprobs"], abs=1e-5)
    assert mine.cumulative_logprob == pytest.approx(sum(sampled), abs=1e-4)
    for entry, top, token in zip(mine.logprobs, choice["logprobs"]["top_logprobs"], mine.token_ids):
        assert list(entry)[0] == token and entry[token].rank == 1
        assert {one.decoded_token: pytest.approx(one.logprob, abs=1e-5) for one in entry.values()} == top
    assert ours.prompt_logprobs[0] is None and len(ours.prompt_logprobs) == len(ours.prompt_token_ids)
    for mine, other in zip(ours.prompt_logprobs[1:], choice["prompt_logprobs"][1:]):
        assert {str(token): one.rank for token, one in mine.items()} == {token: one["rank"] for token, one in other.items()}
    # Chats, with penalties, a bias and a seed: the same draws.
    body = dict(
        temperature=0.8,
        top_p=0.9,
        top_k=20,
        min_p=0.01,
        seed=7,
        presence_penalty=0.5,
        frequency_penalty=0.2,
        repetition_penalty=1.1,
        max_tokens=20,
    )
    chat = [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": "Who are you?"}]
    mine = alone.chat(chat, cadre.SamplingParams(**body, logit_bias={50: 2.0}), use_tqdm=False)[0]
    other = http("chat/completions", messages=chat, logit_bias={"50": 2.0}, **body)
    assert mine.outputs[0].text == other["choices"][0]["message"]["content"]
    assert len(mine.prompt_token_ids) == other["usage"]["prompt_tokens"]


def test_n_seeds_and_lists_of_parameters(llm):
    several = cadre.SamplingParams(n=3, temperature=1, seed=5, max_tokens=12)
    alone = [cadre.SamplingParams(temperature=1, seed=5 + i, max_tokens=12) for i in range(3)]
    first, *rest = llm.generate([PROSE] * 4, [several, *alone], use_tqdm=False)
    assert [one.index for one in first.outputs] == [0, 1, 2]
    assert [one.text for one in first.outputs] == texts(rest)
    assert len({one.text for one in first.outputs}) > 1
    with pytest.raises(ValueError, match=r"lengths of prompts \(2\) and sampling_params \(3\)"):
        llm.generate([PROSE] * 2, alone)
    # None: what the model's generation_config.json says.
    default = llm.get_default_sampling_params()
    assert (default.temperature, default.top_p, default.max_tokens) == (0.7, 0.9, 16)
    assert cadre.SamplingParams().temperature == 1.0


def test_where_answers_end(llm):
    def end(**more):
        one = llm.generate(PROSE, cadre.SamplingParams(**{**GREEDY, **more}), use_tqdm=False)[0].outputs[0]
        return one.text, one.token_ids, one.finish_reason, one.stop_reason

    full, tokens, reason, _ = end(max_tokens=10)
    assert reason == "length" and len(tokens) == 10
    word = full.split()[3]
    text, _, *ends = end(stop=word)
    assert text == full[: full.index(word)] and ends == ["stop", word]
    assert end(stop=[word, "zzz"], include_stop_str_in_output=True)[0] == full[: full.index(word) + len(word)]
    at = next(i for i in range(3, 10) if tokens[i] not in tokens[:i])
    assert end(stop_token_ids=[tokens[at]])[1:] == (tokens[: at + 1], "stop", tokens[at])
    assert end(max_tokens=10, detokenize=False)[:2] == ("", tokens)
    assert end(max_tokens=10, bad_words=[full.split()[0]])[0] != full
    assert set(end(max_tokens=6, allowed_token_ids=[100, 200])[1]) <= {100, 200}
    # Longer than fits: to the end of the context; None likewise.
    assert len(end(max_tokens=10**9, ignore_eos=True)[1]) == 512 - len(llm.get_tokenizer().encode(PROSE))
    assert end(max_tokens=None, ignore_eos=True)[2] == "length"


def test_more_prompts_than_the_queue_takes(request):
    with cadre.LLM(MODEL, **SMALL, max_num_queued_reqs=8) as small:
        prompts = [f"{i} plus one is" for i in range(150)]
        params = cadre.SamplingParams(temperature=0, max_tokens=3)
        outputs = small.generate(prompts, params, use_tqdm=False)
        assert [output.prompt for output in outputs] == prompts
        assert texts(outputs)[17] == texts(small.generate(prompts[17], params, use_tqdm=False))[0]


def test_calls_from_many_threads_and_the_gil_is_free(llm):
    params = cadre.SamplingParams(temperature=0, max_tokens=60, ignore_eos=True)
    wanted, got, turns = texts(llm.generate([PROSE], params, use_tqdm=False)), [], 0

    def work():
        got.append(texts(llm.generate([PROSE], params, use_tqdm=False)))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        turns += 1
        time.sleep(0.001)
    assert got == [wanted] * 8
    assert turns > 5


def test_tokenizer(alone, http):
    tokenizer = alone.get_tokenizer()
    ids = tokenizer.encode(PROSE)
    assert tokenizer.decode(ids) == PROSE and tokenizer.batch_decode([ids, ids[:1]])[0] == PROSE
    assert tokenizer(PROSE)["input_ids"] == ids and tokenizer([PROSE])["attention_mask"] == [[1] * len(ids)]
    assert (len(tokenizer), tokenizer.vocab_size, tokenizer.eos_token_id, tokenizer.eos_token) == (2048, 2048, 2, "<|im_end|>")
    assert "".join(tokenizer.tokenize("two words")).replace("Ġ", " ") == "two words"
    rendered = tokenizer.apply_chat_template(CHATS[0], tokenize=False, add_generation_prompt=True)
    assert rendered == alone.chat(CHATS[0], cadre.SamplingParams(max_tokens=1), use_tqdm=False)[0].prompt
    assert tokenizer.apply_chat_template(CHATS[0], add_generation_prompt=True) == tokenizer.encode(rendered)
    assert tokenizer.apply_chat_template(CHATS[0], tokenize=False) != rendered
    with pytest.raises(ValueError, match="out of vocabulary"):
        tokenizer.decode([2048])
    with pytest.raises(cadre.UnsupportedError, match="return_tensors"):
        tokenizer("x", return_tensors="pt")


def test_llm_engine_steps(llm):
    engine = llm.llm_engine
    for i, (question, _, _) in enumerate(EXPECTED):
        chat = llm.get_tokenizer().apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True)
        engine.add_request(f"r{i}", {"prompt_token_ids": chat}, cadre.SamplingParams(**GREEDY))
    with pytest.raises(ValueError, match="'r0' is running"):
        engine.add_request("r0", "x", cadre.SamplingParams())
    engine.add_request("gone", PROSE, cadre.SamplingParams(max_tokens=400, ignore_eos=True))
    engine.abort_request("gone")
    seen, last = {}, {}
    while engine.has_unfinished_requests():
        for output in engine.step():
            assert output.request_id not in last, "something came after the end"
            text = output.outputs[0].text
            assert text.startswith(seen.get(output.request_id, ""))
            seen[output.request_id] = text
            if output.finished:
                last[output.request_id] = output
    assert [last[f"r{i}"].outputs[0].token_ids for i in range(4)] == [tokens for _, tokens, _ in EXPECTED]
    assert engine.step() == [] and "gone" not in last
    assert engine.model_config.max_model_len == 512 and engine.model_config.get_vocab_size() == 2048
    assert llm.llm_engine.vllm_config.parallel_config.data_parallel_size == llm.ranks == llm.get_world_size()


def test_enqueue_and_wait(alone):
    names = alone.enqueue([PROSE, "x"], cadre.SamplingParams(**GREEDY)) + alone.enqueue("y", cadre.SamplingParams(**GREEDY))
    outputs = alone.wait_for_completion(use_tqdm=False)
    assert [output.request_id for output in outputs] == names and all(output.finished for output in outputs)
    assert alone.wait_for_completion() == []


def test_metrics_and_prefix_cache(alone):
    params = cadre.SamplingParams(temperature=0, max_tokens=2)
    long = PROSE * 8
    alone.generate(long, params, use_tqdm=False)
    assert alone.generate(long, params, use_tqdm=False)[0].num_cached_tokens >= 16
    salted = {"prompt": long, "cache_salt": "mine"}
    assert alone.generate(salted, params, use_tqdm=False)[0].num_cached_tokens == 0
    assert alone.reset_prefix_cache() is True
    assert alone.generate(long, params, use_tqdm=False)[0].num_cached_tokens == 0
    metrics = {metric.name: metric.value for metric in alone.get_metrics()}
    assert metrics["vllm:prompt_tokens"] > 0 and metrics["vllm:prefix_cache_hits"] >= 16


def test_truncation_and_special_tokens(alone):
    def ids(**how):
        return alone.generate(PROSE, cadre.SamplingParams(max_tokens=1), use_tqdm=False, tokenization_kwargs=how)[
            0
        ].prompt_token_ids

    full = alone.get_tokenizer().encode(PROSE)
    assert ids(truncate_prompt_tokens=4) == full[-4:]
    assert ids(truncate_prompt_tokens=4, truncation_side="right") == full[:4]
    with pytest.raises(NotImplementedError, match="'padding' is not supported"):
        ids(padding=True)


# What is wrong, and says so.


@pytest.mark.parametrize(
    "fields, kind, says",
    [
        ({"temperature": -1}, ValueError, "temperature must be non-negative, got -1"),
        ({"top_p": 0}, ValueError, r"top_p must be in \(0, 1\], got 0"),
        ({"top_k": -2}, ValueError, "top_k must be 0 .disable., or at least 1"),
        ({"n": 0}, ValueError, "n must be at least 1"),
        ({"n": 2, "temperature": 0}, ValueError, "n must be 1 when using greedy sampling"),
        ({"max_tokens": 0}, ValueError, "max_tokens must be at least 1, got 0"),
        ({"min_tokens": 9, "max_tokens": 3}, ValueError, "min_tokens must be less than or equal to max_tokens=3"),
        ({"logprobs": -2}, ValueError, "logprobs must be non-negative or -1"),
        ({"stop": [""]}, ValueError, "stop cannot contain an empty string"),
        ({"bad_words": [" "]}, ValueError, "bad_words cannot contain an empty string"),
        ({"stop": "x", "detokenize": False}, ValueError, "only supported when detokenize is True"),
        ({"repetition_penalty": float("nan")}, ValueError, "repetition_penalty must be greater than zero"),
        ({"temperature": "warm"}, TypeError, "temperature is 'warm'; it takes a number"),
        ({"max_tokens": 1.5}, TypeError, "max_tokens is 1.5; it takes an integer"),
        ({"stop": 3}, TypeError, "stop is 3; it takes a string or a list of strings"),
        ({"seed": 2**70}, TypeError, "seed is .*; it takes an integer of 64 bits"),
        ({"output_kind": 1}, TypeError, "it takes a RequestOutputKind"),
        ({"temprature": 1}, TypeError, "no field 'temprature'; did you mean 'temperature'?"),
        ({"nonsense": 1}, TypeError, "no field 'nonsense'$"),
        ({"structured_outputs": {"json": {}}}, NotImplementedError, "structured_outputs is not supported: it needs a grammar"),
        ({"guided_decoding": 1}, NotImplementedError, "needs a grammar"),
        ({"best_of": 2}, NotImplementedError, "use n"),
    ],
)
def test_sampling_params_are_checked_where_they_are_written(fields, kind, says):
    with pytest.raises(kind, match=says):
        cadre.SamplingParams(**fields)


def test_sampling_params_are_values():
    params = cadre.SamplingParams(temperature=0.5, stop=("a", "b"), logprobs=True, seed=-1, top_p=None)
    assert (params.stop, params.logprobs, params.seed, params.top_p) == (["a", "b"], 1, None, 1.0)
    copy = params.clone()
    assert copy == params and copy.stop is not params.stop and pickle.loads(pickle.dumps(params)) == params
    copy.stop.append("c")
    assert copy != params and "temperature=0.5" in repr(params)
    assert cadre.SamplingParams.from_optional(temperature=None, max_tokens=None).max_tokens is None
    with pytest.raises(AttributeError):
        params.temprature = 1


def test_wrong_prompts(alone):
    for prompt, kind, says in [
        ([], None, None),
        ("", ValueError, "prompt is empty"),
        ([5000], ValueError, "Token id 5000 is out of vocabulary"),
        ([-1], ValueError, "Token id -1"),
        ([1] * 600, ValueError, "maximum context length is 512 tokens"),
        ("word " * 3000, ValueError, "maximum context length is 512 tokens"),
        (b"bytes", TypeError, "decode it first"),
        (7, TypeError, "takes a prompt or a list of prompts"),
        ([1.5], TypeError, "a prompt is a string, a list of token ids"),
        ({"promt": "x"}, ValueError, "has no key 'promt'"),
        ({"prompt": "x", "multi_modal_data": {"image": 1}}, NotImplementedError, "images, audio and video"),
        ("\ud800", UnicodeEncodeError, "surrogates not allowed"),
    ]:
        if kind is None:
            assert alone.generate(prompt) == []
            continue
        with pytest.raises(kind, match=says):
            alone.generate(prompt, use_tqdm=False)
    # One wrong prompt ends the others of its call, and only these.
    with pytest.raises(ValueError, match="out of vocabulary"):
        alone.generate([PROSE, PROSE, [5000]], cadre.SamplingParams(max_tokens=400, ignore_eos=True), use_tqdm=False)
    assert texts(alone.chat(CHATS[0], cadre.SamplingParams(**GREEDY), use_tqdm=False)) == ["42"]
    with pytest.raises(ValueError, match="greater than max allowed: 20"):
        alone.generate("x", cadre.SamplingParams(logprobs=50))
    with pytest.raises(ValueError, match="messages"):
        alone.chat([{"role": "user"}])
    with pytest.raises(TypeError, match="takes SamplingParams"):
        alone.generate("x", {"temperature": 0})


def test_what_is_not_there_is_refused_by_name(alone):
    for name in (
        "encode",
        "embed",
        "classify",
        "score",
        "beam_search",
        "collective_rpc",
        "apply_model",
        "sleep",
        "wake_up",
        "start_profile",
    ):
        with pytest.raises(NotImplementedError, match=f"LLM.{name} is not supported: "):
            getattr(alone, name)("x")
    assert not hasattr(alone, "no_such_thing")
    with pytest.raises(TypeError, match="it takes LoRARequest"):
        alone.generate("x", lora_request=object())
    with pytest.raises(NotImplementedError, match="--enable-lora"):
        alone.generate("x", lora_request=cadre.LoRARequest("a", 1, "/a"))
    with pytest.raises(TypeError, match="cannot be sent to another process"):
        pickle.dumps(alone)


@pytest.mark.parametrize(
    "settings, kind, says",
    [
        ({}, TypeError, "wants a model"),
        ({"model": "/no/such/folder"}, LookupError, "/no/such/folder"),
        (
            {"model": MODEL, "tensor_paralel_size": 2},
            TypeError,
            "no setting 'tensor_paralel_size'; did you mean 'tensor_parallel_size'?",
        ),
        ({"model": MODEL, "port": 8000}, TypeError, "no setting 'port'"),
        ({"model": MODEL, "max_model_len": "long"}, ValueError, "--max-model-len"),
        ({"model": MODEL, "enforce_eager": "yes"}, TypeError, "enforce_eager is 'yes'; it takes True or False"),
        ({"model": MODEL, "speculative_config": {"method": "ngram"}}, NotImplementedError, "[Ss]peculative"),
        ({"model": MODEL, "eplb_config": {"windwo_size": 1}, "enable_eplb": True}, ValueError, "windwo_size"),
        ({"model": MODEL, "hf_overrides": {"f": len}}, TypeError, "hf_overrides: .*values that JSON can hold"),
        ({"model": MODEL, "gpu_memory_utilization": 0.0001}, MemoryError, "gpu-memory-utilization"),
        (
            {"model": MODEL, "headless": True, "data_parallel_size": 2, "data_parallel_start_rank": 1},
            ValueError,
            "cadre serve MODEL --headless",
        ),
    ],
)
def test_wrong_settings(settings, kind, says):
    with pytest.raises(kind, match=says):
        cadre.LLM(**settings)


def test_settings_are_the_flags(monkeypatch):
    args = cadre.EngineArgs(
        MODEL, tensor_parallel_size=1, data_parallel_size=8, enable_expert_parallel=True, gpu_memory_utilization=0.95,
        enable_prefix_caching=False, eplb_config={"window_size": 10}, served_model_name=["a", "b"], dtype="torch.bfloat16",
        max_model_len=None, enforce_eager=False, disable_log_stats=True)  # fmt: skip
    assert args.words() == [
        f"--model={MODEL}", "--tensor-parallel-size=1", "--data-parallel-size=8", "--enable-expert-parallel",
        "--gpu-memory-utilization=0.95", "--no-enable-prefix-caching", '--eplb-config={"window_size": 10}',
        "--served-model-name", "a", "b", "--dtype=bfloat16", "--no-enforce-eager", "--data-parallel-size-local=8"]  # fmt: skip
    assert args.max_num_seqs == 128 and args.seed == 0 and args.revision is None
    # Every argument of vLLM 0.32's LLM(...) is known.
    for name in """runner convert tokenizer tokenizer_mode skip_tokenizer_init trust_remote_code allowed_local_media_path
            allowed_media_domains tensor_parallel_size dtype quantization revision tokenizer_revision chat_template seed
            gpu_memory_utilization cpu_offload_gb offload_group_size offload_num_in_group offload_prefetch_step offload_params
            enforce_eager enable_return_routed_experts return_sampling_mask disable_custom_all_reduce hf_token hf_overrides
            mm_processor_kwargs pooler_config structured_outputs_config profiler_config attention_config kv_cache_memory_bytes
            compilation_config quantization_config logits_processors spec_method spec_model spec_tokens""".split():
        cadre.EngineArgs(MODEL, **{name: None})
    # A launcher's variables do not make a Python program a node of several; VLLM_DP_RANK does.
    monkeypatch.setenv("VLLM_DP_RANK", "1")
    assert "--data-parallel-size-local=8" not in args.words()


def test_a_launchers_variables_are_not_for_us():
    code = f"""
import cadre
llm = cadre.LLM({MODEL!r}, data_parallel_size=2, enable_expert_parallel=True, **{SMALL!r})
print(llm.chat({CHATS[0]!r}, cadre.SamplingParams(temperature=0), use_tqdm=False)[0].outputs[0].text)
"""
    slurm = {"SLURM_NTASKS": 4, "SLURM_PROCID": 3, "SLURM_JOB_NODELIST": "n[1-4]"}
    done = python(["-c", code], **slurm)
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr


def test_one_process_a_rank():
    """vLLM's offline data parallelism: each process has an LLM of its own and its own prompts, and all are one deployment."""
    code = f"""
import os, cadre
llm = cadre.LLM({MODEL!r}, enable_expert_parallel=True, **{SMALL!r})
chats = {CHATS!r}[int(os.environ["VLLM_DP_RANK"])::2]
print([o.outputs[0].text for o in llm.chat(chats, cadre.SamplingParams(temperature=0), use_tqdm=False)], flush=True)
input()  # nobody leaves before all have their answers
"""
    port = free_port()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment(VLLM_DP_SIZE=2, VLLM_DP_RANK=rank, VLLM_DP_MASTER_IP="127.0.0.1", VLLM_DP_MASTER_PORT=port))
        for rank in range(2)]  # fmt: skip
    answers = [process.stdout.readline() for process in processes]
    ends = [process.communicate("\n", timeout=60) for process in processes]
    assert answers == ["['42', '3 4 5 6 7 8 9']\n", "['Paris.', '104']\n"], ends


def test_tensor_parallel_ranks():
    with cadre.LLM(MODEL, tensor_parallel_size=2, **SMALL) as model:
        assert texts(model.chat(CHATS, cadre.SamplingParams(**GREEDY), use_tqdm=False)) == [text for _, _, text in EXPECTED]
        assert model.get_world_size() == 2


# Ends.


def test_closed(capfd):
    with cadre.LLM(MODEL, **SMALL) as model:
        tokenizer = model.get_tokenizer()
    model.shutdown()
    for work in (
        lambda: model.generate("x"),
        lambda: tokenizer.encode("x"),
        lambda: model.get_metrics(),
        model.reset_prefix_cache,
    ):
        with pytest.raises(ConnectionError, match="this LLM is shut down; make a new one"):
            work()
    # Closed by another thread while it answers: what there is comes back.
    model = cadre.LLM(MODEL, **SMALL)
    threading.Timer(0.1, model.shutdown).start()
    outputs = model.generate([PROSE] * 64, cadre.SamplingParams(max_tokens=450, ignore_eos=True), use_tqdm=False)
    assert "abort" in {output.outputs[0].finish_reason for output in outputs}
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("ranks", [1, 2])
def test_ctrl_c_ends_the_call_and_leaves_the_engine(ranks):
    code = f"""
import os, signal, sys, threading, time, cadre
before = signal.getsignal(signal.SIGINT)
llm = cadre.LLM({MODEL!r}, data_parallel_size={ranks}, enable_expert_parallel={ranks > 1}, **{SMALL!r})
assert signal.getsignal(signal.SIGINT) is before
for again in range(2):
    threading.Timer(0.2, lambda: os.kill(0, signal.SIGINT)).start()  # as a terminal does: to the whole process group
    begin = time.monotonic()
    try:
        llm.generate(["x"] * 300, cadre.SamplingParams(max_tokens=450, ignore_eos=True), use_tqdm=False)
        print("not interrupted")
    except KeyboardInterrupt:
        print("interrupted", time.monotonic() - begin < 15)
    print(llm.chat({CHATS[0]!r}, cadre.SamplingParams(temperature=0), use_tqdm=False)[0].outputs[0].text)
while any(metric.value for metric in llm.get_metrics() if metric.name == "vllm:num_requests_running"):
    llm.generate("x", cadre.SamplingParams(max_tokens=1), use_tqdm=False); time.sleep(0.05)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "interrupted True\n42\n" * 2), err


def test_ctrl_c_while_loading_ends_the_program():
    code = f"""
import os, signal, threading, cadre
from cadre import _engine
# Ranks that never come: the start waits.
threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
cadre.LLM({MODEL!r}, data_parallel_size=4, data_parallel_size_local=2, data_parallel_rpc_port={free_port()}, **{SMALL!r})
"""
    begin = time.monotonic()
    done = python(["-c", code])
    assert done.returncode == 130 and "KeyboardInterrupt" in done.stderr, done
    assert time.monotonic() - begin < 20


FORK = """
import os, sys, cadre
if __name__ == "__main__":
    llm = cadre.LLM({model!r}, data_parallel_size={ranks}, enable_expert_parallel={ranks} > 1, **{small!r})
    params = cadre.SamplingParams(temperature=0)
    ask = lambda: llm.chat({chat!r}, params, use_tqdm=False)[0].outputs[0].text
    print(ask(), flush=True)
    pid = os.fork()
    if pid == 0:
        try:
            ask()
        except ConnectionError as error:
            print("fork:", "is a fork of it" in str(error) and "'spawn'" in str(error), flush=True)
        del llm
        sys.exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), ask(), flush=True)
"""


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_fork_is_refused_and_does_no_harm(ranks):
    done = python(["-c", FORK.format(model=MODEL, ranks=ranks, small=SMALL, chat=CHATS[0])])
    assert (done.returncode, done.stdout) == (0, "42\nfork: True\n7 42\n"), done.stderr


def test_a_fork_may_make_its_own():
    code = f"""
import os, sys, cadre
pid = os.fork()
llm = cadre.LLM({MODEL!r}, **{SMALL!r})
text = llm.chat({CHATS[0]!r}, cadre.SamplingParams(temperature=0), use_tqdm=False)[0].outputs[0].text
os.write(1, (text + "\\n").encode())  # both at once
if pid: sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    done = python(["-c", code])
    assert (done.returncode, done.stdout) == (0, "42\n42\n"), done.stderr


SPAWN = """
import multiprocessing, sys
from vllm import LLM, SamplingParams

def work(question, results):
    llm = LLM({model!r}, data_parallel_size={ranks}, enable_expert_parallel={ranks} > 1, **{small!r})
    results.put(llm.chat([{{"role": "user", "content": question}}], SamplingParams(temperature=0), use_tqdm=False)[0].outputs[0].text)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    children = [context.Process(target=work, args=(question, results)) for question in ("What is 2 + 2?", "Add 40 and 64.")]
    for child in children: child.start()
    print(sorted(results.get(timeout=50) for _ in children), sys.argv[1:])
    for child in children: child.join()
    print([child.exitcode for child in children])
"""


@pytest.mark.parametrize("ranks", [1, 2])
def test_spawned_processes_work_under_compat_too(tmp_path, ranks):
    script = tmp_path / "spawn.py"
    script.write_text(SPAWN.format(model=MODEL, ranks=ranks, small=SMALL))
    done = python(["-m", "cadre.compat", str(script), "--flag", "1"])
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['104', '4'] ['--flag', '1']\n[0, 0]\n"


def test_a_rank_that_dies_ends_the_call_by_name():
    code = f"""
import os, signal, subprocess, threading, time, cadre
llm = cadre.LLM({MODEL!r}, data_parallel_size=2, enable_expert_parallel=True, **{SMALL!r})
for line in subprocess.run(["ps", "--ppid", str(os.getpid()), "-o", "pid=,args="], capture_output=True, text=True).stdout.splitlines():
    if " rank 1 " in line: victim = int(line.split()[0])
threading.Timer(0.3, lambda: os.kill(victim, signal.SIGKILL)).start()
for again in range(2):
    try:
        llm.generate(["x"] * 200, cadre.SamplingParams(max_tokens=450, ignore_eos=True), use_tqdm=False)
    except ConnectionError as error:
        print("rank 1 was killed by SIGKILL" in str(error))
llm.shutdown()
"""
    done = python(["-c", code])
    assert (done.returncode, done.stdout) == (0, "True\nTrue\n"), done.stderr


def test_the_program_is_named_where_it_is_missing(tmp_path):
    code = f"import cadre; cadre.LLM({MODEL!r}, data_parallel_size=2, **{SMALL!r})"
    done = python(["-c", code], CADRE_BIN=str(tmp_path / "cadre"))
    assert done.returncode == 1 and f"CADRE_BIN is '{tmp_path}/cadre', which is no program" in done.stderr
    # A package without it, and none in PATH.
    (tmp_path / "cadre").mkdir()
    for file in PACKAGE.glob("cadre/*"):
        (tmp_path / "cadre" / file.name).symlink_to(file.resolve())
    done = python(["-c", code], PYTHONPATH=str(tmp_path), PATH="/usr/bin:/bin", CADRE_BIN="")
    assert done.returncode == 1 and "it was not found" in done.stderr and "set CADRE_BIN" in done.stderr, done.stderr


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_end_of_the_program_leaves_nothing(ranks):
    before = set(os.listdir("/dev/shm"))
    code = f"""
import cadre, os, threading
llm = cadre.LLM({MODEL!r}, data_parallel_size={ranks}, enable_expert_parallel={ranks > 1}, **{SMALL!r})
keep = [llm, cadre.LLM({MODEL!r}, **{SMALL!r})]  # two at once
threading.Thread(target=lambda: llm.generate(["x"] * 50, cadre.SamplingParams(max_tokens=450, ignore_eos=True), use_tqdm=False), daemon=True).start()
print(os.getpid())
"""
    begin = time.monotonic()
    done = python(["-c", code])
    assert done.returncode == 0 and time.monotonic() - begin < 20, done.stderr
    left = subprocess.run(["pgrep", "-P", done.stdout.strip()], capture_output=True, text=True).stdout
    assert left == "" and set(os.listdir("/dev/shm")) <= before


# Bars.


def test_the_bar_is_on_stderr_and_says_vllms_words(alone, capfd):
    alone.generate([PROSE] * 3, cadre.SamplingParams(max_tokens=4))
    out, err = capfd.readouterr()
    assert out == "" and re.search(
        r"Processed prompts: 100%.*3/3 .*est. speed input: \d+\.\d\d toks/s, output: \d+\.\d\d toks/s", err
    )
    alone.generate([PROSE], cadre.SamplingParams(max_tokens=4), use_tqdm=False)
    assert capfd.readouterr() == ("", "")

    class Counting:
        made = []

        def __init__(self, **how):
            self.how, self.count, self.closed = how, 0, False
            Counting.made.append(self)

        def update(self, count):
            self.count += count

        def close(self):
            self.closed = True

    alone.generate([PROSE] * 3, cadre.SamplingParams(max_tokens=4), use_tqdm=Counting)
    (bar,) = Counting.made
    assert (bar.count, bar.closed, bar.how["total"], bar.how["desc"]) == (3, True, 3, "Processed prompts")


def test_our_own_bar_survives_a_closed_stream():
    from cadre.progress import Bar

    file = io.StringIO()
    bar = Bar(total=2, desc="Processed prompts", postfix="p", file=file)
    bar.update(1)
    bar.update(1)
    bar.close()
    assert file.getvalue().count("\r") >= 3 and "100%|██████████| 2/2" in file.getvalue()
    file.close()
    Bar(total=1, file=file).close()


# asyncio.


@pytest.fixture(scope="module", params=[1, 2], ids=["alone", "dp2"])
def engine(request):
    more = {"data_parallel_size": 2, "enable_expert_parallel": True} if request.param == 2 else {}
    with cadre.AsyncLLM.from_engine_args(cadre.AsyncEngineArgs(MODEL, **SMALL, **more)) as model:
        yield model


def test_async_outputs_grow_or_are_deltas(engine):
    kinds = cadre.RequestOutputKind

    async def collect(kind):
        tokenizer = await engine.get_tokenizer()
        ids = tokenizer.apply_chat_template([{"role": "user", "content": "Count from 3 to 9."}], add_generation_prompt=True)
        params = cadre.SamplingParams(**GREEDY, output_kind=kind)
        return [output async for output in engine.generate({"prompt_token_ids": ids}, params, f"r-{kind.name}")]

    async def work():
        return await asyncio.gather(*(collect(kind) for kind in kinds))

    cumulative, delta, final = asyncio.run(work())
    wanted = EXPECTED[2][2]
    assert cumulative[-1].outputs[0].text == wanted and len(final) == 1 and final[0].outputs[0].text == wanted
    assert all(b.outputs[0].text.startswith(a.outputs[0].text) for a, b in zip(cumulative, cumulative[1:]))
    assert "".join(output.outputs[0].text for output in delta) == wanted
    assert [token for output in delta for token in output.outputs[0].token_ids] == EXPECTED[2][1]
    for outputs in (cumulative, delta, final):
        assert [output.finished for output in outputs] == [False] * (len(outputs) - 1) + [True]
        assert outputs[-1].outputs[0].finish_reason == "stop" and outputs[0].request_id.startswith("r-")


def test_async_many_and_in_several_loops(engine):
    async def one(question):
        tokenizer = await engine.get_tokenizer()
        ids = tokenizer.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True)
        async for output in engine.generate({"prompt_token_ids": ids}, cadre.SamplingParams(**GREEDY)):
            pass
        return output.outputs[0].text

    async def many():
        return await asyncio.gather(*(one(question) for question, _, _ in EXPECTED * 8))

    wanted = [text for _, _, text in EXPECTED] * 8
    assert asyncio.run(many()) == wanted
    got = []
    threads = [threading.Thread(target=lambda: got.append(asyncio.run(many()))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [wanted] * 3


def running(engine):
    return sum(rank["num_running"] + rank["num_waiting"] for rank in engine._model.handle.stats())


def test_async_cancel_and_abort(engine):
    endless = cadre.SamplingParams(max_tokens=490, ignore_eos=True)

    async def settle():
        async for _ in engine.generate("x", cadre.SamplingParams(max_tokens=2)):
            pass  # a step tells the ranks' loads anew
        return running(engine)

    async def work():
        # A task that is cancelled; a generator that is left.
        async def run():
            async for _ in engine.generate("x", endless, "cancelled"):
                pass

        task = asyncio.create_task(run())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        generator = engine.generate("x", endless, "left")
        await generator.__anext__()
        with pytest.raises(ValueError, match="'left' is running"):
            await engine.generate("x", endless, "left").__anext__()
        await generator.aclose()
        # An abort from beside.
        outputs = []
        async for output in engine.generate("x", endless, "aborted"):
            outputs.append(output)
            if len(outputs) == 2:
                await engine.abort("aborted")
        assert outputs[-1].finished and outputs[-1].outputs[0].finish_reason == "abort"
        assert 0 < len(outputs[-1].outputs[0].token_ids) < 490
        parts = cadre.SamplingParams(max_tokens=490, ignore_eos=True, output_kind=cadre.RequestOutputKind.DELTA)
        reasons = []
        async for output in engine.generate("x", parts, "aborted in parts"):
            reasons.append(output.outputs[0].finish_reason)
            if len(reasons) == 2:
                await engine.abort("aborted in parts")
        assert reasons[-1] == "abort" and set(reasons[:-1]) == {None}
        until = time.monotonic() + 10
        while await settle() > 1 and time.monotonic() < until:
            await asyncio.sleep(0.05)
        assert not engine._inboxes[asyncio.get_running_loop()].pending
        await engine.check_health()
        with pytest.raises(ValueError, match="out of vocabulary"):
            await engine.generate([5000], endless).__anext__()
        with pytest.raises(NotImplementedError, match="AsyncLLM.encode"):
            await engine.encode("x")

    asyncio.run(work())


def test_async_shutdown_ends_generators():
    model = cadre.AsyncLLM(cadre.AsyncEngineArgs(MODEL, **SMALL))

    async def work():
        outputs = []
        async for output in model.generate("x", cadre.SamplingParams(max_tokens=490, ignore_eos=True)):
            outputs.append(output)
            if len(outputs) == 3:
                model.shutdown()
        return outputs[-1]

    last = asyncio.run(work())
    assert last.finished and last.outputs[0].finish_reason == "abort"
    assert not model.is_running and model.errored


def test_in_a_notebook_cell():
    """A running event loop, a thread that is not the main one, stdout for the user's own lines."""

    async def cell():
        loop = asyncio.get_running_loop()

        def work():
            with cadre.LLM(MODEL, **SMALL) as model:
                return texts(model.chat(CHATS[0], cadre.SamplingParams(**GREEDY), use_tqdm=False))

        return work(), await loop.run_in_executor(None, work)

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    assert asyncio.run(cell()) == (["42"], ["42"])
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_ranks_outlive_the_thread_that_made_them():
    made = []
    thread = threading.Thread(
        target=lambda: made.append(cadre.LLM(MODEL, data_parallel_size=2, enable_expert_parallel=True, **SMALL))
    )
    thread.start()
    thread.join()
    time.sleep(0.2)
    with made[0] as model:
        assert texts(model.chat(CHATS[0], cadre.SamplingParams(**GREEDY), use_tqdm=False)) == ["42"]


# vLLM's names.

SCRIPT = """
import argparse, sys
import vllm
from vllm import LLM, SamplingParams, EngineArgs, LLMEngine, RequestOutput, TokensPrompt
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.engine.async_llm_engine import AsyncLLMEngine
from vllm.entrypoints.llm import LLM as Same
from vllm.inputs import TextPrompt
from vllm.logger import init_logger
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput
from vllm.sampling_params import RequestOutputKind
from vllm.usage.usage_lib import UsageContext
from vllm.utils import FlexibleArgumentParser, random_uuid
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.config import EPLBConfig

assert Same is LLM and vllm.LLM is LLM and vllm.sampling_params.SamplingParams is SamplingParams
parser = FlexibleArgumentParser()
EngineArgs.add_cli_args(parser)
parser.add_argument("--question", default="?")
args = parser.parse_args()
engine = LLMEngine.from_engine_args(EngineArgs.from_cli_args(args))
engine.add_request("0", args.question, SamplingParams(temperature=0, max_tokens=8))
while engine.has_unfinished_requests():
    for output in engine.step():
        if output.finished:
            assert isinstance(output, RequestOutput) and isinstance(output.outputs[0], CompletionOutput)
            print(output.outputs[0].text)
try:
    import vllm.model_executor
except ImportError as error:
    print("no module 'vllm.model_executor'" in str(error))
try:
    from vllm import NoSuchThing
except ImportError:
    print("refused")
print(__name__, sys.argv[0].endswith("script.py"), EngineArgs.from_cli_args(args).max_model_len)
"""


def test_a_script_for_vllm_runs_unchanged(tmp_path, alone):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    words = [
        "--model",
        MODEL,
        "--max_model_len",
        "512",
        "--dtype",
        "float32",
        "--num-gpu-blocks-override=256",
        "--question",
        PROSE,
    ]
    done = python(["-m", "cadre.compat", str(script), *words])
    assert done.returncode == 0, done.stderr
    wanted = texts(alone.generate(PROSE, cadre.SamplingParams(temperature=0, max_tokens=8), use_tqdm=False))[0]
    assert done.stdout == f"{wanted}\nTrue\nrefused\n__main__ True 512\n"


OFFLINE = """
import os
from multiprocessing import Process
from time import sleep

from vllm import LLM, SamplingParams
from vllm.distributed.parallel_state import destroy_model_parallel
from vllm.platforms import current_platform
from vllm.sampling_params import StructuredOutputsParams
from vllm.utils.network_utils import get_open_port

def main(size, rank, port):
    os.environ["VLLM_DP_RANK"] = os.environ["VLLM_DP_RANK_LOCAL"] = str(rank)
    os.environ["VLLM_DP_SIZE"] = str(size)
    os.environ["VLLM_DP_MASTER_IP"] = "127.0.0.1"
    os.environ["VLLM_DP_MASTER_PORT"] = str(port)
    chats = {chats!r}[rank::size]
    llm = LLM(model={model!r}, enable_expert_parallel=True, **{small!r})
    outputs = llm.chat(chats, [SamplingParams(temperature=0) for _ in chats], use_tqdm=False)
    print(f"DP rank {{rank}}: {{[output.outputs[0].text for output in outputs]}}", flush=True)
    sleep(2)

if __name__ == "__main__":
    assert current_platform.is_cpu() and not current_platform.is_cuda()
    port = get_open_port()
    processes = [Process(target=main, args=(2, rank, port)) for rank in range(2)]
    for process in processes: process.start()
    for process in processes: process.join(timeout=50)
    print([process.exitcode for process in processes])
    destroy_model_parallel()
"""


def test_offline_data_parallelism_as_vllm_shows_it(tmp_path):
    script = tmp_path / "data_parallel.py"
    script.write_text(OFFLINE.format(chats=CHATS, model=MODEL, small=SMALL))
    done = python(["-m", "cadre.compat", str(script)])
    lines = done.stdout.splitlines()
    assert sorted(lines[:2]) == ["DP rank 0: ['42', '3 4 5 6 7 8 9']", "DP rank 1: ['Paris.', '104']"], done.stderr
    assert lines[2:] == ["[0, 0]"]


def test_compat_with_a_real_vllm(tmp_path):
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm/__init__.py").write_text("LLM = 'the real one'")
    path = f"{PACKAGE}:{tmp_path}"
    done = python(["-c", "import cadre.compat, vllm; print(vllm.LLM.__module__)"], PYTHONPATH=path)
    assert done.stdout == "cadre.llm\n" and f"the vLLM in {tmp_path}/vllm/__init__.py is not used" in done.stderr
    done = python(["-c", "import vllm, cadre.compat"], PYTHONPATH=path)
    assert done.returncode == 1 and "is imported already; import cadre.compat before it" in done.stderr
    done = python(["-c", "import cadre, vllm; print(vllm.LLM)"], PYTHONPATH=path)
    assert done.stdout == "the real one\n"  # import cadre alone leaves vLLM alone


def test_compat_command_line(tmp_path):
    assert python(["-m", "cadre.compat"]).returncode == 2
    assert "usage: python -m cadre.compat" in python(["-m", "cadre.compat", "--help"]).stdout
    assert python(["-m", "cadre.compat", "/no/script.py"]).returncode == 3
    done = python(["-m", "cadre.compat", "-c", "import sys, vllm; print(vllm.__version__, sys.argv)", "x"])
    assert done.stdout == "0.32.0 ['-c', 'x']\n"
    (tmp_path / "fails.py").write_text("import sys; sys.exit(9)")
    assert python(["-m", "cadre.compat", str(tmp_path / "fails.py")]).returncode == 9


def test_readers_without_numpy():
    done = python(["-c", "import sys; sys.modules['numpy'] = None; import cadre; cadre.LLM; print(cadre.__version__)"])
    assert done.returncode == 0 and re.fullmatch(r"\d+\.\d+\.\d+\n", done.stdout), done.stderr


def test_the_stub_of_the_settings_is_that_of_the_table():
    done = python([str(ROOT / "tools/make_settings_stub.py")])
    assert done.returncode == 0, done.stderr
    told = "PYTHONPATH=build/release/python python3 tools/make_settings_stub.py > python/cadre/_settings.pyi"
    assert done.stdout == (ROOT / "python/cadre/_settings.pyi").read_text(), f"run: {told}"


def test_the_stubs_name_what_there_is():
    import ast

    def names(path):
        tree, found = ast.parse(path.read_text()), {}
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                functions = (f for f in node.body if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef)))
                found[node.name] = {f.name for f in functions if not f.name.startswith("_")}
        return found

    for name in ("async_llm", "engine_args", "llm", "llm_engine", "sampling_params", "tokenizer"):
        assert names(ROOT / f"python/cadre/{name}.pyi") == names(ROOT / f"python/cadre/{name}.py"), name
    stub = (ROOT / "python/cadre/sampling_params.pyi").read_text()
    assert all(f"    {field}: " in stub for field in cadre.SamplingParams.__slots__)


def write_adapter(folder, seed):
    """A LoRA adapter for the demo model's q_proj and o_proj, as PEFT writes it."""
    np = pytest.importorskip("numpy")
    rng = np.random.default_rng(seed)
    head, blobs, offset = {}, [], 0
    for layer in range(6):
        for kind in ("q_proj", "o_proj"):
            for which, shape in (("A", (4, 256)), ("B", (256, 4))):
                data = rng.normal(0, 0.3, shape).astype("<f4").tobytes()
                name = f"base_model.model.model.layers.{layer}.self_attn.{kind}.lora_{which}.weight"
                head[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + len(data)]}
                offset += len(data)
                blobs.append(data)
    text = json.dumps(head).encode()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blobs))
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}))
    return str(folder)


@pytest.mark.parametrize("ranks", [1, 2])
def test_adapters(ranks, tmp_path):
    params = cadre.SamplingParams(**GREEDY)
    question = EXPECTED[0][0]
    one = cadre.LoRARequest("mine", 1, write_adapter(tmp_path / "one", 1))
    two = cadre.LoRARequest("mine", 2, write_adapter(tmp_path / "two", 2))  # the same name, another number
    more = {"data_parallel_size": 2, "enable_expert_parallel": True} if ranks == 2 else {}
    with cadre.LLM(MODEL, enable_lora=True, **SMALL, **more) as llm:

        def tokens(prompts, lora_request=None):
            return [output.outputs[0].token_ids for output in llm.generate(prompts, params, False, lora_request)]

        plain, first, second = (tokens(question, request)[0] for request in (None, one, two))
        assert plain != first != second != plain
        assert tokens([question] * 5, [two, None, one, None, two]) == [second, plain, first, plain, second]
        assert llm.generate(question, params, False, one)[0].lora_request is one
        assert tokens(question, cadre.LoRARequest("again", 1, one.lora_path)) == [first]
        with pytest.raises(ValueError, match="a number of its own"):
            tokens(question, cadre.LoRARequest("mine", 1, two.lora_path))
        assert tokens(question, cadre.LoRARequest("mine", 1, two.lora_path, load_inplace=True)) == [second]
        with pytest.raises(LookupError, match="No adapter found for"):
            tokens(question, cadre.LoRARequest("none", 3, tmp_path / "none"))
        chat = llm.chat(CHATS[0], params, False, two)[0].outputs[0].token_ids
        assert chat != EXPECTED[0][1] and llm.chat(CHATS[0], params, False)[0].outputs[0].token_ids == EXPECTED[0][1]
        engine = llm.llm_engine
        assert engine.list_loras() == {1, 2}
        engine.add_request("r", question, params, lora_request=two)
        done = []
        while engine.has_unfinished_requests():
            done += engine.step()
        assert done[-1].outputs[0].token_ids == second
        assert engine.remove_lora(2) and not engine.remove_lora(2) and engine.list_loras() == {1}
        assert tokens(question, two) == [second]  # loaded again
        assert tokens(question) == [plain]


def test_lora_requests_are_checked():
    assert cadre.LoRARequest("a", 1, "/a") == cadre.LoRARequest("a", 2, "/b")
    for arguments in (("a", 0, "/a"), ("", 1, "/a"), ("a", 1, "")):
        with pytest.raises(ValueError):
            cadre.LoRARequest(*arguments)


def test_async_adapters(tmp_path):
    request = cadre.LoRARequest("mine", 7, write_adapter(tmp_path / "one", 1))

    async def answers():
        with cadre.AsyncLLM.from_engine_args(cadre.AsyncEngineArgs(MODEL, enable_lora=True, **SMALL)) as llm:

            async def ask(**more):
                last = None
                async for output in llm.generate(EXPECTED[0][0], cadre.SamplingParams(**GREEDY), **more):
                    last = output
                return last.outputs[0].token_ids

            both = await asyncio.gather(ask(), ask(lora_request=request))
            return both, await llm.list_loras(), await llm.remove_lora(7)

    (plain, adapted), known, removed = asyncio.run(answers())
    assert plain != adapted and known == {7} and removed
