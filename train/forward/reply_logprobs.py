"""Hidden states and log-probabilities of replies, in either layout of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from preceptor.judge.models.local.lm_head import Head, head_of
from preceptor.train.data.batching import passes
from preceptor.train.data.collate_pairs import (
    PADDING,
    PairBatch,
    TokenBatch,
    attention_of,
    collate_pairs,
    collate_rows,
)
from preceptor.train.data.pairs import PairTokens
from preceptor.train.forward.token_logprobs import token_logprobs

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


class ReplyLogprobs(NamedTuple):
    """Of the 2B replies of a batch, chosen ones first; in nats."""

    total: Tensor
    """(2B,) float32, sum over the reply's tokens."""
    common: Tensor
    """(2B,) float32, sum over its first n tokens, n the length of the shorter reply of its pair."""
    lengths: Tensor
    """(2B,) int64, tokens."""


def causal_model(model: PeftModel | PreTrainedModel) -> PreTrainedModel:
    """The transformers model itself, with the adapter's layers in it if there are any."""
    inner = getattr(model, "get_base_model", None)
    return cast("PreTrainedModel", inner() if inner is not None else model)


def last_hidden(model: PeftModel | PreTrainedModel, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Hidden states (R, T, H) after the last layer and its norm."""
    backbone = causal_model(model).base_model
    output = backbone(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
    return cast(Tensor, output.last_hidden_state)


def batch_hidden(model: PeftModel | PreTrainedModel, batch: TokenBatch) -> Tensor:
    """Hidden states (R * T, H) of a batch's places.

    Raises ValueError for a shared batch and a model that cannot be told its mask (`attention_of`).
    """
    causal = causal_model(model)
    if not batch.shared:
        return last_hidden(model, batch.input_ids, batch.seen.long()).flatten(0, 1)
    kind = batch.input_ids.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else causal.dtype
    output = causal.base_model(
        input_ids=batch.input_ids,
        attention_mask=attention_of(batch, causal.config, dtype),
        position_ids=batch.positions,
        use_cache=False,
    )
    return cast(Tensor, output.last_hidden_state.flatten(0, 1))


def reply_tokens(
    model: PeftModel | PreTrainedModel, batch: PairBatch, head: Head | None = None
) -> ReplyLogprobs:
    """Log-probabilities of a batch's replies; by the model's own forward and all its logits where no `head`
    is given."""
    if head is None:
        causal: Any = causal_model(model)
        seen = (batch.part != PADDING).long()
        logits = causal(input_ids=batch.input_ids, attention_mask=seen, use_cache=False).logits
        chosen = logits.flatten(0, 1)[batch.predictor]  # (N, V)
        with torch.autocast(logits.device.type, enabled=False):
            logps = chosen.float().log_softmax(-1).gather(1, batch.target[:, None])[:, 0]
    else:
        hidden = batch_hidden(model, batch)
        logps = token_logprobs(hidden[batch.predictor], batch.target, head)
    lengths = batch.lengths  # (2B,)
    shorter = lengths.view(2, -1).amin(dim=0).repeat(2)  # (2B,)
    # One entry a token and a sum along rows: in a fixed order, as adding in place would not be on a GPU.
    spread = logps.new_zeros((len(lengths), batch.input_ids.shape[1]))  # (2B, T)
    spread = spread.index_put((batch.reply, batch.at), logps)
    first = torch.arange(spread.shape[1], device=spread.device) < shorter[:, None]  # (2B, T)
    return ReplyLogprobs(spread.sum(dim=1), (spread * first).sum(dim=1), lengths)


class Policy(nn.Module):
    """A language model that gives replies their log-probability, as one module for the trainer to wrap."""

    def __init__(self, adapted: PeftModel | PreTrainedModel, whole_logits: bool = False) -> None:
        super().__init__()
        self.adapted = adapted
        self.head = None if whole_logits else head_of(causal_model(adapted))

    def forward(self, batch: PairBatch) -> ReplyLogprobs:
        """Log-probabilities of the batch's replies."""
        return reply_tokens(self.adapted, batch, self.head)


@torch.no_grad()
def row_logprobs(
    model: PeftModel | PreTrainedModel,
    rows: Sequence[tuple[list[int], list[int]]],
    pad_id: int,
    batch_size: int,
) -> Tensor:
    """Log-probabilities (len(rows),) in nats of the replies of (prompt, reply) rows, float32 on the CPU.

    Rows are taken longest first, so that a batch holds rows of like length.
    """
    causal: Any = causal_model(model)
    head = head_of(causal)
    order = sorted(range(len(rows)), key=lambda at: -len(rows[at][0]) - len(rows[at][1]))
    result = torch.zeros(len(rows))
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        ids, attention, reply, _ = (
            tensor.to(causal.device) for tensor in collate_rows([rows[at] for at in part], pad_id)
        )
        targets = reply[:, 1:]  # (R, T-1), position t-1 predicts token t
        tokens = ids[:, 1:][targets]  # (N,)
        if head is None:
            logits = causal(input_ids=ids, attention_mask=attention, use_cache=False).logits[:, :-1][targets]
            logps = logits.float().log_softmax(-1).gather(1, tokens[:, None])[:, 0]
        else:
            logps = token_logprobs(last_hidden(model, ids, attention)[:, :-1][targets], tokens, head)
        spread = torch.zeros(targets.shape, dtype=logps.dtype, device=logps.device)  # (R, T-1)
        result[part] = spread.masked_scatter(targets, logps).sum(dim=1).cpu()
    return result


@torch.no_grad()
def pair_logprobs(
    policy: Policy, pairs: Sequence[PairTokens], pad_id: int, pass_tokens: int, shared: bool
) -> ReplyLogprobs:
    """Log-probabilities of the replies of P pairs, the 2P chosen ones first, on the CPU."""
    device = causal_model(policy.adapted).device
    total, common = torch.zeros(2, len(pairs)), torch.zeros(2, len(pairs))
    lengths = torch.zeros(2, len(pairs), dtype=torch.long)
    for part in passes(row_tokens(pairs, shared), pass_tokens):
        batch = collate_pairs([pairs[at] for at in part], part, pad_id, shared)
        found = policy(PairBatch(*(field.to(device) for field in batch)))
        for column, values in zip((total, common, lengths), found, strict=True):
            column[:, part] = values.view(2, -1).cpu()
    return ReplyLogprobs(total.flatten(), common.flatten(), lengths.flatten())


class PairRow(Protocol):
    """A pair as batches are cut by."""

    @property
    def tokens(self) -> int: ...  # of the pair's row where both replies lie in one

    @property
    def length(self) -> int: ...  # of the longer of two rows, one for each reply


def row_tokens(pairs: Sequence[PairRow], shared: bool) -> list[int]:
    """Tokens that each pair takes in a batch, without padding between its own two rows."""
    return [pair.tokens if shared else 2 * pair.length for pair in pairs]
