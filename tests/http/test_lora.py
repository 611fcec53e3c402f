"""LoRA adapters beside a model: answers against checkpoints that the test has merged, several adapters in one batch, and
adapters that come, change and go while the server runs (docs/lora.md)."""

import json
import os
import pathlib
import shutil
import struct
import threading
import time

import httpx
import pytest

from conftest import BIN, MODEL, ROOT, Server

np = pytest.importorskip("numpy")
import lora_reference  # noqa: E402  it needs numpy

pytestmark = pytest.mark.skipif(not BIN.exists(), reason="%s is not built" % BIN)

SMALL = ["--kv-cache-memory-bytes", "32M", "--dtype", "float32", "--enable-lora"]
LAYOUTS = {
    "one": [],
    "tp2": ["-tp", "2"],
    "dp2-ep": ["-dp", "2", "-ep"],
    "tp2-dp2-ep": ["-tp", "2", "-dp", "2", "-ep"],
    "fronts": ["-dp", "2", "-ep", "--api-server-count", "2"],
}
PROMPT = list(range(100, 140))
KINDS = ("q_proj", "k_proj", "v_proj", "o_proj")
RANK, ALPHA = 8, 16


def read_tensors(folder):
    """name -> f32 array of a checkpoint in one file."""
    data = (pathlib.Path(folder) / "model.safetensors").read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    head = json.loads(data[8 : 8 + length])
    head.pop("__metadata__", None)
    out = {}
    for name, tensor in head.items():
        begin, end = (8 + length + at for at in tensor["data_offsets"])
        if tensor["dtype"] == "BF16":
            values = (np.frombuffer(data[begin:end], "<u2").astype("<u4") << 16).view("<f4")
        else:
            values = np.frombuffer(data[begin:end], "<f4")
        out[name] = values.reshape(tensor["shape"])
    return out


def write_tensors(file, tensors):
    file.parent.mkdir(parents=True, exist_ok=True)
    head, offset = {}, 0
    for name, values in tensors.items():
        head[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [offset, offset + values.nbytes]}
        offset += values.nbytes
    text = json.dumps(head).encode()
    with open(file, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for values in tensors.values():
            out.write(np.ascontiguousarray(values, "<f4").tobytes())


def write_adapter(folder, pairs, **config):
    """`pairs`: module -> (A, B)."""
    tensors = {}
    for module, (a, b) in pairs.items():
        tensors["base_model.model.%s.lora_A.weight" % module] = a
        tensors["base_model.model.%s.lora_B.weight" % module] = b
    write_tensors(folder / "adapter_model.safetensors", tensors)
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none", "target_modules": list(KINDS), **config}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return str(folder)


def draw_pairs(tensors, seed, spread=0.12):
    rng = np.random.default_rng(seed)
    pairs = {}
    for name, weight in tensors.items():
        if name.endswith(tuple(kind + ".weight" for kind in KINDS)):
            outputs, inputs = weight.shape
            pairs[name[: -len(".weight")]] = (
                rng.normal(0, spread, (RANK, inputs)).astype("f4"), rng.normal(0, spread, (outputs, RANK)).astype("f4"))
    return pairs


def write_merged(folder, tensors, pairs):
    """A checkpoint with W + alpha / r * B A."""
    merged = dict(tensors)
    for module, (a, b) in pairs.items():
        weight = merged[module + ".weight"].astype("f8") + ALPHA / RANK * (b.astype("f8") @ a.astype("f8"))
        merged[module + ".weight"] = weight.astype("f4")
    write_tensors(folder / "model.safetensors", merged)
    for file in pathlib.Path(MODEL).glob("*.json"):
        shutil.copy(file, folder)
    return str(folder)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """Folders of two adapters, `a` and `b`."""
    base = tmp_path_factory.mktemp("adapters")
    tensors = read_tensors(MODEL)
    return {name: write_adapter(base / name, draw_pairs(tensors, seed)) for name, seed in (("a", 1), ("b", 2))}


def ask(server, model=None, prompt=PROMPT, count=24, status=200, **sampling):
    body = {"token_ids": list(prompt), "sampling_params": {"max_tokens": count, "temperature": 0, "ignore_eos": True, **sampling}}
    if model is not None:
        body["model"] = model
    answer = httpx.post(server.url + "/inference/v1/generate", json=body, timeout=120)
    assert answer.status_code == status, answer.text
    return answer.json()


def greedy(server, model=None, prompt=PROMPT, count=24):
    return ask(server, model, prompt, count)["choices"][0]["token_ids"]


def scores(server, model=None, prompt=PROMPT):
    """The log probabilities of the prompt's tokens."""
    entries = ask(server, model, prompt, 1, prompt_logprobs=0)["prompt_logprobs"][1:]
    return np.array([entry[str(token)]["logprob"] for entry, token in zip(entries, prompt[1:])])


@pytest.fixture(scope="module")
def wanted(adapters, tmp_path_factory):
    """What merged checkpoints say: name -> (greedy tokens, log probabilities)."""
    tensors, said = read_tensors(MODEL), {}
    base = tmp_path_factory.mktemp("merged")
    for name, folder in (("", MODEL), *((n, write_merged(base / n, tensors, draw_pairs(tensors, s))) for n, s in (("a", 1), ("b", 2)))):
        running = Server([str(BIN), "serve", folder, "--port", "0", *SMALL[:-1]])
        said[name] = greedy(running), scores(running)
        running.stop()
    assert said["a"][0] != said[""][0] and said["a"][0] != said["b"][0]
    return said


def start(*flags, runtime=True):
    before = os.environ.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING")
    os.environ["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1" if runtime else "0"
    try:
        return Server([str(BIN), "serve", MODEL, "--served-model-name", "demo", "--port", "0", *SMALL, *flags])
    finally:
        if before is None:
            del os.environ["VLLM_ALLOW_RUNTIME_LORA_UPDATING"]
        else:
            os.environ["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = before


@pytest.fixture(scope="module", params=LAYOUTS)
def server(request, adapters):
    running = start(*LAYOUTS[request.param], "--lora-modules", "a=" + adapters["a"],
                    json.dumps({"name": "b", "path": adapters["b"], "base_model_name": "demo"}))
    running.layout = LAYOUTS[request.param]
    wait_for_names(running, ["demo", "a", "b"])
    yield running
    assert running.stop() == 0, "".join(running.lines)


def post(server, path, body, status=200):
    answer = httpx.post(server.url + path, json=body, timeout=120)
    assert answer.status_code == status, answer.text
    return answer


def names(server):
    return [card["id"] for card in httpx.get(server.url + "/v1/models", timeout=30).json()["data"]]


def wait_for_names(server, wanted):
    """A front of several hears of an order that another has given a moment later."""
    deadline = time.time() + 10
    while names(server) != wanted:
        assert time.time() < deadline, names(server)
        time.sleep(0.05)


def test_answers_are_those_of_merged_checkpoints(server, wanted):
    for name, (tokens, logprobs) in wanted.items():
        assert greedy(server, name or "demo") == tokens
        assert np.abs(scores(server, name or None) - logprobs).max() < 2e-3
    assert greedy(server) == wanted[""][0]
    if not server.layout:  # the model alone: bit by bit what a server without adapters says
        assert (scores(server) == wanted[""][1]).all()


def test_one_batch_may_hold_all_of_them(server, wanted):
    """Also bit by bit: company changes no log probability."""
    def bits(model):
        choice = ask(server, model, logprobs=1)["choices"][0]
        return choice["token_ids"], [entry["logprob"] for entry in choice["logprobs"]["content"]]

    models = ["demo", "a", "b", "a", "demo", "b"]
    alone = {model: bits(model) for model in set(models)}
    heard = [None] * len(models)

    def one(index):
        heard[index] = bits(models[index])

    threads = [threading.Thread(target=one, args=(index,)) for index in range(len(models))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for model, said in zip(models, heard):
        assert said == alone[model], model


def test_prefixes_are_not_shared(server, wanted):
    """The same prompt, again and again, under other names."""
    prompt = list(range(200, 264))
    first = {model: scores(server, model, prompt).tolist() for model in ("demo", "a", "b")}
    once = {model: greedy(server, model, prompt) for model in first}
    for _ in range(2):
        assert {model: greedy(server, model, prompt) for model in first} == once
    assert first["demo"] != first["a"] != first["b"]


def test_models_lists_them(server, adapters):
    cards = httpx.get(server.url + "/v1/models", timeout=30).json()["data"]
    assert [(c["id"], c["root"], c["parent"]) for c in cards][1:] == [("a", adapters["a"], "demo"), ("b", adapters["b"], "demo")]
    assert cards[0]["id"] == "demo" and cards[0]["parent"] is None


def test_answers_carry_the_adapters_name(server):
    for path, body in (("/v1/completions", {"prompt": "Hello"}),
                       ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hello"}]})):
        assert post(server, path, {"model": "a", "max_tokens": 2, **body}).json()["model"] == "a"
        assert post(server, path, {"max_tokens": 2, **body}).json()["model"] == "demo"
        for stream in (False, True):
            error = post(server, path, {"model": "c", "stream": stream, **body}, 404).json()["error"]
            assert error["message"] == "The model `c` does not exist." and error["param"] == "model"
    assert post(server, "/tokenize", {"model": "a", "prompt": "Hello"}).json()["count"] > 0
    assert post(server, "/tokenize", {"model": "c", "prompt": "Hello"}, 404)


def test_load_change_and_unload(server, adapters, wanted):
    answer = post(server, "/v1/load_lora_adapter", {"lora_name": "x", "lora_path": adapters["a"]})
    assert answer.text == "Success: LoRA adapter 'x' added successfully."
    wait_for_names(server, ["demo", "a", "b", "x"])
    assert greedy(server, "x") == wanted["a"][0]
    again = post(server, "/v1/load_lora_adapter", {"lora_name": "x", "lora_path": adapters["b"]}, 400).json()["error"]
    assert again["message"].startswith("The lora adapter 'x' has already been loaded.")
    assert greedy(server, "x") == wanted["a"][0]
    # prime-rl's route replaces; nothing computed under the old weights is found.
    assert post(server, "/load_lora_adapter", {"lora_name": "x", "lora_path": adapters["b"]}).json() == {"status": "ok"}
    assert greedy(server, "x") == wanted["b"][0]
    assert np.abs(scores(server, "x") - wanted["b"][1]).max() < 2e-3
    post(server, "/v1/load_lora_adapter", {"lora_name": "x", "lora_path": adapters["a"], "load_inplace": True})
    assert greedy(server, "x") == wanted["a"][0]
    assert greedy(server, "b") == wanted["b"][0]
    answer = post(server, "/v1/unload_lora_adapter", {"lora_name": "x"})
    assert answer.text == "Success: LoRA adapter 'x' removed successfully."
    assert ask(server, "x", status=404)["error"]["message"] == "The model `x` does not exist."
    wait_for_names(server, ["demo", "a", "b"])
    gone = post(server, "/v1/unload_lora_adapter", {"lora_name": "x"}, 404).json()["error"]["message"]
    assert gone == "The lora adapter 'x' cannot be found."


class Stream:
    """A greedy stream in a thread."""

    def __init__(self, server, model, count):
        self.tokens, self.error = [], None
        body = {"model": model, "token_ids": PROMPT, "stream": True,
                "sampling_params": {"max_tokens": count, "temperature": 0, "ignore_eos": True}}
        self.thread = threading.Thread(target=self._run, args=(server.url + "/inference/v1/generate", body), daemon=True)
        self.thread.start()

    def _run(self, url, body):
        with httpx.stream("POST", url, json=body, timeout=120) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    event = json.loads(line[6:])
                    self.error = event.get("error", self.error)
                    for choice in event.get("choices", []):
                        self.tokens += choice["token_ids"]

    def wait_for(self, count):
        deadline = time.time() + 60
        while len(self.tokens) < count:
            assert time.time() < deadline and self.thread.is_alive(), (len(self.tokens), self.error)
            time.sleep(0.005)

    def join(self):
        self.thread.join(120)
        assert not self.thread.is_alive()
        return self.tokens


def test_requests_in_flight_go_on_under_new_weights(server, adapters, wanted):
    post(server, "/load_lora_adapter", {"lora_name": "y", "lora_path": adapters["a"]})
    before = greedy(server, "y", count=600)
    stream, bystander = Stream(server, "y", 600), Stream(server, "b", 300)
    stream.wait_for(5)
    post(server, "/load_lora_adapter", {"lora_name": "y", "lora_path": adapters["b"]})
    tokens = stream.join()
    assert stream.error is None and len(tokens) == 600 and tokens[:5] == before[:5]
    if tokens != before:  # the order may have come after the last step
        border = next(i for i, (a, b) in enumerate(zip(tokens, before)) if a != b)
        # A server that has only ever had the new weights goes on in the same way, from some token before the difference.
        prefix = PROMPT + tokens[:border]
        assert greedy(server, "b", prefix, 40) == tokens[border : border + 40]
    assert bystander.join() == greedy(server, "b", count=300)
    post(server, "/v1/unload_lora_adapter", {"lora_name": "y"})


def test_requests_of_an_unloaded_adapter_end(server, adapters):
    post(server, "/load_lora_adapter", {"lora_name": "z", "lora_path": adapters["a"]})
    expected = greedy(server, "b", count=200)
    stream, bystander = Stream(server, "z", 2000), Stream(server, "b", 200)
    stream.wait_for(3)
    post(server, "/v1/unload_lora_adapter", {"lora_name": "z"})
    stream.join()
    assert "'z' was unloaded" in stream.error["message"] and len(stream.tokens) < 2000
    assert bystander.join() == expected


def test_what_does_not_fit_changes_nothing(server, adapters, wanted, tmp_path):
    tensors = read_tensors(MODEL)
    pairs = draw_pairs(tensors, 1)
    module = "model.layers.2.self_attn.q_proj"
    a, b = pairs[module]

    def refused(name, changed, says, status=400, **config):
        folder = write_adapter(tmp_path / name, {**pairs, **changed}, **config)
        for path in ("/v1/load_lora_adapter", "/load_lora_adapter"):
            message = post(server, path, {"lora_name": "n", "lora_path": folder}, status).json()["error"]["message"]
            for part in says:
                assert part in message, message

    expert = "model.layers.0.mlp.experts.3.up_proj"
    refused("expert", {expert: (a, b)}, [expert, "LoRA on experts is not built"])
    refused("shape", {module: (a[:, :-1], b)}, [module, "another model"])
    refused("layer", {"model.layers.6.self_attn.q_proj": (a, b)}, ["has 6 layers", "another model"])
    refused("head", {"lm_head": (a, b)}, ["lm_head"])
    refused("gate", {"model.layers.0.mlp.gate": (a, b)}, ["mlp.gate"])
    refused("dora", {}, ["use_dora"], use_dora=True)
    refused("rank", {module: (np.tile(a, (4, 1)), np.tile(b, (1, 4)))}, ["32", "max_lora_rank 16"], rank_pattern={module: 32})
    for path in ("/v1/load_lora_adapter", "/load_lora_adapter"):
        missing = {"lora_name": "n", "lora_path": str(tmp_path / "none")}
        assert "No adapter found for" in post(server, path, missing, 404).json()["error"]["message"]
        both = post(server, path, {"lora_name": "n"}, 400).json()["error"]["message"]
        assert both == "Both 'lora_name' and 'lora_path' must be provided."
        assert post(server, path, {"lora_name": "demo", "lora_path": adapters["a"]}, 400)
    post(server, "/v1/load_lora_adapter", {"lora_name": "n" * 300, "lora_path": adapters["a"]}, 400)
    post(server, "/v1/unload_lora_adapter", {}, 400)
    assert names(server) == ["demo", "a", "b"]
    assert greedy(server, "a") == wanted["a"][0] and greedy(server) == wanted[""][0]


def test_rank_and_alpha_patterns(server, adapters, tmp_path):
    """rsLoRA, and a module with a rank and an alpha of its own: the same product written in another way."""
    tensors = read_tensors(MODEL)
    pairs = draw_pairs(tensors, 1)
    module = "model.layers.1.self_attn.k_proj"
    a, b = pairs[module]
    pairs[module] = (np.concatenate([a, np.zeros_like(a)]), np.concatenate([b, b], axis=1))
    folder = write_adapter(tmp_path / "pattern", pairs, rank_pattern={"layers.1.self_attn.k_proj": 2 * RANK},
                           alpha_pattern={module: ALPHA / RANK * (2 * RANK) ** 0.5}, lora_alpha=ALPHA / RANK**0.5, use_rslora=True)
    post(server, "/load_lora_adapter", {"lora_name": "p", "lora_path": folder})
    assert np.abs(scores(server, "p") - scores(server, "a")).max() < 1e-4
    post(server, "/v1/unload_lora_adapter", {"lora_name": "p"})


def test_an_update_of_the_model_keeps_the_adapters(server, wanted):
    assert post(server, "/update_weights", {"weight_dir": MODEL}).json()["status"] == "ok"
    assert greedy(server, "a") == wanted["a"][0]
    assert greedy(server) == wanted[""][0]


@pytest.mark.parametrize("how, off", [(["--dtype", "bfloat16"], 0.05), (["--dtype", "bfloat16", "--quantization", "fp8"], 0.3)],
                         ids=["bfloat16", "fp8"])
def test_other_arithmetic(how, off, adapters, wanted):
    """Close to the numbers of the merged checkpoint in f32."""
    running = start(*how, "--lora-modules", "a=" + adapters["a"])
    for name in ("", "a"):
        found = np.abs(scores(running, name or None) - wanted[name][1])
        assert found.mean() < off
    running.stop()


def test_gates(adapters):
    running = start(runtime=False)
    body = {"lora_name": "a", "lora_path": adapters["a"]}
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in post(running, "/v1/load_lora_adapter", body, 404).text
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in post(running, "/v1/unload_lora_adapter", body, 404).text
    assert post(running, "/load_lora_adapter", body).json() == {"status": "ok"}
    assert names(running) == ["demo", "a"]
    for number in range(7):
        post(running, "/load_lora_adapter", {**body, "lora_name": "a%d" % number})
    assert "--max-cpu-loras" in post(running, "/load_lora_adapter", {**body, "lora_name": "more"}, 400).text
    assert post(running, "/load_lora_adapter", {**body, "lora_name": "a3"}).json() == {"status": "ok"}
    running.stop()
    plain = Server([str(BIN), "serve", MODEL, "--port", "0", *SMALL[:-1]])
    assert "--enable-lora" in post(plain, "/load_lora_adapter", body, 400).text
    assert ask(plain, "a", status=404)
    plain.stop()


def test_bad_adapters_at_the_start_are_named(adapters, tmp_path):
    import subprocess

    def says(*flags):
        done = subprocess.run([str(BIN), "serve", MODEL, "--port", "0", *SMALL[:-1], *flags], capture_output=True, text=True, timeout=60)
        assert done.returncode != 0
        return done.stdout + done.stderr

    assert "--lora-modules wants --enable-lora" in says("--lora-modules", "a=" + adapters["a"])
    assert "No adapter found for" in says("--enable-lora", "--lora-modules", "a=%s" % (tmp_path / "none"))
    assert "NAME=PATH" in says("--enable-lora", "--lora-modules", "a")
    assert "given twice" in says("--enable-lora", "--lora-modules", "a=/x", "a=/y")
    assert "max_lora_rank 4" in says("--enable-lora", "--max-lora-rank", "4", "--lora-modules", "a=" + adapters["a"])


GOLDEN = pathlib.Path(os.environ.get("CADRE_GOLDEN", ROOT.parent / "shared/golden")) / "models"
REFERENCE = json.loads((pathlib.Path(__file__).resolve().parent / "lora_reference.json").read_text())


@pytest.mark.parametrize("layout", ["one", "tp2"])
@pytest.mark.parametrize("family", REFERENCE)
def test_equals_peft(family, layout, tmp_path):
    """Tokens and log probabilities that the reference library computed with the same adapter (lora_reference.py)."""
    folder = GOLDEN / family
    if not folder.exists():
        pytest.skip("%s is not there" % folder)
    case = REFERENCE[family]
    pairs = lora_reference.pairs_of(case["modules"], lora_reference.rank_of(case["config"]))
    adapter = write_adapter(tmp_path / "adapter", pairs, **case["config"])
    running = Server([str(BIN), "serve", str(folder), "--skip-tokenizer-init", "--port", "0", *SMALL, *LAYOUTS[layout],
                      "--lora-modules", "adapter=" + adapter])
    logprobs = scores(running, "adapter", lora_reference.PROMPT)
    tokens = greedy(running, "adapter", lora_reference.PROMPT, len(case["greedy"]))
    running.stop()
    assert np.abs(logprobs - np.array(case["prompt_logprobs"])).max() < 1e-3
    assert tokens == case["greedy"]
