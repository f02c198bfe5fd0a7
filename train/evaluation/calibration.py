"""How good a reward model is on held-out pairs, and how far its probabilities can be believed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

BINS = 10
Z95 = 1.959963984540054


class Interval(NamedTuple):
    """A share and its interval, at 95 % unless something else is said."""

    share: float
    low: float
    high: float
    n: int


def wilson(successes: float, n: int, z: float = Z95) -> Interval:
    """Share of successes with Wilson's score interval (Wilson 1927), which holds for small n and near 0 and 1.

    z: how many standard errors, at 95 % unless told.

    `successes` may hold halves, for ties; the interval is then a little too wide. n = 0 gives share NaN
    within 0..1.
    """
    if n == 0:
        return Interval(math.nan, 0.0, 1.0, 0)
    share = successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n * n)) / (1 + z**2 / n)
    return Interval(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)), n)


class Bin(NamedTuple):
    """Pairs whose preferred reply the model gave a probability between `low` and `high`."""

    low: float
    high: float
    n: int
    confidence: float
    """Mean probability that the model gave to the reply it prefers."""
    agreement: float
    """Mean probability that the judge gave to that same reply."""


def log_sigmoid(x: float) -> float:
    """log(1 / (1 + exp(-x))) without overflow."""
    return -math.log1p(math.exp(-x)) if x >= 0 else x - math.log1p(math.exp(x))


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)) without overflow."""
    return math.exp(log_sigmoid(x))


def reliability(margins: Sequence[float], probabilities: Sequence[float]) -> list[Bin]:
    """Bins over the model's confidence in 0.5..1; empty ones are left out.

    Each pair is turned so that the reply preferred by the model comes first: which reply is called chosen is
    then without effect, as it should be, since the chosen one is by construction the judge's.
    """
    places: list[list[tuple[float, float]]] = [[] for _ in range(BINS)]
    for margin, probability in zip(margins, probabilities, strict=True):
        confidence = sigmoid(abs(margin))
        agreement = 0.5 if margin == 0 else (probability if margin > 0 else 1 - probability)
        places[min(BINS - 1, int((confidence - 0.5) * 2 * BINS))].append((confidence, agreement))
    bins = []
    for number, held in enumerate(places):
        if held:
            low = 0.5 + number / (2 * BINS)
            confidence, agreement = (math.fsum(column) / len(held) for column in zip(*held, strict=True))
            bins.append(Bin(low, low + 0.5 / BINS, len(held), confidence, agreement))
    return bins


def report_card(margins: Sequence[float], probabilities: Sequence[float]) -> dict[str, Any]:
    """Figures of a reward model on n held-out pairs.

    `margins`: reward of the chosen minus that of the rejected reply, the model's log-odds for the chosen one.
    `probabilities`: the judge's, that the chosen reply is the better.

    accuracy    share of pairs with margin > 0 (no margin is a miss), with Wilson's 95 % interval `ci95`
    nll         mean cross-entropy in nats against the judge; `nll_floor` is the judge's own entropy,
                the least there is
    brier       mean square of the model's minus the judge's probability
    ece         mean gap between confidence and agreement over the `bins`, weighted by their pairs
    """
    n = len(margins)
    if n == 0:
        return {"n": 0}
    accuracy = wilson(sum(margin > 0 for margin in margins), n)
    pairs = list(zip(margins, probabilities, strict=True))
    bins = reliability(margins, probabilities)
    return {
        "n": n,
        "accuracy": accuracy.share,
        "ci95": [accuracy.low, accuracy.high],
        "nll": math.fsum(-p * log_sigmoid(d) - (1 - p) * log_sigmoid(-d) for d, p in pairs) / n,
        "nll_floor": math.fsum(_entropy(p) for p in probabilities) / n,
        "brier": math.fsum((sigmoid(d) - p) ** 2 for d, p in pairs) / n,
        "ece": math.fsum(row.n * abs(row.confidence - row.agreement) for row in bins) / n,
        "bins": [row._asdict() for row in bins],
    }


def _entropy(p: float) -> float:
    return -sum(x * math.log(x) for x in (p, 1 - p) if x > 0)
