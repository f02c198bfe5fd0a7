"""Models in this process behind OpenAI's chat endpoint, asked by its own SDK."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.preceptor.serve.jobs.conftest import Served

pytestmark = pytest.mark.slow
ASKED: Any = [{"role": "user", "content": "Where is the pool?"}]


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def said(client: openai.OpenAI, **more: Any) -> Any:
    return client.chat.completions.create(model="embedded", messages=ASKED, max_tokens=16, **more)


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["judge", "embedded"]
    assert client.models.retrieve("embedded").object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")


def test_equal_seeds_give_equal_replies_and_samples_differ(client: openai.OpenAI) -> None:
    one, same = (said(client, seed=3, n=3) for _ in range(2))
    texts = [choice.message.content for choice in one.choices]
    assert texts == [choice.message.content for choice in same.choices]
    assert [choice.index for choice in one.choices] == [0, 1, 2]
    assert len(set(texts)) > 1
    assert one.usage.total_tokens == one.usage.prompt_tokens + one.usage.completion_tokens
    assert one.usage.completion_tokens <= 3 * 17
    alone = said(client, seed=3)
    assert alone.choices[0].message.content == texts[0]


def test_a_reply_ends_before_a_stop(client: openai.OpenAI) -> None:
    whole = said(client, temperature=0).choices[0]
    text = whole.message.content
    words = text.split()
    assert len(words) > 2
    cut = said(client, temperature=0, stop=["never-there", words[2]]).choices[0]
    assert cut.message.content == text[: text.index(words[2])]
    assert cut.finish_reason == "stop"
    short = client.chat.completions.create(model="embedded", messages=ASKED, max_tokens=1, temperature=0)
    assert short.choices[0].finish_reason == "length"


def test_a_stream_holds_the_same(client: openai.OpenAI) -> None:
    whole = said(client, seed=5, n=2)
    texts = {0: "", 1: ""}
    ends = {}
    usage = None
    for chunk in said(client, seed=5, n=2, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            ends[choice.index] = choice.finish_reason or ends.get(choice.index)
    assert texts == {choice.index: choice.message.content for choice in whole.choices}
    assert ends == {choice.index: choice.finish_reason for choice in whole.choices}
    assert usage == whole.usage


def test_a_stream_comes_token_by_token_with_their_probabilities(client: openai.OpenAI) -> None:
    asked = {"temperature": 0, "logprobs": True, "top_logprobs": 2}
    whole = said(client, **asked)
    content = whole.choices[0].logprobs.content
    assert len(content) in (whole.usage.completion_tokens, whole.usage.completion_tokens - 1)
    assert "".join(token.token for token in content).strip() == whole.choices[0].message.content.strip()
    for token in content:
        assert token.top_logprobs[0].token == token.token  # the likeliest, at temperature 0
        assert token.logprob == token.top_logprobs[0].logprob >= token.top_logprobs[1].logprob
        assert bytes(token.bytes).decode() == token.token
    chunks = [chunk.choices[0] for chunk in said(client, **asked, stream=True)]
    assert chunks[0].delta.role == "assistant"
    streamed = [token for chunk in chunks if chunk.logprobs for token in chunk.logprobs.content]
    assert [token.token for token in streamed] == [token.token for token in content]
    assert len([chunk for chunk in chunks if chunk.delta.content]) > len(content) // 2
    bare = said(client, temperature=0, logprobs=True).choices[0].logprobs.content
    assert [token.logprob for token in bare] == [token.logprob for token in content]
    assert {len(token.top_logprobs) for token in bare} == {0}
    assert said(client, temperature=0).choices[0].logprobs is None


def test_a_stop_ends_a_stream_and_the_writing(client: openai.OpenAI) -> None:
    whole = said(client, temperature=0)
    text = whole.choices[0].message.content
    stop = text[len(text) // 3 : len(text) // 3 + 3]
    chunks = list(said(client, temperature=0, stop=stop, stream=True, stream_options={"include_usage": True}))
    sent = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert sent == text[: text.index(stop)]
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "stop"
    assert 0 < chunks[-1].usage.completion_tokens < whole.usage.completion_tokens


def test_a_reader_who_leaves_early_does_not_hold_the_model(client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        model="embedded", messages=ASKED, max_tokens=400, stream=True, temperature=2, seed=1
    ) as stream:
        next(iter(stream))
    assert said(client, temperature=0).choices[0].message.content


async def test_many_at_once_get_what_each_gets_alone(served: Served) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{served.server.url}/v1", api_key="none", max_retries=0
    ) as client:

        async def ask(number: int) -> str | None:
            talk: Any = [{"role": "user", "content": "Where is the bar? " * (number + 1)}]
            made = await client.chat.completions.create(
                model="embedded", messages=talk, max_tokens=12, seed=number
            )
            return made.choices[0].message.content

        together = await asyncio.gather(*(ask(number) for number in range(6)))
        assert [await ask(number) for number in range(6)] == together


@pytest.mark.parametrize(
    ("more", "kind", "code"),
    [
        ({"model": "nobody"}, openai.NotFoundError, "model_not_found"),
        ({"model": "hf/../../etc"}, openai.NotFoundError, "model_not_found"),
        ({"model": "judge"}, openai.BadRequestError, "unsupported_model"),
        ({"top_logprobs": 2}, openai.UnprocessableEntityError, "invalid_request"),
        ({"logprobs": True, "top_logprobs": 21}, openai.UnprocessableEntityError, "invalid_request"),
        (
            {"messages": [{"role": "user", "content": "x " * 20000}], "stream": True},
            openai.BadRequestError,
            "invalid_request",
        ),
        ({"n": 1000}, openai.UnprocessableEntityError, "invalid_request"),
        ({"messages": []}, openai.UnprocessableEntityError, "invalid_request"),
        (
            {"messages": [{"role": "user", "content": "x " * 20000}]},
            openai.BadRequestError,
            "invalid_request",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused(
    client: openai.OpenAI, more: dict[str, Any], kind: type[openai.APIStatusError], code: str
) -> None:
    with pytest.raises(kind) as refused:
        client.chat.completions.create(**{"model": "embedded", "messages": ASKED, **more})
    assert refused.value.code == code
