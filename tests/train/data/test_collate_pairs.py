"""The layout of pairs in a batch: every token kept, every reply found, the two apart from one another."""

from __future__ import annotations

import pytest

from preceptor.train.data.collate_pairs import PADDING, PairBatch, collate_pairs
from preceptor.train.data.pairs import PairTokens, encode_pairs
from tests.train.tiny import preference, tiny_tokenizer

PAIRS = encode_pairs(
    [preference(number, 0.5 + number % 6 / 10) for number in range(5)], tiny_tokenizer(), 512
).rows


def conversation(batch: PairBatch, reply: int) -> list[int]:
    """The tokens that a reply's last token sees by the rule of the mask, in the order of their positions."""
    row, column = divmod(int(batch.last[reply]), batch.input_ids.shape[1])
    part = batch.part[row]
    seen = [at for at in range(column + 1) if part[at] == 0 or part[at] == part[column]]
    assert batch.positions[row, seen].tolist() == list(range(len(seen)))
    return batch.input_ids[row, seen].tolist()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("pairs", [PAIRS, PAIRS[2:3], [PairTokens([7], [8], [9], 1.0, "least")]])
def test_every_reply_is_found_with_its_prompt_and_nothing_of_the_other(
    pairs: list[PairTokens], shared: bool
) -> None:
    batch = collate_pairs(pairs, range(10, 10 + len(pairs)), pad_id=0, shared=shared)
    assert batch.shared is shared
    assert batch.number.tolist() == list(range(10, 10 + len(pairs)))
    assert batch.probability.tolist() == pytest.approx([pair.probability for pair in pairs])
    replies = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    flat = batch.input_ids.flatten()
    for number, (pair, reply) in enumerate(zip([*pairs, *pairs], replies, strict=True)):
        mine = batch.reply == number
        assert conversation(batch, number) == pair.prompt + reply
        assert batch.target[mine].tolist() == reply
        assert batch.at[mine].tolist() == list(range(len(reply)))
        assert flat[batch.predictor[mine]].tolist() == [pair.prompt[-1], *reply[:-1]]
    assert batch.lengths.tolist() == [len(reply) for reply in replies]


@pytest.mark.parametrize("shared", [True, False])
def test_no_token_is_there_twice_and_the_rest_is_padding(shared: bool) -> None:
    batch = collate_pairs(PAIRS, range(5), pad_id=0, shared=shared)
    tokens = sum(pair.tokens + (not shared) * len(pair.prompt) for pair in PAIRS)
    assert int((batch.part != PADDING).sum()) == tokens
    assert batch.input_ids.shape[1] == max(pair.tokens if shared else pair.length for pair in PAIRS)
    assert len(batch.predictor) == len(set(zip(batch.predictor.tolist(), batch.reply.tolist(), strict=True)))
