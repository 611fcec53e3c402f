"""Which experts each token had, where prefill and decode are two servers: the answer of decode tells those of the prompt that
prefill has computed. The truth is one server that does both, in float32."""

import base64
import concurrent.futures
import io
import re
import uuid

import pytest

from conftest import BIN
from ports import free_port
from test_disaggregated import (ASK, alone, ask_decode, ask_prefill, config, counter, families, free, golden_model, post, pushed,
                                router_before, serve, text, transfers, until)
from test_pair_failures import WAYS, Begun, ids, recomputed, wire_to

np = pytest.importorskip("numpy")

pytestmark = pytest.mark.skipif(not BIN.exists(), reason="%s is not built" % BIN)

FLAG = "--enable-return-routed-experts"
NEW = 24  # tokens of an answer


def experts(answer):
    """[tokens of prompt and answer but the last, layers, top_k], the choices of a layer in order of their numbers: of two that
    are as good as alike, other groups of ranks may take the other one first."""
    return np.sort(np.load(io.BytesIO(base64.b64decode(answer["choices"][0]["routed_experts"]))), -1)


def expect_same(answer, wanted, length):
    assert text(answer) == text(wanted)
    rows = experts(answer)
    assert rows.shape[0] == length + NEW - 1
    assert rows.shape == experts(wanted).shape and (rows == experts(wanted)).all()


@pytest.fixture(scope="module")
def one():
    with serve(FLAG) as server:
        yield server


@pytest.fixture(scope="module")
def prefill():
    with serve(*config("kv_producer"), FLAG) as server:
        yield server


@pytest.fixture(scope="module")
def decode():
    with serve(*config("kv_consumer"), FLAG) as server:
        yield server


@pytest.mark.parametrize("length", [1, 2, 16, 17, 33, 100])
def test_every_length_of_prompt(one, prefill, decode, length):
    prompt = [(length * 31 + i * 17) % 500 + 3 for i in range(length)]
    before = counter(decode, "cadre:kv_fetched_tokens_total")
    answer = ask_decode(decode, ask_prefill(prefill, prompt=prompt))
    expect_same(answer, alone(one, prompt=prompt), length)
    assert counter(decode, "cadre:kv_fetched_tokens_total") - before == length - 1
    # Now the prompt's blocks are decode's own, experts included.
    before = counter(decode, "cadre:kv_fetched_tokens_total")
    expect_same(ask_decode(decode, ask_prefill(prefill, prompt=prompt)), alone(one, prompt=prompt), length)
    assert counter(decode, "cadre:kv_fetched_tokens_total") - before == (length - 1) % 16
    until(lambda: free(prefill))


def test_a_longer_prompt_of_which_decode_has_the_beginning(one, prefill, decode):
    prompt = [i * 13 % 500 + 3 for i in range(90)]
    ask_decode(decode, ask_prefill(prefill, prompt=prompt[:48]))
    before = counter(decode, "cadre:kv_fetched_tokens_total")
    expect_same(ask_decode(decode, ask_prefill(prefill, prompt=prompt)), alone(one, prompt=prompt), 90)
    assert counter(decode, "cadre:kv_fetched_tokens_total") - before == 90 - 1 - 48


def test_the_answer_begins_where_it_was_asked_to(one, prefill, decode):
    prompt = [i * 19 % 500 + 3 for i in range(70)]
    answer = ask_decode(decode, ask_prefill(prefill, prompt=prompt), routed_experts_prompt_start=33)
    assert (experts(answer) == experts(alone(one, prompt=prompt))[33:]).all()
    # Several answers to one prompt.
    drawn = {"n": 2, "temperature": 1, "seed": 7}
    got, wanted = ask_decode(decode, ask_prefill(prefill, prompt=prompt), **drawn), alone(one, prompt=prompt, **drawn)
    for k in range(2):
        expect_same({"choices": [got["choices"][k]]}, {"choices": [wanted["choices"][k]]}, 70)


def test_both_sides_asked_at_once(one, prefill, decode):
    where = ask_prefill(prefill)
    for length in (1, 5, 33, 400):
        prompt = [(i * 37 + length) % 500 + 3 for i in range(length)]
        before = counter(decode, "cadre:kv_fetched_tokens_total")
        expect_same(pushed(prefill, decode, where, prompt), alone(one, prompt=prompt), length)
        assert counter(decode, "cadre:kv_fetched_tokens_total") - before == length - 1


@pytest.mark.parametrize("there, here", [(["-tp", "2"], ["--block-size", "32"]), ([], ["-tp", "2"]), (["-dp", "2", "-ep"], []),
                                         (["-tp", "2", "--block-size", "32"], ["-tp", "2", "-dp", "2", "-ep"])])
def test_other_layouts_of_ranks_on_the_two_sides(one, there, here):
    with serve(*config(), FLAG, *there) as p, serve(*config(), FLAG, *here) as d:
        for k in range(4):
            prompt = [(k * 57 + i * 7) % 500 + 3 for i in range(20 + 33 * k)]
            expect_same(ask_decode(d, ask_prefill(p, prompt=prompt)), alone(one, prompt=prompt), len(prompt))
        if "-dp" not in there:
            prompt = [i * 43 % 500 + 3 for i in range(300)]
            expect_same(pushed(p, d, ask_prefill(p), prompt), alone(one, prompt=prompt), 300)
        assert recomputed(d) == 0, "".join(d.lines)
        assert counter(d, "cadre:kv_fetched_tokens_total") > 0


@pytest.mark.parametrize("way", WAYS)
def test_over_tcp(one, prefill, decode, way):
    with wire_to(prefill) as wire:
        before = recomputed(decode)
        prompt = ids(salt=20 + WAYS.index(way))
        begun = Begun(way, prefill, decode, wire, prompt)
        wire.release()
        expect_same(begun.answer(), alone(one, prompt=prompt), 600)
        assert recomputed(decode) == before


def test_pairs_that_meet_by_the_request_id(one):
    kv = free_port(), free_port()
    with serve(*config("kv_producer", "P2pNcclConnector", kv_ip="127.0.0.1", kv_port=str(kv[0])), FLAG) as p, \
            serve(*config("kv_consumer", "P2pNcclConnector", kv_ip="127.0.0.1", kv_port=str(kv[1])), FLAG) as d:
        prompt = [i * 29 % 500 + 3 for i in range(70)]
        headers = {"X-Request-Id": "___prefill_addr_127.0.0.1:%d___decode_addr_127.0.0.1:%d_%s" % (*kv, uuid.uuid4().hex)}
        post(p, prompt=prompt, max_tokens=1, headers=headers)
        answer = post(d, prompt=prompt, max_tokens=NEW, ignore_eos=True, headers=headers)
        expect_same(answer, alone(one, prompt=prompt), 70)
        assert counter(d, "cadre:kv_fetched_tokens_total") == 69


def test_the_next_turn_comes_back(one):
    flags = [FLAG, "--no-enable-prefix-caching"]
    with serve(*config(kv_connector_extra_config={"bidirectional": True}), *flags) as second, serve(*config(), *flags) as first:
        prompt = [i * 11 % 500 + 3 for i in range(40)]
        answer = ask_decode(second, ask_prefill(first, prompt=prompt), return_token_ids=True)
        said = answer["choices"][0]["token_ids"]
        turn = prompt + said + [i * 3 % 500 + 3 for i in range(30)]
        before = counter(first, "cadre:kv_fetched_tokens_total")
        there = post(first, prompt=turn, max_tokens=1, kv_transfer_params=answer["kv_transfer_params"])
        assert counter(first, "cadre:kv_fetched_tokens_total") - before == len(prompt + said) - 1
        wanted = alone(one, prompt=turn)
        assert (experts(there) == experts(wanted)[:len(turn)]).all()  # prefill tells them as well
        expect_same(ask_decode(second, there["kv_transfer_params"]), wanted, len(turn))


@families
def test_families(name):
    """Latent rows, and layers without experts before those that have some."""
    folder = golden_model(name)
    flags = ["--skip-tokenizer-init", FLAG]
    prompt = [3 + i * 5 % 60 for i in range(40)]
    body = {"prompt": prompt, "max_tokens": 12, "ignore_eos": True, "return_token_ids": True}
    with serve(*flags, model=folder) as single, serve(*config(), *flags, "-tp", "2", model=folder) as p, \
            serve(*config(), *flags, model=folder) as d:
        params = post(p, **{**body, "max_tokens": 1}, kv_transfer_params=ASK)["kv_transfer_params"]
        got, wanted = post(d, **body, kv_transfer_params=params), post(single, **body)
        assert got["choices"][0]["token_ids"] == wanted["choices"][0]["token_ids"]
        assert (experts(got) == experts(wanted)).all() and experts(got).shape[0] == 40 + 12 - 1
        assert counter(d, "cadre:kv_fetched_tokens_total") == 39, "".join(d.lines)


def test_the_router_in_front(one, prefill, decode):
    with router_before(prefill, decode) as router:
        prompts = [[(k * 59 + i * 7) % 500 + 3 for i in range(9 + 41 * k)] for k in range(6)]
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            got = list(pool.map(lambda prompt: alone(router, prompt=prompt), prompts))
        for prompt, answer in zip(prompts, got):
            expect_same(answer, alone(one, prompt=prompt), len(prompt))
        assert transfers(router, "push") == len(prompts)


@pytest.mark.parametrize("way", WAYS)
def test_prefill_dies_in_the_middle(one, decode, way):
    with serve(*config(), FLAG) as p, wire_to(p) as wire:
        before = recomputed(decode)
        prompt = ids(salt=40 + WAYS.index(way))
        begun = Begun(way, p, decode, wire, prompt)
        p.process.kill()
        p.process.wait()
        wire.release()
        expect_same(begun.answer(), alone(one, prompt=prompt), 600)
        assert recomputed(decode) == before + 1


def test_prefill_without_the_flag(one, decode):
    """What decode would have to tell and prefill does not keep: decode computes the prompt, and says why."""
    with serve(*config()) as p:
        before = recomputed(decode)
        prompt = [i * 23 % 500 + 3 for i in range(60)]
        expect_same(ask_decode(decode, ask_prefill(p, prompt=prompt)), alone(one, prompt=prompt), 60)
        assert recomputed(decode) == before + 1
        why = "the target's answers tell which experts each token had, and the source does not keep them; give both %s" % FLAG
        assert re.search(r"fetching 59 tokens .* failed .*%s" % why, "".join(decode.lines)), "".join(decode.lines[-5:])
        assert "turned away a connection" in "".join(p.lines) and why in "".join(p.lines)
        with serve(*config(kv_load_failure_policy="fail"), FLAG) as strict:
            answer = post(strict, prompt="x", kv_transfer_params=ask_prefill(p, prompt=prompt), status=500)
            assert why in answer["error"]["message"]


def test_decode_without_the_flag(one, prefill):
    with serve(*config()) as d:
        prompt = [i * 27 % 500 + 3 for i in range(60)]
        answer = ask_decode(d, ask_prefill(prefill, prompt=prompt))
        assert text(answer) == text(alone(one, prompt=prompt)) and answer["choices"][0].get("routed_experts") is None
        assert counter(d, "cadre:kv_fetched_tokens_total") == 59 and recomputed(d) == 0
