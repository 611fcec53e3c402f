"""What goes wrong in the middle of a hand-off, with real servers: half of the keys and values has arrived when one side dies,
stands still, is cut off, or loses interest. Every answer is the one of a server alone, and every block comes back in time."""

import concurrent.futures
import os
import signal
import time
import uuid

import httpx
import pytest

from conftest import BIN
from test_disaggregated import (alone, ask_decode, ask_prefill, config, counter, free, one, post, prefill,  # noqa: F401
                                serve, text, until)
from wire import Wire

pytestmark = pytest.mark.skipif(not BIN.exists(), reason="%s is not built" % BIN)

MIDDLE = 900_000  # bytes of the 1.8 MB that the prompts below have
SILENCE = 5  # seconds after which a source that says nothing is given up
WAYS = ["pull", "push"]


def ids(count=600, salt=0):
    return [(salt * 101 + i * 37) % 500 + 3 for i in range(count)]


def lease(seconds):
    return config(kv_connector_extra_config={"kv_lease_duration": seconds})


class Begun:
    """A request that has come half of its way: `answer()` waits for decode's."""

    def __init__(self, way, p, d, wire, prompt, **body):
        self.pool = concurrent.futures.ThreadPoolExecutor(2)
        body = {"max_tokens": 24, "ignore_eos": True, **body}
        if way == "pull":
            params = {**ask_prefill(p, prompt=prompt), "remote_host": "127.0.0.1", "remote_port": wire.port}
            self.decode = self.pool.submit(post, d, prompt="x", kv_transfer_params=params, **body)
        else:
            headers = {"X-Request-Id": str(uuid.uuid4())}
            there = {"do_remote_prefill": True, "push": True, "remote_host": "127.0.0.1", "remote_port": wire.port}
            self.decode = self.pool.submit(post, d, headers=headers, prompt=prompt, kv_transfer_params=there, **body)
            self.prefill = self.pool.submit(post, p, headers=headers, prompt=prompt, max_tokens=1,
                                            kv_transfer_params={"do_remote_decode": True, "push": True})
        wire.wait()

    def answer(self, seconds=60):
        return self.decode.result(seconds)


def wire_to(p, limit=MIDDLE):
    return Wire(ask_prefill(p, prompt=[5, 6, 7])["remote_port"], limit)


def recomputed(d):
    return counter(d, "cadre:kv_recomputed_requests_total")


@pytest.fixture(scope="module")
def decode():
    with serve(*config("kv_consumer"), "--no-enable-prefix-caching") as server:
        yield server


@pytest.mark.parametrize("way", WAYS)
def test_nothing_goes_wrong_on_a_wire(one, prefill, decode, way):
    with wire_to(prefill) as wire:
        before = recomputed(decode)
        begun = Begun(way, prefill, decode, wire, ids(salt=1))
        assert counter(decode, "cadre:kv_fetching_requests") == 1
        wire.release()
        assert text(begun.answer()) == text(alone(one, prompt=ids(salt=1)))
        assert recomputed(decode) == before and wire.passed > 1.9 * MIDDLE
    until(lambda: free(decode))


@pytest.mark.parametrize("way", WAYS)
def test_prefill_dies_in_the_middle(one, decode, way):
    with serve(*config()) as p, wire_to(p) as wire:
        before = recomputed(decode)
        begun = Begun(way, p, decode, wire, ids())
        p.process.kill()
        p.process.wait()
        wire.release()
        assert text(begun.answer()) == text(alone(one, prompt=ids()))
        assert recomputed(decode) == before + 1
        assert "the rest is computed here" in "".join(decode.lines)
        until(lambda: free(decode), 10)


def test_prefill_dies_while_it_computes(one, decode):
    with serve(*config(), "--max-num-batched-tokens", "16", "--max-num-seqs", "16") as p:
        where = ask_prefill(p, prompt=[5, 6, 7])
        headers = {"X-Request-Id": str(uuid.uuid4())}
        there = {"do_remote_prefill": True, "push": True, "remote_host": where["remote_host"], "remote_port": where["remote_port"]}
        prompt = ids(1500)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            first = pool.submit(post, p, headers=headers, prompt=prompt, max_tokens=1,
                                kv_transfer_params={"do_remote_decode": True, "push": True})
            answer = pool.submit(post, decode, headers=headers, prompt=prompt, kv_transfer_params=there, max_tokens=24, ignore_eos=True)
            until(lambda: counter(decode, "cadre:kv_fetching_requests") == 1)
            p.process.kill()
            p.process.wait()
            assert text(answer.result(60)) == text(alone(one, prompt=prompt))
            with pytest.raises(Exception):
                first.result(10)
        until(lambda: free(decode), 10)


def test_prefill_has_died_before_a_push(one, decode):
    with serve(*config()) as p:
        where = ask_prefill(p, prompt=[5, 6, 7])
        p.process.kill()
        p.process.wait()
    there = {"do_remote_prefill": True, "push": True, "remote_host": where["remote_host"], "remote_port": where["remote_port"]}
    answer = post(decode, headers={"X-Request-Id": "gone"}, prompt=ids(), kv_transfer_params=there, max_tokens=24, ignore_eos=True)
    assert text(answer) == text(alone(one, prompt=ids()))
    until(lambda: free(decode), 10)


def test_prefill_never_hears_of_a_push(one, prefill):
    """The client, or a router, died between its two requests: decode keeps no blocks longer than a lease for it."""
    with serve(*lease(2), "--no-enable-prefix-caching") as d:
        where = ask_prefill(prefill, prompt=[5, 6, 7])
        there = {"do_remote_prefill": True, "push": True, "remote_host": where["remote_host"], "remote_port": where["remote_port"]}
        start = time.time()
        answer = post(d, headers={"X-Request-Id": "alone"}, prompt=ids(), kv_transfer_params=there, max_tokens=24, ignore_eos=True)
        assert text(answer) == text(alone(one, prompt=ids()))
        assert 1.9 < time.time() - start < 12
        assert "has not heard of the request" in "".join(d.lines)
        until(lambda: free(d), 10)


@pytest.mark.parametrize("way", WAYS)
def test_the_wire_is_cut_in_the_middle(one, decode, way):
    with serve(*config()) as p, wire_to(p) as wire:
        before = recomputed(decode)
        begun = Begun(way, p, decode, wire, ids())
        wire.cut()
        assert text(begun.answer()) == text(alone(one, prompt=ids()))
        assert recomputed(decode) == before + 1
        until(lambda: free(decode) and counter(p, "cadre:kv_held_requests") <= 1, 10)  # the one of wire_to
        assert counter(p, "vllm:nixl_num_kv_expired_reqs_total") == 0
        assert "who fetched the blocks of" in "".join(p.lines)


@pytest.mark.parametrize("way", WAYS)
def test_the_wire_falls_silent_in_the_middle(one, decode, way):
    with serve(*config()) as p, wire_to(p) as wire:
        start = time.time()
        begun = Begun(way, p, decode, wire, ids())
        # Others go on meanwhile.
        assert text(alone(decode, prompt=[5, 6, 7])) == text(alone(one, prompt=[5, 6, 7]))
        assert text(begun.answer()) == text(alone(one, prompt=ids()))
        assert time.time() - start < SILENCE + 15
        assert "has said nothing for" in "".join(decode.lines)
        until(lambda: free(decode) and counter(p, "cadre:kv_held_requests") <= 1, 10)


@pytest.mark.parametrize("way", WAYS)
def test_decode_is_killed_in_the_middle(one, way):
    with serve(*config(), "--no-enable-prefix-caching") as p, serve(*config()) as d, wire_to(p) as wire:
        until(lambda: counter(p, "cadre:kv_held_blocks") > 0)  # the one of wire_to: a block
        before = counter(p, "cadre:kv_held_blocks")
        begun = Begun(way, p, d, wire, ids())
        if way == "pull":
            assert counter(p, "cadre:kv_held_blocks") > before + 30
        d.process.kill()
        d.process.wait()
        with pytest.raises(Exception):
            begun.answer(10)
        wire.release()
        # By the lost connection, long before the lease of 30 s.
        until(lambda: counter(p, "cadre:kv_held_blocks") == before, 10)
        assert counter(p, "vllm:nixl_num_kv_expired_reqs_total") == 0
        assert "who fetched the blocks of" in "".join(p.lines)
        with serve(*config()) as again:
            assert text(ask_decode(again, ask_prefill(p, prompt=ids()))) == text(alone(one, prompt=ids()))


def others_get_their_own(one, d, late):
    """While `late` makes bytes arrive for a request that has been given up, others have its blocks."""
    prompts = [ids(500, salt) for salt in (7, 8)]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        got = [pool.submit(alone, d, prompt=p, max_tokens=60) for p in prompts]
        time.sleep(0.1)
        late()
        for prompt, answer in zip(prompts, got):
            assert text(answer.result(60)) == text(alone(one, prompt=prompt, max_tokens=60))


# Room for one of the prompts and hardly more, so that the next one gets the very same blocks.
TIGHT = ["--num-gpu-blocks-override", "44", "--max-model-len", "700", "--no-enable-prefix-caching"]


@pytest.mark.parametrize("way", WAYS)
def test_decode_is_stopped_in_the_middle_and_goes_on_later(one, way):
    with serve(*lease(2)) as p, serve(*config(), *TIGHT) as d, wire_to(p) as wire:
        begun = Begun(way, p, d, wire, ids())
        os.kill(d.process.pid, signal.SIGSTOP)
        until(lambda: free(p), 15)  # nothing is kept past the lease
        expired = counter(p, "vllm:nixl_num_kv_expired_reqs_total")
        assert expired >= 2  # the one of wire_to, too
        # What lay there belongs to others now.
        alone(p, prompt=ids(600, 9))
        os.kill(d.process.pid, signal.SIGCONT)
        others_get_their_own(one, d, wire.release)
        assert text(begun.answer()) == text(alone(one, prompt=ids()))
        assert recomputed(d) == 1
        until(lambda: free(d), 10)


@pytest.mark.parametrize("way", WAYS)
def test_prefill_is_stopped_in_the_middle_and_goes_on_later(one, way):
    with serve(*config()) as p, serve(*config(), *TIGHT) as d, wire_to(p) as wire:
        begun = Begun(way, p, d, wire, ids())
        os.kill(p.process.pid, signal.SIGSTOP)
        assert text(begun.answer()) == text(alone(one, prompt=ids()))

        def late():
            os.kill(p.process.pid, signal.SIGCONT)
            wire.release()

        others_get_their_own(one, d, late)
        until(lambda: free(d), 10)
        until(lambda: counter(p, "cadre:kv_held_requests") <= 1, 10)


@pytest.mark.parametrize("way", WAYS)
def test_the_client_leaves_in_the_middle(one, way):
    with serve(*config()) as p, serve(*config(), *TIGHT) as d, wire_to(p) as wire:
        begun = Begun(way, p, d, wire, ids(), timeout=2)
        with pytest.raises(httpx.TimeoutException):
            begun.answer()
        until(lambda: free(d), 10)
        until(lambda: counter(p, "cadre:kv_held_requests") <= 1, 10)
        others_get_their_own(one, d, wire.release)
        until(lambda: free(d), 10)


def test_the_lease_ends_in_the_middle(one, decode):
    with serve(*lease(1)) as p, wire_to(p) as wire:
        before = recomputed(decode)
        begun = Begun("pull", p, decode, wire, ids())
        # Decode's question four times a second is heard once, and prolongs it by another second.
        until(lambda: free(p), 4)
        alone(p, prompt=ids(600, 9))  # its blocks are somebody else's
        wire.release()
        assert text(begun.answer()) == text(alone(one, prompt=ids()))
        assert recomputed(decode) == before + 1
        assert "its lease has expired" in "".join(decode.lines)
        until(lambda: free(decode), 10)


@pytest.mark.parametrize("way", WAYS)
def test_the_policy_fail_in_the_middle(one, way):
    with serve(*config(kv_load_failure_policy="fail")) as d, serve(*config()) as p, wire_to(p) as wire:
        begun = Begun(way, p, d, wire, ids(), status=500)
        p.process.kill()
        p.process.wait()
        wire.release()
        error = begun.answer()["error"]["message"]
        assert "could not be fetched" in error and "kv_load_failure_policy" in error
        until(lambda: free(d), 10)
        assert text(alone(d, prompt=ids())) == text(alone(one, prompt=ids()))


def test_decode_rejects(one):
    with serve(*lease(2)) as p, serve(*config(), "--max-model-len", "64") as d:
        params = ask_prefill(p, prompt=ids())
        answer = post(d, prompt="x", kv_transfer_params=params, max_tokens=24, status=400)
        assert "64" in answer["error"]["message"]
        until(lambda: free(p), 8)
        # So does one that is asked for something that makes no sense.
        params = ask_prefill(p, prompt=ids())
        post(d, prompt="x", kv_transfer_params=params, max_tokens=24, temperature=-1, status=400)
        until(lambda: free(p), 8)


def both(p, d, where, prompt, **body):
    headers = {"X-Request-Id": str(uuid.uuid4())}
    there = {"do_remote_prefill": True, "push": True, "remote_host": where["remote_host"], "remote_port": where["remote_port"]}
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        answer = pool.submit(post, d, headers=headers, prompt=prompt, kv_transfer_params=there,
                             **{"max_tokens": 24, "ignore_eos": True, **body})
        pool.submit(post, p, headers=headers, prompt=prompt, max_tokens=1, kv_transfer_params={"do_remote_decode": True, "push": True})
        return answer.result(120)


@pytest.mark.parametrize("full", ["prefill", "decode", "both"])
def test_a_full_pool_with_pushes(one, full):
    tight = ["--num-gpu-blocks-override", "12", "--max-model-len", "192"]
    # With both full, what prefill holds and what decode has reserved may wait for each other: for a lease, not for ever.
    with serve(*lease(3), *(tight if full != "decode" else [])) as p, serve(*lease(3), *(tight if full != "prefill" else [])) as d:
        where = ask_prefill(p, prompt=[5, 6, 7])
        prompts = [ids(100, salt) for salt in range(6)]
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            got = list(pool.map(lambda prompt: text(both(p, d, where, prompt, max_tokens=40)), prompts))
        assert got == [text(alone(one, prompt=prompt, max_tokens=40)) for prompt in prompts]
        until(lambda: free(d), 10)
        until(lambda: counter(p, "cadre:kv_held_requests") <= 1, 10)
