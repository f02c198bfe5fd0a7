"""How pairs lie in a batch: the prompt once with both replies behind it, or each reply in a row of its own.

    shared   one row a pair: prompt, chosen, rejected. The positions of both replies start where the prompt
             ends, and the attention mask keeps them apart, so that every token sees just what it would see
             alone.
    apart    two rows a pair, chosen rows first, for models that cannot take such a mask

Both are one `PairBatch`: who reads it uses its indices, and does not see which layout it has. The mask is
made on the device, once for a batch, out of `part` and `positions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from preceptor.judge.models.local.branch_mask import FLEX, TRUNK, mask_of
from preceptor.train.data.pairs import PairTokens
from preceptor.train.errors import CheckpointError

PROMPT, CHOSEN, REJECTED, PADDING = TRUNK, 1, 2, 3

Grid = Int64[Tensor, "R T"]
PaddingMask = Bool[Tensor, "R T"]
OfToken = Int64[Tensor, "N"]
OfReply = Int64[Tensor, "2*B"]
OfPair = Float32[Tensor, "B"]
Number = Int64[Tensor, "B"]
OfRow = Int64[Tensor, "R"]


@runtime_checkable
class TokenBatch(Protocol):
    """What the model reads of a batch, whatever its replies are for: R rows of T tokens."""

    @property
    def input_ids(self) -> Tensor: ...  # (R, T) int64

    @property
    def positions(self) -> Tensor: ...  # (R, T) int64, of the token in its own conversation

    @property
    def part(self) -> Tensor: ...  # (R, T) int64: PROMPT, or which reply of the row

    @property
    def shared(self) -> bool: ...  # whether several replies of a row follow one prompt

    @property
    def seen(self) -> Tensor: ...  # (R, T) bool, false at padding


class PairBatch(NamedTuple):
    """B pairs in R rows of T tokens; R = B where the prompt is shared, else 2B. N tokens are replies'.

    Reply b is the chosen one of pair b, reply B + b the rejected one. Places are numbers in the R * T tokens
    of the flattened batch.
    """

    input_ids: Grid
    positions: Grid  # of the token in its own conversation
    part: Grid  # PROMPT, CHOSEN, REJECTED or PADDING
    predictor: OfToken  # place of the token before each reply token
    target: OfToken  # the reply token itself
    reply: OfToken  # the reply that it belongs to
    at: OfToken  # its number in that reply
    last: OfReply  # place of each reply's last token
    probability: OfPair  # that the chosen reply is the better
    margin: OfPair  # by how much
    weight: OfPair  # of the pair in the loss; 1 on average
    number: Number  # number of the pair in the data set

    @property
    def shared(self) -> bool:
        """Whether a row holds the prompt once and both replies."""
        return len(self.input_ids) == len(self.number)

    @property
    def seen(self) -> PaddingMask:
        """Where tokens are, and not padding (R, T)."""
        return self.part != PADDING

    @property
    def lengths(self) -> OfReply:
        """Tokens of each reply (2B,)."""
        return torch.bincount(self.reply, minlength=2 * len(self.number))


def collate_pairs(
    pairs: Sequence[PairTokens], numbers: Sequence[int], pad_id: int, shared: bool = True
) -> PairBatch:
    """Lay out `pairs`, whose numbers in the data set are `numbers`, as one batch."""
    rows = (
        [(pair.prompt, {CHOSEN: pair.chosen, REJECTED: pair.rejected}) for pair in pairs]
        if shared
        else [(pair.prompt, {CHOSEN: pair.chosen}) for pair in pairs]
        + [(pair.prompt, {REJECTED: pair.rejected}) for pair in pairs]
    )
    width = max(len(prompt) + sum(map(len, replies.values())) for prompt, replies in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)  # (R, T)
    positions = torch.zeros((len(rows), width), dtype=torch.long)  # (R, T)
    part = torch.full((len(rows), width), PADDING, dtype=torch.long)  # (R, T)
    before: dict[tuple[int, int], Tensor] = {}
    last: dict[tuple[int, int], int] = {}
    for row, (prompt, replies) in enumerate(rows):
        begin = 0
        for kind, tokens in ((PROMPT, prompt), *replies.items()):
            end = begin + len(tokens)
            start = 0 if kind == PROMPT else len(prompt)
            ids[row, begin:end] = torch.tensor(tokens, dtype=torch.long)
            positions[row, begin:end] = torch.arange(start, start + len(tokens))
            part[row, begin:end] = kind
            places = row * width + torch.arange(begin - 1, end - 1)
            if kind == REJECTED:
                places[0] = row * width + len(prompt) - 1
            before[kind, row % len(pairs)] = places
            last[kind, row % len(pairs)] = row * width + end - 1
            begin = end
    order = [(kind, number) for kind in (CHOSEN, REJECTED) for number in range(len(pairs))]
    tokens_of = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    lengths = torch.tensor([len(tokens) for tokens in tokens_of])  # (2B,)
    return PairBatch(
        input_ids=ids,
        positions=positions,
        part=part,
        predictor=torch.cat([before[reply] for reply in order]),
        target=torch.tensor([token for tokens in tokens_of for token in tokens]),
        reply=torch.repeat_interleave(torch.arange(len(order)), lengths),
        at=torch.cat([torch.arange(len(tokens)) for tokens in tokens_of]),
        last=torch.tensor([last[reply] for reply in order]),
        probability=torch.tensor([pair.probability for pair in pairs], dtype=torch.float32),
        margin=torch.tensor([pair.margin for pair in pairs], dtype=torch.float32),
        weight=torch.tensor([pair.weight for pair in pairs], dtype=torch.float32),
        number=torch.tensor(list(numbers), dtype=torch.long),
    )


def collate_rows(
    rows: Sequence[tuple[list[int], list[int]]], pad_id: int
) -> tuple[Grid, Grid, PaddingMask, OfRow]:
    """`input_ids`, `attention_mask`, `reply_mask` (R, T), `last` (R,) of (prompt, reply) rows, padded right."""
    width = max(len(prompt) + len(reply) for prompt, reply in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)  # (R, T)
    attention = torch.zeros((len(rows), width), dtype=torch.long)  # (R, T)
    reply_mask = torch.zeros((len(rows), width), dtype=torch.bool)  # (R, T)
    for number, (prompt, reply) in enumerate(rows):
        end = len(prompt) + len(reply)
        ids[number, :end] = torch.tensor(prompt + reply, dtype=torch.long)
        attention[number, :end] = 1
        reply_mask[number, len(prompt) : end] = True
    return ids, attention, reply_mask, attention.sum(dim=1) - 1


def attention_of(batch: TokenBatch, config: Any, dtype: torch.dtype) -> Any:
    """The mask to give a model of `config` for a shared batch: the prompt is the trunk, replies are its branches.

    Raises ValueError for a model whose attention cannot be told such a mask.
    """
    return mask_of(batch.part, batch.positions, config, dtype)


def check_attention(name: str) -> None:
    """Raises CheckpointError where `sdpa` or `flex` attention cannot be trained with."""
    if name == "flex" and not torch.cuda.is_available():
        raise CheckpointError(
            "attention flex needs a CUDA GPU: on a CPU torch's FlexAttention has no backward pass; leave it out"
        )


def set_attention(model: Any, name: str) -> None:
    """Have a loaded model attend by `sdpa`, which is what it does by itself, or by `flex`.

    Raises CheckpointError for an architecture that knows no FlexAttention.
    """
    if name != "flex":
        return
    why = "it has an attention of its own"
    try:
        model.set_attn_implementation(FLEX)
    except (ValueError, ImportError) as error:
        why = str(error)
    if model.config.get_text_config()._attn_implementation != FLEX:
        raise CheckpointError(f"{type(model).__name__} cannot take attention flex: {why}")


def batch_fields(batch: Any) -> dict[str, Tensor]:
    """A batch of named tensors as a mapping, the one form that transformers' Trainer moves between devices."""
    fields: dict[str, Tensor] = batch._asdict()
    return fields
