"""What a chat template made is taken apart again: the turns, and the reply behind them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.prompts.records import Message
from preceptor.serve.doors.turns import (
    BEGINS,
    ENDS,
    prompt_turns,
    reply_in,
    split_reply,
    turns_of,
    without_end,
)

TEMPLATES = {
    "chatml": ("<|im_start|>{role}\n{text}<|im_end|>\n", "<|im_start|>assistant\n"),
    "llama": (
        "<|start_header_id|>{role}<|end_header_id|>\n\n{text}<|eot_id|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "gemma": ("<start_of_turn>{role}\n{text}<end_of_turn>\n", "<start_of_turn>model\n"),
}
WORDS = st.text("ab .,?<|>\u00e9", min_size=1, max_size=12).filter(str.strip).map(str.strip)


def rendered(name: str, turns: list[Message]) -> str:
    form, _ = TEMPLATES[name]
    called = {"assistant": "model"} if name == "gemma" else {}
    return "".join(form.format(role=called.get(one.role, one.role), text=one.content) for one in turns)


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    texts = draw(st.lists(WORDS, min_size=1, max_size=4))
    turns = [
        Message(role="assistant" if place % 2 else "user", content=text) for place, text in enumerate(texts)
    ]
    if draw(st.booleans()):
        turns.insert(0, Message(role="system", content="Be kind."))
    return turns


@settings(deadline=None, max_examples=80)
@given(st.sampled_from(sorted(TEMPLATES)), conversations(), st.sampled_from(["", *BEGINS]))
def test_parsing_inverts_rendering(name: str, turns: list[Message], begin: str) -> None:
    text = begin + rendered(name, turns)
    assert turns_of(text) == turns
    if turns[-1].role == "user":
        assert prompt_turns(text + TEMPLATES[name][1]) == turns


@settings(deadline=None, max_examples=80)
@given(
    st.sampled_from(sorted(TEMPLATES)),
    conversations(),
    WORDS,
    st.lists(st.sampled_from(ENDS), max_size=3),
    st.sampled_from(["", *BEGINS]),
)
def test_the_reply_is_what_follows_the_prompt_without_what_closes_it(
    name: str, turns: list[Message], reply: str, ends: list[str], begin: str
) -> None:
    prompt = rendered(name, turns) + TEMPLATES[name][1]
    assert reply_in(begin + prompt + reply + "".join(ends), prompt) == reply
    assert without_end(reply + "".join(ends)) == reply


@given(conversations())
def test_the_last_words_of_an_assistant_are_the_reply(turns: list[Message]) -> None:
    found = split_reply(turns)
    if turns[-1].role == "assistant":
        assert found == (turns[:-1], turns[-1].content)
    else:
        assert found is None


@pytest.mark.parametrize(
    "text", ["plain words", "", "words before <|im_start|>user\nx<|im_end|>", "<|im_start|>boss\nx"]
)
def test_a_text_in_no_known_form_is_the_users(text: str) -> None:
    assert turns_of(text) is None
    assert prompt_turns(text) == [Message(role="user", content=text)]
