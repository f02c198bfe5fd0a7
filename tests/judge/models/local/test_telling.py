"""A reply that is told of while it is written is the reply that is given at its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch

from preceptor.judge.models.local.loading import load
from preceptor.judge.models.local.model import LocalModel
from preceptor.judge.models.local.telling import text_of
from preceptor.judge.models.protocol import Listener, Request, WritesAloud, WrittenToken
from preceptor.prompts.records import Message
from tests.judge.models.local.test_model import build


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("llama"))


@pytest.fixture
async def model(folder: Path) -> AsyncIterator[LocalModel]:
    opened = LocalModel("hf/tiny", str(folder))
    yield opened
    await opened.close()


def request(text: str, temperature: float) -> Request:
    messages = (Message(role="user", content=text),)
    return Request(model="hf/tiny", messages=messages, max_tokens=9, temperature=temperature)


async def test_what_is_told_is_what_is_written(model: LocalModel, folder: Path) -> None:
    """In company of others; the log-probabilities are those of a pass over the whole."""
    assert isinstance(model, WritesAloud)
    told: dict[int, list[WrittenToken]] = {0: [], 1: [], 2: []}

    def listener(number: int) -> Listener:
        def heard(token: WrittenToken) -> bool:
            told[number].append(token)
            return True

        return Listener(heard, top=3)

    asked = [request("word " * (3 * number + 1), 0.9 if number else 0.0) for number in range(3)]
    replies = await asyncio.gather(
        *(model.write(one, listener(number)) for number, one in enumerate(asked)),
        model.complete(request("without a listener", 0.0)),
    )
    alone = [await model.complete(one) for one in asked]
    assert [reply.text for reply in replies[:3]] == [reply.text for reply in alone]
    for number, reply in enumerate(alone):
        assert told[number][-1].reply == reply.text
        assert len(told[number]) + (reply.finish_reason == "stop") == reply.tokens_out
        assert all(len(token.top) == 3 for token in told[number])
        for token in told[number]:
            values = [one.logprob for one in token.top]
            assert values == sorted(values, reverse=True)
            assert token.logprob is not None
            assert token.logprob <= values[0]
    assert all(token.text == token.top[0].text for token in told[0])  # the likeliest, at temperature 0
    theirs = load("hf/tiny", str(folder))
    prompt = theirs.tokenizer.apply_chat_template(
        [{"role": "user", "content": "word "}], add_generation_prompt=True, return_dict=False
    )
    whole = torch.tensor([prompt])
    for token in told[0]:
        with torch.no_grad():
            shares = theirs.model(input_ids=whole).logits[0, -1].float().log_softmax(-1)
        best = shares.argmax()
        assert token.logprob == pytest.approx(float(shares[best]), abs=1e-4)
        whole = torch.cat([whole, best[None, None]], 1)


async def test_a_reply_ends_where_its_listener_wants_no_more(model: LocalModel) -> None:
    heard: list[WrittenToken] = []

    def three(token: WrittenToken) -> bool:
        heard.append(token)
        return len(heard) < 3

    other, reply = await asyncio.gather(
        model.complete(request("word " * 9, 0.0)), model.write(request("word", 0.0), Listener(three))
    )
    whole = await model.complete(request("word", 0.0))
    assert (len(heard), reply.tokens_out, reply.finish_reason) == (3, 3, "stop")
    assert whole.text.startswith(reply.text)
    assert all(token.logprob is None and token.top == () for token in heard)
    assert other == await model.complete(request("word " * 9, 0.0))


def test_a_token_adds_its_own_text(folder: Path) -> None:
    tokenizer = load("hf/tiny", str(folder)).tokenizer
    tokens = tokenizer("which of two words is a space before", add_special_tokens=False)["input_ids"]
    assert len(tokens) > 3
    texts = [text_of(tokenizer, tokens[:place], token) for place, token in enumerate(tokens)]
    assert "".join(texts) == tokenizer.decode(tokens)
