"""LoRA adapters where prefill and decode are two servers: keys and values are taken over from the same adapter with the same
content alone. The truth is one server with the same adapters, in float32."""

import concurrent.futures
import re
import uuid

import httpx
import pytest

from conftest import BIN, MODEL
from ports import free_port
from test_disaggregated import (ASK, alone, ask_decode, ask_prefill, config, counter, free, post, router_before, serve, text, transfers,
                                until)
from test_lora import adapters, draw_pairs, read_tensors, write_adapter  # noqa: F401
from test_pair_failures import WAYS, ids, recomputed, wire_to

pytestmark = pytest.mark.skipif(not BIN.exists(), reason="%s is not built" % BIN)

NAMES = ["m", "a", "b"]  # the model alone, and two adapters


def lora(folders, **more):
    """Flags of a server with adapters; `more`: other folders."""
    return ["--enable-lora", "--lora-modules", *("%s=%s" % pair for pair in {**folders, **more}.items())]


@pytest.fixture(scope="module")
def one(adapters):  # noqa: F811
    with serve(*lora(adapters)) as server:
        yield server


@pytest.fixture(scope="module")
def prefill(adapters):  # noqa: F811
    with serve(*config("kv_producer", kv_connector_extra_config={"kv_lease_duration": 5}), *lora(adapters)) as server:
        yield server


@pytest.fixture(scope="module")
def decode(adapters):  # noqa: F811
    with serve(*config("kv_consumer"), *lora(adapters)) as server:
        yield server


def fetched(server):
    return counter(server, "cadre:kv_fetched_tokens_total")


def said(server):
    return "".join(server.lines)


def replace(server, name, folder):
    answer = httpx.post(server.url + "/load_lora_adapter", json={"lora_name": name, "lora_path": folder}, timeout=60)
    assert answer.status_code == 200, answer.text


def test_answers_are_those_of_one_server(one, prefill, decode):
    for length in (1, 17, 100):
        prompt = [(length * 31 + i * 17) % 500 + 3 for i in range(length)]
        answers = set()
        for turn in range(2):  # the same prompt under all names; in the second turn decode has its whole blocks
            for name in NAMES:
                before = fetched(decode)
                answer = ask_decode(decode, ask_prefill(prefill, prompt=prompt, model=name), model=name)
                assert text(answer) == text(alone(one, prompt=prompt, model=name)), (length, name)
                assert answer["model"] == name
                assert fetched(decode) - before == (length - 1 if turn == 0 else (length - 1) % 16), (length, name)
                answers.add(text(answer))
        assert len(answers) == 3
    assert recomputed(decode) == 0
    until(lambda: free(prefill) and free(decode))


def pushed(p, d, prompt, model):
    """Both sides are asked at once, for the same model."""
    headers, where = {"X-Request-Id": str(uuid.uuid4())}, ask_prefill(p)
    there = {"do_remote_prefill": True, "push": True, "remote_host": where["remote_host"], "remote_port": where["remote_port"]}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(post, d, headers=headers, prompt=prompt, model=model, kv_transfer_params=there, max_tokens=24,
                             ignore_eos=True)
        post(p, headers=headers, prompt=prompt, model=model, max_tokens=1, kv_transfer_params={"do_remote_decode": True, "push": True})
        return answer.result()


def test_both_sides_asked_at_once(one, prefill, decode):
    for name in NAMES:
        prompt = [(i * 37 + 5) % 500 + 3 for i in range(333)]
        before = fetched(decode)
        assert text(pushed(prefill, decode, prompt, name)) == text(alone(one, prompt=prompt, model=name)), name
        assert fetched(decode) - before == len(prompt) - 1
    assert recomputed(decode) == 0


@pytest.mark.parametrize("there, here", [(["-tp", "2"], []), (["-dp", "2", "-ep"], ["-tp", "2", "--block-size", "32"])])
def test_other_layouts_of_ranks_on_the_two_sides(one, adapters, there, here):  # noqa: F811
    with serve(*config(), *lora(adapters), *there) as p, serve(*config(), *lora(adapters), *here) as d:
        for k, name in enumerate(NAMES + ["a"]):
            prompt = [(k * 57 + i * 7) % 500 + 3 for i in range(40 + 33 * k)]
            assert text(ask_decode(d, ask_prefill(p, prompt=prompt, model=name), model=name)) == \
                text(alone(one, prompt=prompt, model=name)), name
        assert recomputed(d) == 0, said(d)
        assert fetched(d) > 0


def test_pairs_that_meet_by_the_request_id(one, adapters):  # noqa: F811
    kv = free_port(), free_port()
    with serve(*config("kv_producer", "P2pNcclConnector", kv_ip="127.0.0.1", kv_port=str(kv[0])), *lora(adapters)) as p, \
            serve(*config("kv_consumer", "P2pNcclConnector", kv_ip="127.0.0.1", kv_port=str(kv[1])), *lora(adapters)) as d:
        prompt = [i * 29 % 500 + 3 for i in range(70)]
        headers = {"X-Request-Id": "___prefill_addr_127.0.0.1:%d___decode_addr_127.0.0.1:%d_%s" % (*kv, uuid.uuid4().hex)}
        for name in NAMES:  # under one id, which each name may have
            post(p, prompt=prompt, model=name, max_tokens=1, headers=headers)
        for name in NAMES:
            before = fetched(d)
            answer = post(d, prompt=prompt, model=name, max_tokens=24, ignore_eos=True, headers=headers)
            assert text(answer) == text(alone(one, prompt=prompt, model=name)), name
            assert fetched(d) - before == 69


def test_the_next_turn_comes_back(one, adapters):  # noqa: F811
    flags = [*lora(adapters), "--no-enable-prefix-caching"]
    with serve(*config(kv_connector_extra_config={"bidirectional": True}), *flags) as second, serve(*config(), *flags) as first:
        prompt = [i * 11 % 500 + 3 for i in range(40)]
        answer = ask_decode(second, ask_prefill(first, prompt=prompt, model="a"), model="a", return_token_ids=True)
        turn = prompt + answer["choices"][0]["token_ids"] + [i * 3 % 500 + 3 for i in range(30)]
        before = fetched(first)
        there = post(first, prompt=turn, model="a", max_tokens=1, kv_transfer_params=answer["kv_transfer_params"])
        assert fetched(first) - before == 40 + 24 - 1
        assert text(ask_decode(second, there["kv_transfer_params"], model="a")) == text(alone(one, prompt=turn, model="a"))


@pytest.mark.parametrize("mode", WAYS)
def test_the_router_in_front(one, prefill, decode, mode):
    with router_before(prefill, decode, "--kv-transfer-mode", mode) as router:
        asked = [([(k * 59 + i * 7 + len(mode)) % 500 + 3 for i in range(9 + 41 * k)], NAMES[k % 3]) for k in range(6)]
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            got = list(pool.map(lambda one_of: text(alone(router, prompt=one_of[0], model=one_of[1])), asked))
        assert got == [text(alone(one, prompt=prompt, model=name)) for prompt, name in asked]
        assert transfers(router, mode) == len(asked) and recomputed(decode) == 0
        answer = httpx.post(router.url + "/v1/completions", json={"model": "c", "prompt": "x"}, timeout=60)
        assert answer.status_code == 404 and "The model `c` does not exist." in answer.text
        # Both sides are told of an adapter that comes later.
        loaded = httpx.post(router.url + "/load_lora_adapter", timeout=60,
                            json={"lora_name": "late" + mode, "lora_path": httpx.get(one.url + "/v1/models").json()["data"][1]["root"]})
        assert loaded.status_code == 200, loaded.text
        prompt = ids(70, salt=len(mode) + WAYS.index(mode))
        assert text(alone(router, prompt=prompt, model="late" + mode)) == text(alone(one, prompt=prompt, model="a"))
        assert transfers(router, mode) >= len(asked) + 1 and recomputed(decode) == 0


# ---- as it should not be


def test_an_adapter_that_decode_does_not_have(prefill, one, adapters):  # noqa: F811
    with serve(*config("kv_consumer"), *lora({"b": adapters["b"]})) as d:
        params = ask_prefill(prefill, model="a")
        answer = post(d, prompt="x", model="a", kv_transfer_params=params, status=404)
        assert answer["error"]["message"] == "The model `a` does not exist."
        until(lambda: free(prefill), 15)  # with the lease
    post(prefill, prompt="x", model="c", max_tokens=1, kv_transfer_params=ASK, status=404)


def test_decode_without_adapters_at_all(one, prefill):
    with serve(*config("kv_consumer")) as d:
        prompt = ids(60, salt=3)
        assert text(ask_decode(d, ask_prefill(prefill, prompt=prompt))) == text(alone(one, prompt=prompt))
        assert fetched(d) == 59


@pytest.mark.parametrize("way", WAYS)
def test_another_content_under_the_same_name(one, prefill, adapters, way):  # noqa: F811
    """Decode computes the prompt with its own, and says why."""
    with serve(*config("kv_consumer"), *lora(adapters, a=adapters["b"])) as d:
        prompt = ids(90, salt=4)
        if way == "pull":
            answer = ask_decode(d, ask_prefill(prefill, prompt=prompt, model="a"), model="a")
        else:
            answer = pushed(prefill, d, prompt, "a")
        assert text(answer) == text(alone(one, prompt=prompt, model="b"))
        assert fetched(d) == 0 and recomputed(d) == 1
        a = r"LoRA adapter 'a' \([0-9a-f]{16}\)"
        assert re.search(r"fetching 89 tokens .* failed after 0: its keys and values are of %s, the target wants those of %s; "
                         "the rest is computed here" % (a, a), said(d)), said(d)[-1500:]
        until(lambda: free(prefill), 15)


def test_other_names_on_the_two_sides(one, prefill, decode):
    before = recomputed(decode)
    for k, (there, here) in enumerate((("a", "m"), ("m", "a"), ("a", "b"))):
        prompt = ids(80, salt=50 + k)
        assert text(ask_decode(decode, ask_prefill(prefill, prompt=prompt, model=there), model=here)) == \
            text(alone(one, prompt=prompt, model=here))
        assert recomputed(decode) == before + k + 1


def test_the_policy_fail_gives_the_error(prefill, adapters):  # noqa: F811
    with serve(*config("kv_consumer", kv_load_failure_policy="fail"), *lora(adapters, a=adapters["b"])) as d:
        answer = post(d, prompt="x", model="a", kv_transfer_params=ask_prefill(prefill, model="a"), status=500)
        assert "its keys and values are of LoRA adapter 'a'" in answer["error"]["message"]
        until(lambda: free(d))


def test_the_same_content_from_another_file(one, prefill, adapters, tmp_path):  # noqa: F811
    """What counts is what the adapter does, not how it was written."""
    pairs = draw_pairs(read_tensors(MODEL), 1)
    again = write_adapter(tmp_path / "again", dict(reversed(pairs.items())), base_model_name_or_path="somewhere/else")
    with serve(*config("kv_consumer"), *lora(adapters, a=again)) as d:
        prompt = ids(70, salt=6)
        assert text(ask_decode(d, ask_prefill(prefill, prompt=prompt, model="a"), model="a")) == text(alone(one, prompt=prompt, model="a"))
        assert fetched(d) == 69 and recomputed(d) == 0


def test_an_adapter_that_is_replaced(one, adapters):  # noqa: F811
    with serve(*config("kv_producer"), *lora(adapters, x=adapters["a"])) as p, \
            serve(*config("kv_consumer"), *lora(adapters, x=adapters["a"])) as d:
        def pair(salt, before_decode=None):
            prompt = ids(80, salt=salt)
            params = ask_prefill(p, prompt=prompt, model="x")
            if before_decode:
                before_decode()
            counts = recomputed(d), fetched(d)
            answer = text(ask_decode(d, params, model="x"))
            said_by = {name: text(alone(one, prompt=prompt, model=name)) for name in "ab"}
            return [name for name in "ab" if said_by[name] == answer], recomputed(d) - counts[0], fetched(d) - counts[1]

        assert pair(61) == (["a"], 0, 79)
        # What prefill holds is of the old one, which decode still has.
        assert pair(62, lambda: replace(p, "x", adapters["b"])) == (["a"], 0, 79)
        assert pair(63) == (["a"], 1, 0)
        assert pair(64, lambda: replace(d, "x", adapters["b"])) == (["b"], 0, 79)
        # It is the content that counts, however often it has been loaded.
        replace(d, "x", adapters["b"])
        assert pair(65) == (["b"], 0, 79)
        # Decode is told first: the other one's prompt is of no use to it.
        assert pair(66, lambda: replace(d, "x", adapters["a"])) == (["a"], 1, 0)


def test_an_adapter_that_is_replaced_while_its_blocks_are_on_their_way(one, prefill, adapters):  # noqa: F811
    with serve(*config("kv_consumer"), *lora(adapters, x=adapters["a"])) as d, \
            serve(*config("kv_producer"), *lora(adapters, x=adapters["a"])) as p, wire_to(p) as wire:
        prompt = ids(salt=7)
        params = {**ask_prefill(p, prompt=prompt, model="x"), "remote_host": "127.0.0.1", "remote_port": wire.port}
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            answer = pool.submit(ask_decode, d, params, model="x")
            wire.wait()
            replace(d, "x", adapters["b"])
            wire.release()
            assert text(answer.result(60)) == text(alone(one, prompt=prompt, model="b"))
        assert text(alone(d, prompt=prompt, model="x")) == text(alone(one, prompt=prompt, model="b"))  # nothing of it was kept
        assert text(alone(d, prompt=prompt, model="a")) == text(alone(one, prompt=prompt, model="a"))
        until(lambda: free(d), 20)


def test_prefill_dies_in_the_middle(one, decode, adapters):  # noqa: F811
    with serve(*config(), *lora(adapters)) as p, wire_to(p) as wire:
        prompt, before = ids(salt=8), recomputed(decode)
        params = {**ask_prefill(p, prompt=prompt, model="a"), "remote_host": "127.0.0.1", "remote_port": wire.port}
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            answer = pool.submit(ask_decode, decode, params, model="a")
            wire.wait()
            p.process.kill()
            p.process.wait()
            wire.release()
            assert text(answer.result(60)) == text(alone(one, prompt=prompt, model="a"))
        assert recomputed(decode) == before + 1
