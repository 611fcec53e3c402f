"""The API through the unmodified openai client."""

import asyncio

import openai
import pytest


def test_models(client, server):
    model = client.models.list().data[0]
    assert model.id == server.model
    assert model.max_model_len > 0


def test_completion(client, server):
    answer = client.completions.create(model=server.model, prompt="The capital of France is", max_tokens=8, temperature=0)
    assert answer.object == "text_completion"
    assert answer.id.startswith("cmpl-")
    assert answer.choices[0].finish_reason in ("length", "stop")
    assert answer.usage.completion_tokens <= 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_completion_stream_equals_full(client, server):
    ask = dict(model=server.model, prompt=["Once upon", "In the year"], max_tokens=12, temperature=0, logprobs=2)
    full = client.completions.create(**ask)
    texts, reasons, usage = {0: "", 1: ""}, {}, None
    tokens = {0: [], 1: []}
    for chunk in client.completions.create(**ask, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            if choice.logprobs:
                tokens[choice.index] += choice.logprobs.tokens
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
    for choice in full.choices:
        assert texts[choice.index] == choice.text
        assert reasons[choice.index] == choice.finish_reason
        assert tokens[choice.index] == choice.logprobs.tokens
        assert len(choice.logprobs.token_logprobs) == len(choice.logprobs.tokens)
    assert usage.total_tokens == full.usage.total_tokens


def test_completion_of_token_ids_returns_ids(client, server):
    answer = client.completions.create(
        model=server.model, prompt=[[5, 6, 7], [8, 9]], max_tokens=4, temperature=0, extra_body={"return_token_ids": True}
    )
    assert answer.usage.prompt_tokens == 5
    assert answer.choices[0].prompt_token_ids == [5, 6, 7]
    assert 1 <= len(answer.choices[1].token_ids) <= 4


def test_chat(client, server):
    answer = client.chat.completions.create(
        model=server.model,
        messages=[{"role": "user", "content": "What is 17 + 25?"}],
        max_tokens=10,
        temperature=0,
        logprobs=True,
        top_logprobs=3,
    )
    choice = answer.choices[0]
    assert choice.message.role == "assistant"
    assert len(choice.logprobs.content) == answer.usage.completion_tokens
    for entry in choice.logprobs.content:
        assert len(entry.top_logprobs) == 3
        assert entry.logprob <= 0
        values = [top.logprob for top in entry.top_logprobs]
        assert values == sorted(values, reverse=True)


def test_chat_stream_equals_full(client, server):
    ask = dict(
        model=server.model, messages=[{"role": "user", "content": "Count to five."}], max_completion_tokens=16, temperature=0
    )
    full = client.chat.completions.create(**ask)
    text, role, reason, usage = "", None, None, None
    for chunk in client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            role = choice.delta.role or role
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
    assert text == full.choices[0].message.content
    assert role == "assistant"
    assert reason == full.choices[0].finish_reason
    assert usage.completion_tokens == full.usage.completion_tokens


def test_stop_string(client, server):
    base = client.completions.create(model=server.model, prompt="The", max_tokens=24, temperature=0).choices[0]
    stop = base.text[6:9]
    cut = client.completions.create(model=server.model, prompt="The", max_tokens=24, temperature=0, stop=[stop]).choices[0]
    assert cut.text == base.text[: base.text.index(stop)]
    assert cut.finish_reason == "stop"
    assert cut.stop_reason == stop


def test_many_at_once(server):
    async def ask(client, i):
        stream = await client.completions.create(model=server.model, prompt="Item %d:" % i, max_tokens=16, stream=True)
        return [chunk.choices[0].text async for chunk in stream if chunk.choices]

    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(ask(client, i) for i in range(64)))

    assert len(asyncio.run(all_of_them())) == 64


def test_errors_have_their_classes(client, server):
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="no-such-model", prompt="x")
    assert "no-such-model" in missing.value.message
    with pytest.raises(openai.BadRequestError) as bad:
        client.completions.create(model=server.model, prompt="x", temperature=-1)
    assert bad.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model=server.model, messages=[{"role": "user", "content": "x"}], response_format={"type": "json_object"}
        )
    assert refused.value.param == "response_format"
    with pytest.raises(openai.BadRequestError) as long:
        client.completions.create(model=server.model, prompt=[1] * 100000)
    assert "maximum context length" in long.value.message


def test_api_key(start):
    guarded = start("--api-key", "secret")
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=guarded.url + "/v1", api_key="wrong", max_retries=0).models.list()
    assert openai.OpenAI(base_url=guarded.url + "/v1", api_key="secret", max_retries=0).models.list().data


def test_full_queue_is_a_rate_limit(start):
    full = start("--max-waiting", "0", fake=True)
    with pytest.raises(openai.RateLimitError) as limit:
        openai.OpenAI(base_url=full.url + "/v1", api_key="none", max_retries=0).completions.create(model=full.model, prompt="x")
    assert limit.value.response.headers["retry-after"]


@pytest.mark.model
def test_demo_model_can_add(client, server):
    answer = client.chat.completions.create(
        model=server.model, messages=[{"role": "user", "content": "What is 17 + 25?"}], temperature=0
    )
    assert "42" in answer.choices[0].message.content


@pytest.mark.model
def test_seeds_repeat_and_prefix_hits_are_reported(client, server):
    ask = dict(model=server.model, prompt="A long time ago, " * 12, max_tokens=12, temperature=0.9, seed=11)
    first = client.completions.create(**ask)
    second = client.completions.create(**ask)
    assert first.choices[0].text == second.choices[0].text
    assert second.usage.prompt_tokens_details.cached_tokens > 0
