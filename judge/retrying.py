"""Whether another try can help, and how long to wait before it."""

from __future__ import annotations

import random

from judge.errors import Transient
from judge.models.protocol import Completion, Request
from judge.models.room import reply_tokens

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
"""Waits between tries are drawn from 0 to a bound that doubles from the first to the longest: full jitter
(Brooker 2015, "Exponential Backoff and Jitter")."""


def mendable(completion: Completion, request: Request) -> bool:
    """Whether a second try may bring what this answer lacks: it is empty, or cut off before it was as long as it may
    be. One that is as long as it may be would be cut off again.
    """
    if completion.finish_reason == "refused" or completion.probabilities is not None:
        return False
    if completion.finish_reason == "stop":
        return not completion.text.strip()
    return 0 < completion.tokens_out < reply_tokens(request)


def wait_s(tries: int, problem: Exception) -> float:
    """Seconds before the next try: jittered, and never less than the provider asks for."""
    bound = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** (tries - 1))
    wished = problem.retry_after_s if isinstance(problem, Transient) else None
    # those who were told the same wait do not all come back at once
    return (
        random.uniform(0, bound)
        if wished is None
        else wished + random.uniform(0, min(FIRST_WAIT_S, wished / 4))
    )
