"""Templates and tokenisation as properties, over families of tokenizers and plain texts of any kind.

Control tokens written in a text and roles that do not alternate are other tests' matter.
"""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from preceptor.judge.models.local.chat_tokens import Loaded, TokenisedRequest, encode
from preceptor.judge.models.protocol import Request
from preceptor.prompts.records import Message
from preceptor.train.data.pairs import encode_messages, encode_reply, turn_ends
from preceptor.train.rollout.prompts import text_of
from tests.tokenizers import FAMILIES, Family

every = pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
quick = settings(max_examples=25, deadline=None)
WRITTEN = (
    string.ascii_letters + string.digits + string.punctuation.translate(dict.fromkeys(map(ord, "<>|[]")))
)
ODD = " \n\t\u00a0\u200d\u0301éßñ€–“”…日本語हिন🙂👩🏽\u2028\x00\ufeff"
words = st.lists(st.text(string.ascii_lowercase, min_size=1, max_size=8), min_size=1, max_size=6).map(
    " ".join
)
anything = st.text(WRITTEN + ODD * 2, min_size=1, max_size=40).filter(str.strip)


def messages_of(texts: list[str], system: str | None) -> list[Message]:
    """A talk whose user begins; the roles alternate."""
    turns = [Message(role=("user", "assistant")[at % 2], content=text) for at, text in enumerate(texts)]
    return [*([Message(role="system", content=system)] if system else []), *turns]


def talks(family: Family) -> st.SearchStrategy[tuple[list[Message], str]]:
    """A talk that ends with the user's turn, and a reply to it."""
    text = words if family.words_alone else anything
    turns = st.sampled_from((1, 1, 3, 5)).flatmap(
        lambda count: st.lists(text, min_size=count, max_size=count)
    )
    return st.tuples(st.builds(messages_of, turns, st.none() | text), text)


def template_of(family: Family, messages: list[Message], opened: bool) -> str:
    """The conversation in the tokenizer's own chat template, thinking switched off. A system message that the
    template refuses stands in the first turn."""
    tokenizer = family.tokenizer
    rows = [message.model_dump() for message in messages]
    if not family.system and rows[0]["role"] == "system":
        rows = [{**rows[1], "content": f"{rows[0]['content']}\n\n{rows[1]['content']}"}, *rows[2:]]
    if tokenizer.chat_template is None:
        return "".join(f"{row['role']}: {row['content']}\n\n" for row in rows) + "assistant: " * opened
    rendered: Any = tokenizer.apply_chat_template(
        rows, tokenize=False, add_generation_prompt=opened, enable_thinking=False
    )
    return str(rendered)


def tokens_of(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The text's tokens, control tokens read as such; as a text begins where there is no template to say so."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [int(token) for token in ids]


def encoded(family: Family, talk: list[Message], reply: str) -> tuple[list[int], list[int]]:
    """Prompt and reply as training has them."""
    prompt = encode_messages(family.tokenizer, talk, generation_prompt=True)
    ends = turn_ends(family.tokenizer, family.eos_ids)
    said = [Message(role="assistant", content=reply)]
    return prompt, encode_reply(family.tokenizer, talk, prompt, said, ends)


@every
@given(data=st.data())
@quick
def test_a_prompt_is_what_the_models_own_template_says(family: Family, data: st.DataObject) -> None:
    talk, _ = data.draw(talks(family))
    wanted = tokens_of(family.tokenizer, template_of(family, talk, opened=True))
    assert encode_messages(family.tokenizer, talk, generation_prompt=True) == wanted


@every
@given(data=st.data())
@quick
def test_a_local_judge_reads_what_training_reads(family: Family, data: st.DataObject) -> None:
    talk, _ = data.draw(talks(family))
    stops = turn_ends(family.tokenizer, family.eos_ids)
    loaded = Loaded(None, family.tokenizer, stops, 4096, None)  # type: ignore[arg-type]
    [ask] = encode(loaded, [Request(model="hf/x", messages=tuple(talk), max_tokens=8)])
    assert isinstance(ask, TokenisedRequest)
    assert list(ask.tokens) == encode_messages(family.tokenizer, talk, generation_prompt=True)


@every
@given(data=st.data())
@quick
def test_a_trained_text_is_the_prompt_and_the_reply_that_would_be_generated(
    family: Family, data: st.DataObject
) -> None:
    """What training reads is the opened prompt, the reply as the format writes it, and one end of turn."""
    talk, reply = data.draw(talks(family))
    prompt, said = encoded(family, talk, reply)
    text = template_of(family, talk, opened=True) + family.reply(reply) + family.turn_end
    assert family.tokenizer.decode(prompt + said) == family.tokenizer.decode(
        tokens_of(family.tokenizer, text)
    )
    ends = turn_ends(family.tokenizer, family.eos_ids)
    assert [token in ends for token in said] == [False] * (len(said) - 1) + [True]


@every
@given(data=st.data())
@quick
def test_reading_a_reply_gives_back_what_was_written(family: Family, data: st.DataObject) -> None:
    """Which is what a reward reads of a generated reply; white space around it is the format's to keep or not."""
    talk, reply = data.draw(talks(family))
    _, said = encoded(family, talk, reply)
    assert text_of(family.tokenizer, said, ended=True).strip() == reply.strip()


@every
@given(data=st.data())
@quick
def test_a_longer_talk_extends_a_shorter_one(family: Family, data: st.DataObject) -> None:
    """A talk that goes on begins with the tokens of the prompt and the reply that training read."""
    talk, reply = data.draw(talks(family))
    assume(not (family.system_moves and talk[0].role == "system"))
    prompt, said = encoded(family, talk, reply)
    longer = [*talk, Message(role="assistant", content=reply), Message(role="user", content="And then?")]
    whole = encode_messages(family.tokenizer, longer, generation_prompt=True)
    assert (whole[: len(prompt + said)] == prompt + said) is family.extends
