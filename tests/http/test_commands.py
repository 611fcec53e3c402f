"""The commands beside `cadre serve`, run as a person runs them, on the demo model."""

import json
import os
import pty
import re
import signal
import subprocess
import time
import xml.etree.ElementTree

import httpx
import pytest

from conftest import BIN, MODEL, ROOT

pytestmark = pytest.mark.model


def cadre(*words, text=None, rc=0, timeout=120):
    done = subprocess.run([str(BIN), *map(str, words)], input=text, capture_output=True, text=True, cwd=ROOT, timeout=timeout)
    assert done.returncode == rc, (done.returncode, done.stdout, done.stderr)
    return done


def one_error(*words, rc, says):
    done = cadre(*words, rc=rc)
    errors = [line for line in done.stderr.splitlines() if re.search(r"\berror\b", line)]
    assert len(errors) == 1 and says in errors[0], done.stderr
    return done


# ---- generate


def test_one_shot_answers_like_the_server(server, client):
    question = "What is 17 + 25?"
    done = cadre("generate", MODEL, "--prompt", question, "--temperature", 0, "--max-tokens", 32)
    chat = client.chat.completions.create(
        model=server.model, messages=[{"role": "user", "content": question}], temperature=0, max_tokens=32
    )
    assert done.stdout == chat.choices[0].message.content + "\n"
    assert re.search(r"\[%d prompt tokens, .* tokens" % chat.usage.prompt_tokens, done.stderr)


def test_raw_and_token_ids_continue_the_prompt(server, client):
    text = "The people of the United States"
    flags = ("--temperature", 0, "--max-tokens", 12, "--ignore-eos")
    raw = cadre("generate", MODEL, "--prompt", text, "--raw", *flags).stdout
    answer = client.completions.create(
        model=server.model, prompt=text, temperature=0, max_tokens=12, extra_body={"ignore_eos": True, "return_token_ids": True}
    )
    assert raw == answer.choices[0].text + "\n"
    ids = json.dumps(answer.choices[0].prompt_token_ids)
    assert cadre("generate", MODEL, "--prompt-token-ids", ids, *flags).stdout == raw
    alone = cadre("generate", MODEL, "--prompt-token-ids", ids, "--skip-tokenizer-init", *flags).stdout
    assert [int(word) for word in alone.split()] == answer.choices[0].token_ids


def test_piped_chat_keeps_and_forgets(server, client):
    first, second = "What is 2 + 3?", "And what is 4 + 5?"
    lines = "%s\n\n%s\n/reset\n%s\n/exit\nnever asked\n" % (first, second, second)
    out = cadre("generate", MODEL, "--temperature", 0, "--max-tokens", 24, text=lines)

    def ask(*messages):
        return client.chat.completions.create(
            model=server.model, messages=list(messages), temperature=0, max_tokens=24
        ).choices[0].message.content

    user = lambda text: {"role": "user", "content": text}
    answer = ask(user(first))
    kept = ask(user(first), {"role": "assistant", "content": answer}, user(second))
    assert out.stdout == "%s\n%s\n%s\n" % (answer, kept, ask(user(second)))
    assert len(re.findall(r"prompt tokens", out.stderr)) == 3


def test_system_message(server, client):
    out = cadre("generate", MODEL, "--temperature", 0, "--max-tokens", 8, text="/system Be brief.\nHello")
    flag = cadre("generate", MODEL, "--temperature", 0, "--max-tokens", 8, "--system", "Be brief.", "--prompt", "Hello")
    chat = client.chat.completions.create(
        model=server.model, temperature=0, max_tokens=8,
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
    )
    assert out.stdout == flag.stdout == chat.choices[0].message.content + "\n"


def test_seeded_sampling_repeats():
    flags = ("generate", MODEL, "--raw", "--prompt", "We the people", "--temperature", 1.5, "--max-tokens", 20, "--ignore-eos")
    first = cadre(*flags, "--seed", 5).stdout
    assert cadre(*flags, "--seed", 5).stdout == first
    assert cadre(*flags, "--seed", 6).stdout != first


def test_generate_refuses():
    one_error("generate", MODEL, "--prompt", "x", "--prompt-token-ids", "[1]", rc=2, says="--prompt")
    one_error("generate", MODEL, "--prompt", "x", "--raw", "--system", "y", rc=2, says="--system")
    one_error("generate", MODEL, "--prompt", "x", "--skip-tokenizer-init", rc=2, says="--prompt-token-ids")
    one_error("generate", MODEL, "--prompt-token-ids", "[99999999]", rc=2, says="vocabulary")
    one_error("generate", MODEL, "--prompt", "x " * 50000, rc=2, says="maximum context length")
    one_error("generate", "/no/such/model", "--prompt", "x", rc=3, says="/no/such/model")
    one_error("generate", MODEL, "--prompt", "x", "--temperature", "-1", rc=2, says="--temperature")


class Terminal:
    """`cadre generate` on a terminal of its own."""

    def __init__(self, *flags):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            os.execv(str(BIN), [str(BIN), "generate", MODEL, *map(str, flags)])
        self.seen = ""

    def wait_for(self, text, seconds=60):
        until = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < until, self.seen
            try:
                self.seen += os.read(self.fd, 65536).decode(errors="replace")
            except OSError:
                break
        assert text in self.seen, self.seen
        self.seen = self.seen[self.seen.index(text) + len(text) :]

    def type(self, text):
        os.write(self.fd, text.encode())

    def status(self):
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_ctrl_c_stops_the_answer_and_ctrl_d_ends():
    terminal = Terminal("--temperature", 0, "--ignore-eos", "--max-tokens", 4000)
    terminal.wait_for("> ")
    terminal.type("Tell me a long story\n")
    terminal.wait_for("\r\n")  # the echo
    terminal.wait_for(" ")  # the answer has begun: before it, Ctrl-C means something else
    terminal.type("\x03")
    terminal.wait_for("interrupted")
    terminal.wait_for("> ")
    terminal.type("/help\n")
    terminal.wait_for("/reset")
    terminal.wait_for("> ")
    terminal.type("\x03")
    terminal.wait_for("Ctrl-D")
    terminal.type("\x04")
    terminal.wait_for("\r\n")
    assert terminal.status() == 0


def test_ctrl_c_ends_one_shot():
    process = subprocess.Popen(
        [str(BIN), "generate", MODEL, "--prompt", "x", "--ignore-eos", "--max-tokens", "4000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
    )
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err


# ---- inspect


def test_inspect_json_is_the_checkpoint():
    seen = json.loads(cadre("inspect", MODEL, "--json", "--tensors").stdout)
    config = json.loads((ROOT / MODEL / "config.json").read_text())
    assert seen["architecture"] == config["architectures"][0]
    for ours, theirs in {"num_layers": "num_hidden_layers", "hidden_size": "hidden_size", "vocab_size": "vocab_size"}.items():
        assert seen[ours] == config[theirs]
    assert seen["attention"]["num_heads"] == config["num_attention_heads"]
    total = 0
    with open(ROOT / MODEL / "model.safetensors", "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    shapes = {name: tensor["shape"] for name, tensor in header.items() if name != "__metadata__"}
    assert {tensor["name"]: tensor["shape"] for tensor in seen["tensors"]} == shapes
    for shape in shapes.values():
        size = 1
        for n in shape:
            size *= n
        total += size
    assert sum(group["parameters"] for group in seen["tensor_groups"].values()) == total
    assert "other" not in seen["tensor_groups"]
    assert seen["memory"]["fits"] and seen["memory"]["num_kv_blocks"] > 0


def test_inspect_shares_experts_over_ranks():
    whole = json.loads(cadre("inspect", MODEL, "--json").stdout)
    seen = json.loads(cadre("inspect", MODEL, "--json", "-tp", 2, "-dp", 3, "--enable-expert-parallel").stdout)
    experts = [expert for rank in seen["ranks"] for expert in rank["experts_of_first_layer"]]
    assert len(seen["ranks"]) == 6 and sorted(experts) == list(range(whole["num_experts"]))
    assert sum(rank["expert_bytes"] for rank in seen["ranks"]) == whole["ranks"][0]["expert_bytes"]
    text = cadre("inspect", MODEL, "--tensors").stdout
    assert "memory plan" in text and "lm_head" not in text and "model.embed_tokens.weight" in text


def test_inspect_shows_what_does_not_fit():
    done = one_error("inspect", MODEL, "--kv-cache-memory-bytes", 1000, "--json", rc=6, says="KV cache")
    assert json.loads(done.stdout)["memory"]["fits"] is False
    one_error("inspect", MODEL, "-tp", 3, rc=2, says="--tensor-parallel-size 3")
    one_error("inspect", MODEL, "--tensor", rc=2, says="--tensor")


# ---- bench


VLLM_KEYS = """duration completed failed total_input_tokens total_output_tokens request_throughput output_throughput
total_token_throughput mean_ttft_ms median_ttft_ms std_ttft_ms p99_ttft_ms mean_tpot_ms median_tpot_ms std_tpot_ms
p99_tpot_ms mean_itl_ms median_itl_ms std_itl_ms p99_itl_ms model_id tokenizer_id num_prompts request_rate burstiness
max_concurrency date backend label""".split()


def bench(server, *flags, **keywords):
    return cadre("bench", "serve", "--base-url", server.url, *flags, **keywords)


def test_bench_serve(server, tmp_path):
    flags = ["--num-prompts", 12, "--random-input-len", 20, "--random-output-len", 8, "--random-range-ratio", 0.5,
             "--random-prefix-len", 4, "--max-concurrency", 3, "--ignore-eos", "--num-warmups", 2]
    done = bench(server, *flags, "--save-result", "--save-detailed", "--result-dir", tmp_path / "new", "--label", "x",
                 "--metadata", "version=7", "tp=1", "--goodput", "ttft:100000", "--metric-percentiles", "50,99",
                 "--percentile-metrics", "ttft,tpot,itl,e2el", "--json", tmp_path / "ours.json")
    for row in ("Serving Benchmark Result", "Successful requests:                     12", "Mean TTFT (ms):", "P50 E2EL (ms):"):
        assert row in done.stdout
    (file,) = (tmp_path / "new").iterdir()
    assert file.name.startswith("x-infqps-concurrency3-demo-")
    result = json.loads(file.read_text())
    assert not set(VLLM_KEYS) - set(result)
    assert result["version"] == "7" and result["request_rate"] == "inf" and result["label"] == "x"
    assert result["completed"] == 12 and result["failed"] == 0 and result["max_concurrent_requests"] >= 3
    assert all(14 <= n <= 34 for n in result["input_lens"]) and all(4 <= n <= 12 for n in result["output_lens"])
    assert sum(result["input_lens"]) == result["total_input_tokens"]
    assert sum(result["output_lens"]) == result["total_output_tokens"]
    assert len(set(result["input_lens"])) > 3 and any(result["generated_texts"])
    assert result["request_goodput"] == pytest.approx(result["request_throughput"])
    ours = json.loads((tmp_path / "ours.json").read_text())
    assert ours["decode_tokens_per_second"] == pytest.approx(ours["output_throughput"])
    for key in ("prefill_tokens_per_second", "decode_floor_tokens_per_second", "decode_share_of_floor", "machine"):
        assert ours[key]


def test_bench_serve_chat_rate_and_append(server, tmp_path):
    flags = ("--backend", "openai-chat", "--num-prompts", 6, "--input-len", 10, "--output-len", 4, "--request-rate", 20,
             "--burstiness", 2, "--result-filename", tmp_path / "r.json", "--append-result", "--header", "X-Test=1",
             "--extra-body", '{"min_tokens": 4}', "--temperature", 0.5, "--logprobs", 1)
    began = time.monotonic()
    bench(server, *flags)
    assert time.monotonic() - began >= 0.29  # the last is due after 6 / 20 s
    bench(server, *flags, "--no-stream")
    results = [json.loads(line) for line in (tmp_path / "r.json").read_text().splitlines()]
    assert [r["completed"] for r in results] == [6, 6]
    assert [r["total_output_tokens"] for r in results] == [24, 24]
    assert "itls" not in results[0] and results[0]["request_rate"] == 20


def test_bench_serve_mixes_long_prompts_in(server, tmp_path):
    done = bench(server, "--num-prompts", 12, "--random-input-len", 10, "--random-output-len", 5, "--ignore-eos",
                 "--long-prompt-share", 0.25, "--long-input-len", 300, "--long-output-len", 2, "--save-result", "--save-detailed",
                 "--result-filename", tmp_path / "r.json", "--svg", tmp_path / "r.svg")
    for row in ("chats: between tokens, P99 (ms)", "long prompts: first token, P50 (ms)", "this server"):
        assert row in done.stdout, done.stdout
    result = json.loads((tmp_path / "r.json").read_text())
    assert sorted(result["input_lens"]) == [10] * 9 + [300] * 3 and sorted(result["output_lens"]) == [2] * 3 + [5] * 9
    assert result["chats"]["completed"] == 9 and result["long_prompts"]["completed"] == 3
    assert result["long_prompts"]["total_input_tokens"] == 900
    svg = xml.etree.ElementTree.parse(tmp_path / "r.svg").getroot()
    words = "".join(svg.itertext())
    assert "Time between tokens" in words and "25 % of them 300 in, 2 out" in words


def test_bench_serve_compares_with_a_pair(tmp_path):
    flags = ["bench", "serve", "--pd", "--model", MODEL, "--num-prompts", 8, "--num-warmups", 2, "--max-concurrency", 4,
             "--random-input-len", 20, "--random-output-len", 8, "--ignore-eos", "--long-prompt-share", 0.25, "--long-input-len", 200]
    if len(os.sched_getaffinity(0)) < 2:
        return one_error(*flags, rc=2, says="--prefill-cores")
    done = cadre(*flags, "--goodput", "ttft:1000000", "--serve-args=--kv-cache-memory-bytes 16M --dtype float32", "--json", tmp_path / "c.json", "--svg",
                 tmp_path / "c.svg", timeout=240)
    assert "one server" in done.stdout and "pair" in done.stdout and "chats: between tokens, P99 (ms)" in done.stdout
    result = json.loads((tmp_path / "c.json").read_text())
    one, pair = result["setups"]
    assert [one["completed"], pair["completed"], pair["kv_recomputed_requests"]] == [8, 8, 0]
    assert one["request_goodput"] == pytest.approx(one["request_throughput"])
    assert one["total_output_tokens"] == pair["total_output_tokens"] and one["total_input_tokens"] == pair["total_input_tokens"]
    assert len(one["commands"]) == 1 and len(pair["commands"]) == 3
    cpus = lambda line: re.search(r"VLLM_CPU_OMP_THREADS_BIND=(\S+)", line).group(1)
    assert cpus(one["commands"][0]) == result["cpus"]
    assert not set(cpus(pair["commands"][0]).split(",")) & set(cpus(pair["commands"][1]).split(","))
    assert xml.etree.ElementTree.parse(tmp_path / "c.svg").getroot().tag.endswith("svg")
    # What they started is gone.
    for command in one["commands"] + pair["commands"]:
        port = re.search(r"--port (\d+)", command).group(1)
        with pytest.raises(httpx.ConnectError):
            httpx.get("http://127.0.0.1:%s/health" % port)


def test_bench_serve_pair_refuses(server):
    one_error("bench", "serve", "--pd", rc=2, says="--model")
    one_error("bench", "serve", "--pd", "--model", MODEL, "--base-url", server.url, rc=2, says="--base-url")
    for flags in (["--port", 8001], ["--save-result"], ["--label", "x"], ["--metadata", "a=b"]):
        one_error("bench", "serve", "--pd", "--model", MODEL, *flags, rc=2, says=flags[0])
    one_error("bench", "serve", "--pd", "--model", MODEL, "--prefill-cores", 4096, rc=2, says="--prefill-cores")
    one_error("bench", "serve", "--base-url", server.url, "--serve-args=-x", rc=2, says="add --pd")
    done = cadre("bench", "serve", "--pd", "--model", MODEL, "--serve-args=--no-such-flag", rc=7)
    assert "the server exited with code 2; its last lines" in done.stderr and "unknown flag --no-such-flag" in done.stderr


def test_bench_serve_is_reproducible(server, tmp_path):
    texts = []
    for run in range(2):
        path = tmp_path / ("%d.json" % run)
        bench(server, "--num-prompts", 3, "--input-len", 8, "--output-len", 6, "--temperature", 0, "--save-detailed",
              "--save-result", "--result-filename", path, "--seed", 3, "--skip-tokenizer-init")
        texts.append(json.loads(path.read_text())["generated_texts"])
    assert texts[0] == texts[1] and any(texts[0])


def test_bench_serve_failures(server):
    done = bench(server, "--num-prompts", 8, "--extra-body", '{"max_tokens": -1}', rc=7)
    assert "Failed requests:                         8" in done.stdout
    assert done.stderr.count("HTTP status 400") == 5 and "all 8 requests failed" in done.stderr
    partly = bench(server, "--num-prompts", 20, "--input-len", 4090, "--output-len", 6, "--random-range-ratio", 0.001,
                   "--ignore-eos", "--seed", 1, timeout=240)
    failed = int(re.search(r"Failed requests: +(\d+)", partly.stdout).group(1))
    assert 0 < failed < 20 and "maximum context length" in partly.stderr


def test_bench_serve_refuses(server, tmp_path):
    url = ("bench", "serve", "--base-url", server.url)
    one_error("bench", "serve", "--port", 1, rc=7, says="no server answers")
    one_error("bench", "serve", "--base-url", "localhost:8000", rc=2, says="--base-url")
    one_error(*url, "--model", "another", rc=3, says="does not serve 'another'")
    one_error(*url, "--tokenizer", "/no/such", rc=3, says="--tokenizer")
    one_error(*url, "--endpoint", "/v1/embeddings", rc=2, says="--endpoint")
    one_error(*url, "--percentile-metrics", "ttft,foo", rc=2, says="foo")
    one_error(*url, "--metric-percentiles", "101", rc=2, says="--metric-percentiles")
    one_error(*url, "--goodput", "itl:3", rc=2, says="--goodput")
    one_error(*url, "--metadata", "novalue", rc=2, says="--metadata")
    one_error(*url, "--header", "novalue", rc=2, says="--header")
    one_error(*url, "--extra-body", "[1]", rc=2, says="--extra-body")
    one_error(*url, "--dataset-name", "sharegpt", rc=5, says="--dataset-name")
    one_error(*url, "--json", "/no/such/folder/x.json", rc=2, says="--json")
    one_error(*url, "--num-prompts", 10**15, rc=2, says="at most")
    one_error(*url, "--backend", "openai-chat", "--skip-tokenizer-init", rc=2, says="--skip-tokenizer-init")


def test_bench_latency(tmp_path):
    done = cadre("bench", "latency", MODEL, "--input-len", 24, "--output-len", 6, "--batch-size", 3, "--num-iters", 4,
                 "--num-iters-warmup", 1, "--json", tmp_path / "c.json", "--output-json", tmp_path / "v.json")
    assert "Avg latency:" in done.stdout and "99% percentile latency:" in done.stdout and "prefill" in done.stdout
    theirs = json.loads((tmp_path / "v.json").read_text())
    assert set(theirs) == {"avg_latency", "latencies", "percentiles"} and len(theirs["latencies"]) == 4
    assert list(theirs["percentiles"]) == ["10", "25", "50", "75", "90", "99"]
    ours = json.loads((tmp_path / "c.json").read_text())
    for phase in ("prefill", "decode"):
        assert ours[phase + "_tokens_per_second"] > 0 and ours[phase + "_floor_tokens_per_second"] > 0
        share = ours[phase + "_tokens_per_second"] / ours[phase + "_floor_tokens_per_second"]
        assert ours[phase + "_share_of_floor"] == pytest.approx(share)
    assert ours["machine"]["read_bytes_per_second"] > 1e8 and ours["floor_latency"] > 0
    assert 24 * 3 / ours["prefill_tokens_per_second"] < max(theirs["latencies"])


def test_bench_throughput(tmp_path):
    done = cadre("bench", "throughput", MODEL, "--num-prompts", 10, "--input-len", 16, "--output-len", 5, "--n", 2,
                 "--num-warmups", 2, "--max-num-queued-reqs", 3, "--disable-detokenize", "--json", tmp_path / "c.json",
                 "--output-json", tmp_path / "v.json")
    assert "Total num output tokens:  100" in done.stdout and "Total num prompt tokens:  160" in done.stdout
    theirs = json.loads((tmp_path / "v.json").read_text())
    assert theirs["num_requests"] == 10 and theirs["total_num_tokens"] == 260
    ours = json.loads((tmp_path / "c.json").read_text())
    assert ours["decode_tokens_per_second"] > 0 and ours["prefill_tokens_per_second"] > 0


def test_bench_step(tmp_path):
    done = cadre("bench", "step", MODEL, "--batches", "2,5", "--num-iters", 2, "--input-len", 12, "--output-len", 4, "--threads", 1,
                 "--all2all-backend", "deepep_low_latency", "--json", tmp_path / "c.json", "--kv-cache-memory-bytes", "32M")
    assert "2 ranks x 1 threads beside one process with 2" in done.stdout
    assert "exchange: prefill deepep_low_latency, decode deepep_low_latency" in done.stdout
    ours = json.loads((tmp_path / "c.json").read_text())
    assert [(s["batch"], s["phase"]) for s in ours["steps"]] == [(2, "decode"), (2, "prefill"), (5, "decode"), (5, "prefill")]
    for step in ours["steps"]:
        assert step["one_share_of_floor"] == pytest.approx(step["one_floor_seconds"] / step["one_seconds"])
        # Ranks read the dense weights once each, so their floor is not below that of one process.
        assert step["ranks_floor_seconds"] >= step["one_floor_seconds"] > 0 and len(step["ratios_of_times"]) == 2
    one_error("bench", "step", MODEL, "-dp", 2, rc=2, says="--ranks")
    one_error("bench", "step", MODEL, "--batches", "4,x", rc=2, says="--batches")
    one_error("bench", "step", MODEL, "--input-len", 10**15, rc=2, says="at most")
    one_error("bench", "step", MODEL, "--all2all-backend", "moonep", rc=5, says="moonep")


def test_bench_a2a_counts_without_measuring(tmp_path):
    done = cadre("bench", "a2a", "--count-only", "--rows", "4,8", "--hosts", "1,2", "--hidden", 64, "--json", tmp_path / "c.json")
    tables = json.loads((tmp_path / "c.json").read_text())["tables"]
    assert [table["rows"] for table in tables] == [4, 8] and len(tables[0]["counts"]) == 14
    for small, large in zip(tables[0]["counts"], tables[1]["counts"]):
        assert 1.5 < large["formula_bytes"] / small["formula_bytes"] < 2.5
    assert "| 2 | 16 | `allgather_reducescatter` |" in done.stdout
    one_error("bench", "a2a", "--count-only", "--hosts", "0", rc=2, says="--hosts")


# ---- doctor


def test_doctor():
    done = cadre("doctor", "--no-measure")
    for word in ("instruction sets", "huge pages", "back ends", "GPUs", "stand in the way"):
        assert word in done.stdout
    found = json.loads(cadre("doctor", "--json").stdout)
    assert found["blocks"] is False
    speed = [f for f in found["findings"] if f["name"] == "speed"]
    assert speed[0]["data"]["read_bytes_per_second"] > 1e8
    one_error("doctor", "--peer", "x", "--listen", "29999", rc=2, says="--listen")
    one_error("doctor", "somewhere", rc=2, says="unexpected word")


def test_bench_refuses(tmp_path):
    one_error("bench", "latency", MODEL, "--input-len", 5000, "--num-iters", 1, rc=2, says="5000")
    one_error("bench", "latency", MODEL, "--json", "/no/such/folder/x.json", rc=2, says="--json")
    one_error("bench", "throughput", MODEL, "--dataset-name", "sonnet", rc=5, says="--dataset-name")
    for huge in (("--num-prompts", 10**15), ("--input-len", 10**15), ("--n", 10**15)):
        one_error("bench", "throughput", MODEL, *huge, rc=2, says="at most")
    one_error("bench", "latency", MODEL, "--batch-size", 10**15, rc=2, says="at most")
    one_error("bench", "latency", MODEL, "--use-beam-search", rc=5, says="--use-beam-search")


# ---- plan

CONFIGS = ROOT / "examples/configs"


def test_plan_shows_memory_layout_and_lines():
    out = cadre("plan", CONFIGS / "DeepSeek-V3", "--hosts", 4, "--memory-per-host", "512G", "--cores-per-host", 128).stdout
    assert "DeepseekV3ForCausalLM, 671.0 G parameters" in out
    assert re.search(r"^  experts +674 GB +169 GB +21\.1 GB", out, re.M), out
    assert re.search(r"^  KV of one request, 8192 tokens +0\.58 GB", out, re.M), out
    assert "EP = TP x DP = 32" in out
    lines = re.findall(r"^cadre serve .*$", out, re.M)
    assert len(lines) == 4 and all("--headless" in line for line in lines[1:]) and "--headless" not in lines[0]
    assert "memory plan" in out  # the table that host 0 will print


def test_plan_in_json_adds_up():
    done = cadre("plan", CONFIGS / "Qwen3-30B-A3B/config.json", "--hosts", 2, "--memory-per-host", "64G", "--json")
    plan = json.loads(done.stdout)
    memory, layout = plan["memory"], plan["layout"]
    assert memory["fits"] and plan["remedies"] == []
    ranks = memory["ranks_per_host"]
    of_ranks = sum(memory[key] for key in ("expert_bytes", "spare_bytes", "buffer_bytes", "exchange_bytes", "kv_bytes"))
    assert memory["host_bytes"] == memory["dense_bytes"] * memory["dense_copies"] + ranks * of_ranks
    assert memory["host_bytes"] <= memory["host_bytes_allowed"] <= memory["host_bytes_available"] == 64 << 30
    assert layout["tensor_parallel_size"] * layout["data_parallel_size"] == 2 * ranks == layout["expert_parallel_size"]
    assert (128 + layout["num_redundant_experts"]) % layout["expert_parallel_size"] == 0
    assert len(plan["launch"]) == 2


def test_plan_that_does_not_fit_says_what_helps():
    done = cadre("plan", CONFIGS / "DeepSeek-V3", "--memory-per-host", "1T", "--hf-overrides", '{"quantization_config":null}', rc=6)
    assert "it does not fit" in done.stdout
    for flag in ("--quantization fp8", "--hosts ", "--max-model-len", "--memory-per-host"):
        assert re.search(r"^  %s.* \S" % re.escape(flag), done.stdout, re.M), flag
    assert "cadre serve" not in done.stdout


def test_plan_says_what_a_start_says(server):
    """The same table, to the byte that is shown, as the running server printed before it read the weights."""
    out = cadre("plan", MODEL, "--ranks-per-host", 1).stdout
    table = [row.rstrip() for row in out[out.index("memory plan"):].rstrip().splitlines()]
    started = [line.rstrip() for line in "".join(server.lines).splitlines()]
    assert len(table) > 3 and all(any(line.endswith(row) for line in started) for row in table), (table, started)


def test_plan_answers_wrong_words():
    mixtral = CONFIGS / "Mixtral-8x7B"
    one_error("plan", "/no/such/model", "--memory-per-host", "1T", rc=3, says="/no/such/model")
    one_error("plan", mixtral, "--hosts", 0, rc=2, says="--hosts must be at least 1")
    one_error("plan", mixtral, "--target", "speed", rc=2, says="throughput")
    one_error("plan", mixtral, "--memory-per-host", "lots", rc=2, says="--memory-per-host")
    one_error("plan", mixtral, "--headless", rc=2, says="leave it out")
    one_error("plan", mixtral, "--memory-per-host", "1", rc=6, says="--gpu-memory-utilization")
    one_error("plan", rc=2, says="no model")
