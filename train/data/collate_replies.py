"""Replies of rollouts as batches: those to one prompt in one row with it, or each in a row of its own.

Who reads a batch uses its indices, and does not see which layout it has (`train.data.collate_pairs` says the same of
pairs).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from preceptor.judge.models.local.branch_mask import PackedRow, pack
from preceptor.train.data.batching import passes

ReplyTokens = tuple[list[int], list[int]]
"""Tokens of a prompt and of a reply to it."""

Grid = Int64[Tensor, "R T"]
PaddingMask = Bool[Tensor, "R T"]
OfToken = Int64[Tensor, "N"]
OfReply = Int64[Tensor, "B"]


class ReplyBatch(NamedTuple):
    """B replies of N tokens in R rows of T tokens. Places are numbers in the R * T tokens of the flattened
    batch, in the order of the replies and of their tokens."""

    input_ids: Grid
    positions: Grid  # of the token in its own conversation
    part: Grid  # 0 the prompt, n the n-th reply to it, one more than there are the padding
    seen: PaddingMask  # false at padding
    predictor: OfToken  # place of the token before each reply token
    target: OfToken  # the reply token itself
    last: OfReply  # place of each reply's last token
    number: OfReply  # number of the reply in the step

    @property
    def shared(self) -> bool:
        """Whether a row may hold several replies."""
        return len(self.input_ids) < len(self.number)


def groups_of(replies: Sequence[ReplyTokens]) -> list[list[int]]:
    """Numbers of the replies, those that follow one another and answer the same prompt together."""
    found: list[list[int]] = []
    for at, (prompt, _) in enumerate(replies):
        if found and replies[found[-1][0]][0] == prompt:
            found[-1].append(at)
        else:
            found.append([at])
    return found


def batches_of(
    replies: Sequence[ReplyTokens], groups: Sequence[Sequence[int]], budget: int, shared: bool
) -> Iterator[ReplyBatch]:
    """The replies of `groups`, in batches of at most `budget` tokens with their padding."""
    rows = rows_of(groups, shared)
    for some in passes(row_lengths(replies, rows), budget):
        yield lay_out(replies, [rows[at] for at in some])


def rows_of(groups: Sequence[Sequence[int]], shared: bool) -> list[list[int]]:
    """Numbers of the replies in each row: those to one prompt together, or each by itself."""
    return [list(group) for group in groups] if shared else [[at] for group in groups for at in group]


def row_lengths(replies: Sequence[ReplyTokens], rows: Sequence[Sequence[int]]) -> list[int]:
    """Tokens of rows of these replies, the prompt once."""
    return [len(replies[row[0]][0]) + sum(len(replies[at][1]) for at in row) for row in rows]


def lay_out(replies: Sequence[ReplyTokens], rows: Sequence[Sequence[int]]) -> ReplyBatch:
    """One batch whose rows hold the replies of these numbers, all of a row to one prompt."""
    packed = pack(
        [
            PackedRow(tuple(replies[row[0]][0]), tuple(tuple(replies[at][1]) for at in row), tuple(row))
            for row in rows
        ],
        "cpu",
    )
    width = packed.ids.shape[1]
    predictor: list[Tensor] = []
    last: list[int] = []
    for number, row in enumerate(rows):
        begin = prompt = len(replies[row[0]][0])
        for at in row:
            end = begin + len(replies[at][1])
            places = number * width + torch.arange(begin - 1, end - 1)
            places[0] = number * width + prompt - 1
            predictor.append(places)
            last.append(number * width + end - 1)
            begin = end
    order = [at for row in rows for at in row]
    replies_in_row = torch.tensor([len(row) for row in rows])
    return ReplyBatch(
        input_ids=packed.ids,
        positions=packed.positions,
        part=packed.part,
        seen=packed.part <= replies_in_row[:, None],
        predictor=torch.cat(predictor),
        target=torch.tensor([token for at in order for token in replies[at][1]]),
        last=torch.tensor(last),
        number=torch.tensor(order),
    )
