"""The report card of a reward model: what it is worth on pairs that it was not trained on, and where it fails.

Figures alone; the page with plots is `train.evaluation.report_card_page`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple, cast

from preceptor.judge.statistics import calibration_error, wilson
from preceptor.train.evaluation.calibration import log_sigmoid, reliability, report_card
from preceptor.train.evaluation.reward_figures import (
    ConfidenceBucket,
    LengthBucket,
    LengthFigures,
    PairAccuracy,
    PeopleAccuracy,
    RewardFigures,
    SampleFigures,
    SpreadFigures,
)

CARD = "report_card.json"
"""The file of the figures in a reward model's folder."""
CONFIDENCE = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Edges of the bins by the judge's probability; the last bin holds 1 too."""
LENGTH_BUCKETS = 5
COLDEST, HOTTEST = 0.02, 50.0
"""Between which a temperature is sought."""


class Judged(NamedTuple):
    """A held-out pair, and what the reward model makes of it."""

    margin: float
    """Reward of the chosen minus that of the rejected reply."""
    probability: float
    """The judge's, that the chosen reply is the better."""
    lengths: tuple[int, int]
    """Tokens of chosen and rejected."""
    tags: tuple[str, ...] = ()
    opinions: tuple[tuple[str, float], ...] = ()
    """Principle, and the probability that the chosen reply is the better by it alone."""
    gold: str | None = None
    """`chosen`, `rejected` or `tie`, by people's verdict."""
    spread: float = 0.0
    """Of the margin, over an ensemble's members."""
    parts: tuple[tuple[str, float], ...] = ()
    """Principle, and the margin by its own score, where there is one for each."""

    @property
    def longer(self) -> int:
        """Tokens by which the chosen reply is the longer."""
        return self.lengths[0] - self.lengths[1]


def card(pairs: Sequence[Judged], ensemble: bool = False) -> RewardFigures:
    """The figures of `calibration.report_card`, and

    temperature     by which margins are to be divided so that their probabilities fit the judge's best
                    (Guo et al. 2017, arXiv 1706.04599, section 4.2), and `ece_fitted`, the calibration error then:
                    the temperature for each half of the pairs is fitted on the other half
    by_probability  accuracy by the judge's probability: what the judge was unsure of is not to be learned
    by_length       accuracy by how much longer the chosen reply is, in buckets of equally many pairs
    by_tag          accuracy on prompts with the tag
    by_principle    share of the pairs on which a principle has an opinion where the reward agrees with it, or
                    the principle's own score where there is one
    length          correlation of margin and length difference, plain and given the judge's label
    gold            agreement with people's verdicts, where rows carry one; `judge` is the judge's own
    spread          of an ensemble: mean, and accuracy on the surer and on the less sure half
    """
    figures = report_card([pair.margin for pair in pairs], [pair.probability for pair in pairs])
    if not pairs:
        return {"n": 0}
    found = cast("RewardFigures", figures)
    found["temperature"] = fitted_temperature(pairs)
    found["ece_fitted"] = _ece_across(pairs)
    found["by_probability"] = _by_probability(pairs)
    found["by_length"] = _by_length(pairs)
    found["by_tag"] = _by_name((tag, pair.margin, 1.0) for pair in pairs for tag in pair.tags)
    found["by_principle"] = _by_name(
        (name, dict(pair.parts).get(name, pair.margin), probability)
        for pair in pairs
        for name, probability in pair.opinions
    )
    found["length"] = length_figures(pairs)
    if any(pair.gold in ("chosen", "rejected") for pair in pairs):
        found["gold"] = _gold(pairs)
    if ensemble:
        found["spread"] = _spread(pairs)
    return found


def fitted_temperature(pairs: Sequence[Judged]) -> float:
    """The T of least cross-entropy between the judge's probabilities and sigmoid(margin / T)."""
    from scipy.optimize import minimize_scalar

    def nll(log_t: float) -> float:
        scale = math.exp(-log_t)
        return math.fsum(
            -p * log_sigmoid(d * scale) - (1 - p) * log_sigmoid(-d * scale)
            for d, p in ((pair.margin, pair.probability) for pair in pairs)
        )

    found = minimize_scalar(nll, bounds=(math.log(COLDEST), math.log(HOTTEST)), method="bounded")
    return math.exp(float(found.x))


def length_figures(pairs: Sequence[Judged]) -> LengthFigures:
    """Correlation of the margin with the length difference, and the partial one given the judge's 2 p - 1.

    A pair's sign is arbitrary (it is the judge who calls one reply chosen), so all moments are about 0: the same
    comes out whichever reply comes first. None where one of the three does not vary.
    """
    rows = [(pair.margin, float(pair.longer), 2 * pair.probability - 1) for pair in pairs]

    def correlation(a: int, b: int) -> float | None:
        both = math.fsum(row[a] * row[b] for row in rows)
        own = math.fsum(row[a] ** 2 for row in rows) * math.fsum(row[b] ** 2 for row in rows)
        return both / math.sqrt(own) if own > 0 else None

    plain, with_label, label_length = correlation(0, 1), correlation(0, 2), correlation(1, 2)
    partial = None
    if plain is not None and with_label is not None and label_length is not None:
        rest = (1 - with_label**2) * (1 - label_length**2)
        partial = (plain - with_label * label_length) / math.sqrt(rest) if rest > 0 else None
    return {"correlation": plain, "partial_correlation": partial, "judge_correlation": label_length}


def sample_figures(groups: Sequence[Sequence[float]]) -> SampleFigures:
    """How far a reward tells a policy's own samples apart: n prompts with at least two rewards each.

    A policy learns from differences within a prompt alone; where the reward hardly varies there it learns slowly,
    however accurate the reward is (Razin et al. 2025, arXiv 2503.15477).
    """
    several = [group for group in groups if len(group) > 1]
    if not several:
        return {"prompts": 0}
    every = [reward for group in several for reward in group]
    within = [_variance(group) for group in several]
    return {
        "prompts": len(several),
        "replies": len(every),
        "mean": math.fsum(every) / len(every),
        "std": math.sqrt(_variance(every)),
        "std_within_prompt": math.sqrt(math.fsum(within) / len(within)),
    }


def _accuracy(right: Sequence[bool]) -> PairAccuracy:
    share = wilson(sum(right), len(right))
    return {"n": share.n, "accuracy": share.share, "ci95": [share.low, share.high]}


def _by_probability(pairs: Sequence[Judged]) -> list[ConfidenceBucket]:
    def place(pair: Judged) -> int:
        return min(sum(pair.probability >= edge for edge in CONFIDENCE), len(CONFIDENCE) - 1) - 1

    return [
        {"low": CONFIDENCE[at], "high": CONFIDENCE[at + 1], **_accuracy([pair.margin > 0 for pair in some])}
        for at, some in groupby(sorted(pairs, key=place), key=place)
    ]


def _by_length(pairs: Sequence[Judged]) -> list[LengthBucket]:
    """Pairs of one length difference stay in one bucket."""
    ordered = sorted(pairs, key=lambda pair: pair.longer)
    wanted = len(ordered) / LENGTH_BUCKETS
    buckets: list[list[Judged]] = [[]]
    for _, group in groupby(ordered, key=lambda pair: pair.longer):
        if len(buckets[-1]) >= wanted and len(buckets) < LENGTH_BUCKETS:
            buckets.append([])
        buckets[-1] += group
    return [
        {
            "low": some[0].longer,
            "high": some[-1].longer,
            **_accuracy([pair.margin > 0 for pair in some]),
        }
        for some in buckets
    ]


def _by_name(rows: Iterable[tuple[str, float, float]]) -> dict[str, PairAccuracy]:
    """Accuracy by name, of (name, margin, probability that the chosen reply is the better)."""
    right: dict[str, list[bool]] = {}
    for name, margin, probability in rows:
        if probability != 0.5:
            right.setdefault(name, []).append(margin > 0 if probability > 0.5 else margin < 0)
    return {name: _accuracy(right[name]) for name in sorted(right)}


def _gold(pairs: Sequence[Judged]) -> PeopleAccuracy:
    known = [pair for pair in pairs if pair.gold in ("chosen", "rejected")]
    agrees = [pair.margin > 0 if pair.gold == "chosen" else pair.margin < 0 for pair in known]
    return {**_accuracy(agrees), "judge": sum(pair.gold == "chosen" for pair in known) / len(known)}


def _spread(pairs: Sequence[Judged]) -> SpreadFigures:
    ordered = sorted(pairs, key=lambda pair: pair.spread)
    middle = (len(ordered) + 1) // 2
    return {
        "mean": math.fsum(pair.spread for pair in pairs) / len(pairs),
        "surer_half": _accuracy([pair.margin > 0 for pair in ordered[:middle]]),
        "less_sure_half": _accuracy([pair.margin > 0 for pair in ordered[middle:]]),
    }


def _ece_across(pairs: Sequence[Judged]) -> float | None:
    halves = pairs[::2], pairs[1::2]
    if not halves[1]:
        return None
    margins, probabilities = [], []
    for half, other in (halves, halves[::-1]):
        temperature = fitted_temperature(other)
        margins += [pair.margin / temperature for pair in half]
        probabilities += [pair.probability for pair in half]
    bins = reliability(margins, probabilities)
    return calibration_error(bins)


def _variance(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
