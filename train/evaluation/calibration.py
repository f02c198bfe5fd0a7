"""How good a reward model is on held-out pairs, and how far its probabilities can be believed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from preceptor.judge import statistics
from preceptor.judge.statistics import Bin, wilson
from preceptor.train.evaluation.reward_figures import MarginFigures


def log_sigmoid(x: float) -> float:
    """log(1 / (1 + exp(-x))) without overflow."""
    return -math.log1p(math.exp(-x)) if x >= 0 else x - math.log1p(math.exp(x))


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)) without overflow."""
    return math.exp(log_sigmoid(x))


def reliability(margins: Sequence[float], probabilities: Sequence[float]) -> list[Bin]:
    """Bins over the model's confidence in 0.5..1: the mean probability that the model gave to the reply it prefers,
    and the mean probability that the judge gave to that same reply.

    Each pair is turned so that the reply preferred by the model comes first: which reply is called chosen is
    then without effect, as it should be, since the chosen one is by construction the judge's.
    """
    return statistics.reliability(
        [
            (sigmoid(abs(margin)), 0.5 if margin == 0 else (probability if margin > 0 else 1 - probability))
            for margin, probability in zip(margins, probabilities, strict=True)
        ],
        lowest=0.5,
    )


def report_card(margins: Sequence[float], probabilities: Sequence[float]) -> MarginFigures:
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
        "ece": statistics.calibration_error(bins),
        "bins": [
            {
                "low": one.low,
                "high": one.high,
                "n": one.n,
                "confidence": one.confidence,
                "agreement": one.found,
            }
            for one in bins
        ],
    }


def _entropy(p: float) -> float:
    return -sum(x * math.log(x) for x in (p, 1 - p) if x > 0)
