"""The figures of a reward model as `report_card.json` has them: who writes them and who reads them go by these types.

What each figure means stands at `train.evaluation.calibration.report_card` and `train.evaluation.report_card.card`.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict


class CalibrationBin(TypedDict):
    """Pairs of like confidence."""

    low: float
    high: float
    n: int
    confidence: float
    agreement: float
    """The mean probability that the judge gave to the reply which the model prefers."""


class PairAccuracy(TypedDict):
    """Of some pairs, the share whose chosen reply has the higher reward."""

    n: int
    accuracy: float
    ci95: list[float]


class ConfidenceBucket(PairAccuracy):
    """Pairs by the judge's probability."""

    low: float
    high: float


class LengthBucket(PairAccuracy):
    """Pairs by how much longer the chosen reply is, in tokens."""

    low: int
    high: int


class PeopleAccuracy(PairAccuracy):
    """Pairs on which people have a verdict."""

    judge: float
    """The judge's own agreement with them."""


class LengthFigures(TypedDict):
    """How far length goes with the margin."""

    correlation: float | None
    partial_correlation: float | None
    judge_correlation: float | None


class SpreadFigures(TypedDict):
    """How far an ensemble's members are from one another."""

    mean: float
    surer_half: PairAccuracy
    less_sure_half: PairAccuracy


class SampleFigures(TypedDict):
    """How far a reward tells a policy's own samples apart; of no prompts, nothing more."""

    prompts: int
    replies: NotRequired[int]
    mean: NotRequired[float]
    std: NotRequired[float]
    std_within_prompt: NotRequired[float]


class BeforeDebias(TypedDict):
    """What the card was before length, or another attribute, was taken out."""

    accuracy: float | None
    ci95: list[float] | None
    nll: float | None
    length: LengthFigures | None


class AttributeFigures(TypedDict):
    """The multiple correlation of margins with one attribute that was taken out, about 0."""

    before: float | None
    after: float | None


class MarginFigures(TypedDict):
    """What margins and the judge's probabilities alone tell; of no pairs, nothing but `n`."""

    n: int
    accuracy: NotRequired[float]
    ci95: NotRequired[list[float]]
    nll: NotRequired[float]
    nll_floor: NotRequired[float]
    brier: NotRequired[float]
    ece: NotRequired[float | None]
    bins: NotRequired[list[CalibrationBin]]


class RewardFigures(MarginFigures, total=False):
    """`report_card.json`. Of no pairs: `n` and `samples` alone."""

    temperature: float
    ece_fitted: float | None
    by_probability: list[ConfidenceBucket]
    by_length: list[LengthBucket]
    by_tag: dict[str, PairAccuracy]
    by_principle: dict[str, PairAccuracy]
    length: LengthFigures
    gold: PeopleAccuracy
    spread: SpreadFigures
    samples: SampleFigures
    before_debias: BeforeDebias
    attributes: dict[str, AttributeFigures]
    """What was taken out -> how far it tells the held-out margins."""
