"""A pairwise loss: the squared distance of the gap from a wanted margin.

The judge's probability p is brought in around it, as with every loss of the table:
p * loss(gap) + (1 - p) * loss(-gap).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from preceptor.train.forward.reply_logprobs import ReplyLogprobs
from preceptor.train.pair_losses import PairLoss


def whole_reply(logps: ReplyLogprobs, _: Mapping[str, Any]) -> Tensor:
    """What of a reply's log-probability counts: (2B,) nats, chosen replies first."""
    return logps.total


def squared(gap: Tensor, options: Mapping[str, Any]) -> Tensor:
    """(B,) of the gap (B,): (beta * gap - 1)^2. The gap is in nats, the reference's already taken off."""
    return (options["beta"] * gap - 1.0) ** 2


SQUARED = PairLoss("squared", whole_reply, squared)
