"""Tokens without a tokenizer: what is planned is enough for every script, and grows with what is asked."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor.judge.models.protocol import Request
from preceptor.judge.models.token_estimates import (
    likely_tokens,
    most_tokens_in,
    planned_tokens,
    planned_tokens_in,
)
from preceptor.prompts.records import Message

TEXTS = st.text(st.characters(exclude_categories=()), max_size=200)


def request(*texts: str) -> Request:
    messages = tuple(Message(role="user", content=text) for text in texts)
    return Request(model="openai/m", messages=messages, max_tokens=8)


@pytest.mark.parametrize(
    "text",
    [
        "请选择更友好的回答，并说明理由。",
        "もっと親切な返事を選んで、理由を説明してください。",
        "더 친절한 답변을 고르고 이유를 설명해 주세요.",
    ],
)
def test_text_without_blanks_between_its_words_has_a_token_for_every_character_at_least(text: str) -> None:
    """As the vocabularies make of it that know the script worst: more than a token a character, and never a quarter."""
    wide = [letter for letter in text if not letter.isascii()]
    assert planned_tokens(text) >= 1.4 * len(wide)
    assert planned_tokens(text) > 3 * likely_tokens(text)


@given(TEXTS, TEXTS)
def test_what_is_planned_lies_between_the_likely_and_the_most(one: str, other: str) -> None:
    assert likely_tokens(one) <= planned_tokens(one)
    assert planned_tokens_in(request(one, other)) <= most_tokens_in(request(one, other))
    assert planned_tokens(one) <= planned_tokens(one + other) <= planned_tokens(one) + planned_tokens(other)
    if one.isascii():
        assert planned_tokens(one) == likely_tokens(one) == math.ceil(len(one) / 4)
