"""Pairs as tokens, and batches of them."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from judge.records import Preference
from prompts.records import Message
from tests.train.tiny import preference, tiny_tokenizer
from train.pairs import (
    collate_pairs,
    encode_messages,
    encode_pairs,
    encode_reply,
    fit_prompt,
    grouped_batches,
    split_held_out,
    turn_ends,
)

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
    reasons = encode_pairs(rows, tokenizer, 12).set_aside
    assert reasons["a reply alone is longer than max_length = 12 tokens"] > 0


def test_a_beginning_of_text_token_stays_when_the_prompt_is_shortened() -> None:
    assert fit_prompt([7, 1, 2, 3, 4], 3, 6, bos=7) == [7, 3, 4]
    assert fit_prompt([7, 1, 2, 3, 4], 3, 6, bos=None) == [2, 3, 4]
    assert fit_prompt([7, 1, 2], 5, 6, bos=None) is None


def test_the_layout_keeps_every_token_and_marks_the_replies(tokenizer: PreTrainedTokenizerFast) -> None:
    pairs = encode_pairs(PAIRS[:5], tokenizer, 512).rows
    batch = collate_pairs(pairs, range(10, 15), pad_id=0)
    assert batch.number.tolist() == [10, 11, 12, 13, 14]
    assert batch.probability.tolist() == pytest.approx([pair.probability for pair in pairs])
    rows = [(p.prompt, p.chosen) for p in pairs] + [(p.prompt, p.rejected) for p in pairs]
    for number, (prompt, reply) in enumerate(rows):
        ids, seen = batch.input_ids[number], batch.attention_mask[number].bool()
        assert ids[seen].tolist() == prompt + reply
        assert ids[batch.reply_mask[number]].tolist() == reply
        assert ids[batch.last[number]] == reply[-1]


@pytest.mark.parametrize(("rows", "batch_size"), [(1, 4), (37, 4), (64, 16), (200, 7)])
def test_batches_hold_every_row_once_in_every_epoch(rows: int, batch_size: int) -> None:
    lengths = [(number * 7919) % 101 for number in range(rows)]
    for epoch in range(3):
        batches = grouped_batches(lengths, batch_size, seed=1, epoch=epoch)
        assert sorted(row for batch in batches for row in batch) == list(range(rows))
        assert len(batches) == -(-rows // batch_size)
        assert all(len(batch) <= batch_size for batch in batches)


def test_batches_depend_on_seed_and_epoch_and_hold_rows_of_like_length() -> None:
    lengths = [(number * 7919) % 101 for number in range(256)]
    first = grouped_batches(lengths, 8, seed=1, epoch=0)
    assert first == grouped_batches(lengths, 8, seed=1, epoch=0)
    assert first != grouped_batches(lengths, 8, seed=1, epoch=1)
    assert first != grouped_batches(lengths, 8, seed=2, epoch=0)
    padded = sum(max(lengths[row] for row in batch) * len(batch) for batch in first)
    unsorted = [list(range(at, at + 8)) for at in range(0, 256, 8)]
    assert padded < 0.7 * sum(max(lengths[row] for row in batch) * len(batch) for batch in unsorted)


def test_a_prompt_is_on_one_side_of_the_split_whatever_else_is_in_the_file() -> None:
    """Two pairs about one prompt never part, and a row does not move when others are added."""
    twins = [row.model_copy(update={"id": f"{row.id}-twin", "chosen": _reply("other")}) for row in PAIRS]
    train, held_out = split_held_out([*PAIRS, *twins], 0.3, seed=0)
    assert {row.prompt for row in train}.isdisjoint(row.prompt for row in held_out)
    assert len(train) + len(held_out) == 60
    assert 0 < len(held_out) < 40
    fewer = split_held_out(PAIRS[:10], 0.3, seed=0)[1]
    assert fewer == [row for row in held_out if row in PAIRS[:10]]


def _reply(text: str) -> tuple[Message, ...]:
    return (Message(role="assistant", content=text),)


def test_nothing_is_held_out_where_nothing_is_asked_for() -> None:
    rows: list[Preference] = PAIRS
    assert split_held_out(rows, 0.0, seed=0) == (rows, [])
