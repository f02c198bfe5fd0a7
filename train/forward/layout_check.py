"""Whether a model computes the same in the shared layout as in two plain rows; asked of every model, on its
own rows.

Nothing in a config says for sure what an architecture does with a mask and positions of ours: some ignore
them, some add a bias of their own, some refuse. So the longest and the shortest pair go through both layouts
before the first step, and where the two differ, the plain one is used and the reason is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from preceptor.judge.models.local.lm_head import head_of
from preceptor.train.data.collate_pairs import PADDING, PairBatch, collate_pairs
from preceptor.train.data.pairs import PairTokens
from preceptor.train.forward.reply_logprobs import batch_hidden, causal_model
from preceptor.train.forward.token_logprobs import token_logprobs

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}
"""Largest relative difference of a token's hidden state, and of its log-probability in nats, by precision."""
COARSE = 0.1
"""The same in half precision, where two right ways of computing differ by some hundredths."""


class BatchLayout(NamedTuple):
    """How the batches of a training are laid out and their log-probabilities made."""

    shared: bool
    """The prompt once for both replies."""
    whole_logits: bool
    """By the model's own forward, all logits in memory: its output layer is not as known here."""
    reasons: tuple[str, ...]
    """Why it is not the shared layout with logits in slices; empty where it is."""


@torch.no_grad()
def choose_layout(
    model: PeftModel | PreTrainedModel, pairs: Sequence[PairTokens], pad_id: int, with_logits: bool
) -> BatchLayout:
    """The best layout in which the model computes what it would compute of plain rows.

    `with_logits`: whether its log-probabilities are wanted too, and not hidden states alone.
    """
    ordered = sorted(range(len(pairs)), key=lambda at: (pairs[at].tokens, at))
    some = [pairs[at] for at in sorted({ordered[0], ordered[-1]})]
    reasons: list[str] = []
    if (why := _shared_fault(model, some, pad_id)) is not None:
        reasons.append(f"each reply is in a row of its own, at about twice the cost or more: {why}")
    whole = with_logits and not _head_is_known(model, pairs[ordered[0]], pad_id)
    if whole:
        reasons.append("all logits are kept in memory: the model's output layer is not of a known form")
        if not reasons[1:]:
            reasons.append("each reply is in a row of its own, as the model's own forward needs it")
    return BatchLayout(not reasons, whole, tuple(reasons))


def _shared_fault(model: PeftModel | PreTrainedModel, pairs: Sequence[PairTokens], pad_id: int) -> str | None:
    """Why the shared layout does not serve this model; None where it does."""
    apart, together = (_on_device(model, pairs, pad_id, shared) for shared in (False, True))
    wanted = _at_replies(batch_hidden(model, apart), apart)  # (N, H)
    try:
        found = _at_replies(batch_hidden(model, together), together)  # (N, H)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        text = str(error).strip() or type(error).__name__
        return f"{_name(model)} does not take the shared prompt's mask ({text.splitlines()[0]})"
    worst = ((found - wanted).norm(dim=1) / wanted.norm(dim=1).clamp_min(1e-12)).max().item()
    if worst <= _tolerance(model):
        return None
    return f"{_name(model)} computes something else under the shared prompt's mask (by {worst:.1e})"


def _head_is_known(model: PeftModel | PreTrainedModel, pair: PairTokens, pad_id: int) -> bool:
    causal: Any = causal_model(model)
    head = head_of(causal)
    if head is None:
        return False
    batch = _on_device(model, [pair], pad_id, False)
    seen = (batch.part != PADDING).long()
    logits = causal(input_ids=batch.input_ids, attention_mask=seen, use_cache=False).logits.flatten(0, 1)
    wanted = logits[batch.predictor].float().log_softmax(-1).gather(1, batch.target[:, None])[:, 0]  # (N,)
    found = token_logprobs(batch_hidden(model, batch)[batch.predictor], batch.target, head)  # (N,)
    return bool((found - wanted).abs().max().item() <= 10 * _tolerance(model))


def _on_device(
    model: PeftModel | PreTrainedModel, pairs: Sequence[PairTokens], pad_id: int, shared: bool
) -> PairBatch:
    device = causal_model(model).device
    return PairBatch(*(field.to(device) for field in collate_pairs(pairs, range(len(pairs)), pad_id, shared)))


def _at_replies(hidden: Tensor, batch: PairBatch) -> Tensor:
    """States (N + 2B, H) that log-probabilities and scores are made of."""
    return torch.cat([hidden[batch.predictor], hidden[batch.last]]).float()


def _tolerance(model: PeftModel | PreTrainedModel) -> float:
    return TOLERANCE.get(causal_model(model).dtype, COARSE)


def _name(model: PeftModel | PreTrainedModel) -> str:
    return type(causal_model(model)).__name__
