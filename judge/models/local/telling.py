"""Telling of a reply's tokens while they are written: their texts and log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from preceptor.judge.models.protocol import Listener, TokenLogprob, WrittenToken

if TYPE_CHECKING:
    import torch


def tell(listener: Listener, tokenizer: Any, written: Sequence[int], logits: torch.Tensor) -> bool:
    """Tell of the last of the tokens, which was chosen by these logits (V,). Whether the reply is to go on."""
    reply = str(tokenizer.decode(written, skip_special_tokens=True))
    before, token = written[:-1], written[-1]
    text = text_of(tokenizer, before, token)
    if listener.top is None:
        return listener.heard(WrittenToken(reply, text, None, ()))
    shares = logits.float().log_softmax(-1)
    values, places = shares.topk(min(listener.top, len(shares)))
    top = tuple(
        TokenLogprob(text_of(tokenizer, before, place), value)
        for value, place in zip(values.tolist(), places.tolist(), strict=True)
    )
    return listener.heard(WrittenToken(reply, text, float(shares[token]), top))


def text_of(tokenizer: Any, before: Sequence[int], token: int) -> str:
    """What a token adds behind others. Alone, some tokenizers would drop the space that it begins with."""
    alone = str(tokenizer.decode([token]))
    if not before:
        return alone
    neighbour = str(tokenizer.decode([before[-1]]))
    both = str(tokenizer.decode([before[-1], token]))
    return both[len(neighbour) :] if both.startswith(neighbour) else alone
