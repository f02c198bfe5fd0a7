"""Pairs as tokens, and batches of them."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from preceptor.judge.records import Preference
from preceptor.prompts.records import Message
from preceptor.train.data.pairs import (
    encode_messages,
    encode_pairs,
    encode_reply,
    fit_prompt,
    split_held_out,
    turn_ends,
)
from tests.train.tiny import preference, tiny_tokenizer

PAIRS = [preference(number, 0.5 + number % 6 / 10) for number in range(30)]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


def test_prompt_and_reply_are_the_tokens_of_the_whole_conversation(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    for pair, tokens in zip(PAIRS, encode_pairs(PAIRS, tokenizer, 512).rows, strict=True):
        for reply, ids in ((pair.chosen, tokens.chosen), (pair.rejected, tokens.rejected)):
            whole = tokenizer.apply_chat_template(
                [{"role": m.role, "content": m.content} for m in (*pair.prompt, *reply)], return_dict=False
            )
            assert tokens.prompt + ids == whole


def test_every_reply_ends_in_exactly_one_end_of_turn(tokenizer: PreTrainedTokenizerFast) -> None:
    for tokens in encode_pairs(PAIRS, tokenizer, 512).rows:
        for ids in (tokens.chosen, tokens.rejected):
            assert ids[-1] == tokenizer.eos_token_id
            assert ids.count(tokenizer.eos_token_id) == 1


def test_a_newline_of_the_template_after_the_end_of_turn_is_no_part_of_the_reply(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    trailing = tiny_tokenizer()
    trailing.chat_template = str(trailing.chat_template).replace("{{ eos_token }}", "{{ eos_token }}\n")
    assert encode_pairs(PAIRS, trailing, 512).rows == encode_pairs(PAIRS, tokenizer, 512).rows


def test_a_template_that_writes_the_prompt_differently_still_gives_the_reply() -> None:
    """A generation prompt that the whole conversation does not have, as of models that think first."""
    thinking = tiny_tokenizer()
    thinking.chat_template = str(thinking.chat_template).replace(
        "<|assistant|>{% endif %}", "<|assistant|><t>{% endif %}"
    )
    ends = turn_ends(thinking, None)
    prompt = encode_messages(thinking, PAIRS[0].prompt, generation_prompt=True)
    reply = encode_reply(thinking, PAIRS[0].prompt, prompt, PAIRS[0].chosen, ends)
    assert thinking.decode(reply) == PAIRS[0].chosen[0].content + "</s>"


def test_a_tokenizer_without_template_is_written_as_role_and_text() -> None:
    bare = tiny_tokenizer()
    bare.chat_template = None
    tokens = encode_pairs(PAIRS[:1], bare, 512).rows[0]
    assert bare.decode(tokens.prompt) == f"user: {PAIRS[0].prompt[0].content}\n\nassistant: "
    assert bare.decode(tokens.chosen) == PAIRS[0].chosen[0].content + "</s>"


def test_an_overlong_pair_loses_the_left_of_its_prompt_and_nothing_of_its_replies(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    full = encode_pairs(PAIRS, tokenizer, 512)
    assert full.shortened == 0
    limit = 50
    short = encode_pairs(PAIRS, tokenizer, limit)
    whole = {tokens.id: tokens for tokens in full.rows}
    assert 0 < short.shortened < len(PAIRS)
    for tokens in short.rows:
        before = whole[tokens.id]
        assert (tokens.chosen, tokens.rejected) == (before.chosen, before.rejected)
        assert tokens.prompt == before.prompt[len(before.prompt) - len(tokens.prompt) :]
        assert tokens.length == min(limit, before.length)


def test_no_pair_disappears_without_a_reason(tokenizer: PreTrainedTokenizerFast) -> None:
    """Rows in = rows out + rows set aside, at any limit, and each reason is counted."""
    same = PAIRS[0].model_copy(update={"rejected": PAIRS[0].chosen})
    rows = [*PAIRS, same]
    for limit in (12, 20, 30, 512):
        encoded = encode_pairs(rows, tokenizer, limit)
        assert len(rows) == len(encoded.rows) + sum(encoded.set_aside.values())
        assert encoded.set_aside["chosen and rejected are the same"] == 1
        assert encoded.ids_aside["chosen and rejected are the same"] == [same.id]
        assert {reason: len(ids) for reason, ids in encoded.ids_aside.items()} == encoded.set_aside
    reasons = encode_pairs(rows, tokenizer, 12).set_aside
    assert reasons["a reply alone is longer than max_length = 12 tokens"] > 0


def test_a_beginning_of_text_token_stays_when_the_prompt_is_shortened() -> None:
    assert fit_prompt([7, 1, 2, 3, 4], 3, 6, bos=7) == [7, 3, 4]
    assert fit_prompt([7, 1, 2, 3, 4], 3, 6, bos=None) == [2, 3, 4]
    assert fit_prompt([7, 1, 2], 5, 6, bos=None) is None


def test_a_prompt_is_on_one_side_of_the_split_whatever_else_is_in_the_file() -> None:
    """Two pairs about one prompt never part, and a row does not move when others are added."""
    twins = [row.model_copy(update={"id": f"{row.id}-twin", "chosen": _reply("other")}) for row in PAIRS]
    train, held_out = split_held_out([*PAIRS, *twins], 0.3, seed=0)
    assert {row.prompt for row in train}.isdisjoint(row.prompt for row in held_out)
    assert len(train) + len(held_out) == 60
    assert 0 < len(held_out) < 40
    fewer = split_held_out(PAIRS[:10], 0.3, seed=0)[1]
    assert fewer == [row for row in held_out if row in PAIRS[:10]]


def test_weights_are_relative_and_a_weight_of_zero_sets_aside(tokenizer: PreTrainedTokenizerFast) -> None:
    """The mean is 1, so that weights of 2 for all change nothing."""

    def weighted(*weights: float) -> list[float]:
        rows = [
            pair.model_copy(update={"meta": {"weight": weight}})
            for pair, weight in zip(PAIRS, weights, strict=False)
        ]
        return [row.weight for row in encode_pairs(rows, tokenizer, 512).rows]

    assert weighted(2, 2, 2) == [1, 1, 1]
    assert weighted(1, 3) == [0.5, 1.5]
    assert weighted(0, 1, 3) == [0.5, 1.5]
    assert encode_pairs(PAIRS[:1], tokenizer, 512).rows[0].weight == 1


def test_a_margin_of_the_data_goes_before_the_probabilitys(tokenizer: PreTrainedTokenizerFast) -> None:
    own = PAIRS[1].model_copy(update={"meta": {"margin": 3.0}})
    rows = encode_pairs([PAIRS[1], own], tokenizer, 512).rows
    assert [row.margin for row in rows] == pytest.approx([2 * PAIRS[1].probability - 1, 3.0])


def _reply(text: str) -> tuple[Message, ...]:
    return (Message(role="assistant", content=text),)


def test_nothing_is_held_out_where_nothing_is_asked_for() -> None:
    rows: list[Preference] = PAIRS
    assert split_held_out(rows, 0.0, seed=0) == (rows, [])


def test_a_row_that_the_template_refuses_is_set_aside_and_the_others_are_trained_on() -> None:
    refusing = tiny_tokenizer()
    refusing.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}{% endfor %}"
        + str(refusing.chat_template)
    )
    alone = PAIRS[0].model_copy(update={"id": "odd", "prompt": (Message(role="system", content="x"),)})
    read = encode_pairs([*PAIRS, alone], refusing, 512)
    assert len(read.rows) == len(PAIRS)
    ((reason, ids),) = read.ids_aside.items()
    assert ids == ["odd"]
    assert reason.startswith("the chat template refuses the conversation: no")


def test_neighbouring_turns_are_joined_where_the_template_wants_them_to_alternate_and_the_count_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    strict = tiny_tokenizer()
    strict.chat_template = (
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}"
        "{% endif %}{% endfor %}" + str(strict.chat_template)
    )
    two = (Message(role="user", content="Hello."), Message(role="user", content="Are you there?"))
    one = (Message(role="user", content="Hello.\n\nAre you there?"),)
    rows = [
        PAIRS[0].model_copy(update={"id": name, "prompt": prompt})
        for name, prompt in (("2", two), ("1", one))
    ]
    first, second = encode_pairs(rows, strict, 512).rows
    assert first.prompt == second.prompt
    assert "1 of 2 conversations have neighbouring turns of one role, which were joined" in caplog.text
