"""The figures about a judge as JSON has them: who writes them and who reads them go by these types.

What each figure means stands at `judge.audit.audit.audit` and `judge.audit.canaries.attack_rates`.
"""

from __future__ import annotations

from typing import NotRequired

from typing_extensions import TypedDict

Bounds = list[float]
"""The two ends of an interval."""


class ReliabilityBin(TypedDict):
    """Labels of like confidence."""

    low: float
    high: float
    n: int
    confidence: float
    right: float
    """Share whose winner is the gold one."""


class HabitFigures(TypedDict):
    """What a judge likes for reasons that are none."""

    longer_share: float | None
    list_share: float | None
    self_share: float | None
    length_coefficient: float | None
    length_stderr: float | None


class GoldFigures(TypedDict):
    """How often verdicts are the gold ones."""

    accuracy: float | None
    correct_original: int | None
    correct_swapped: int | None
    correct_both: int | None
    ci95: Bounds | None


class VerdictFigures(GoldFigures, HabitFigures):
    """Figures of some verdicts: of all, of those on prompts with one tag, or of those by one principle."""

    n: int
    """Labels with gold."""
    verdicts: int
    orders_agree: int | None
    flip_rate: float | None
    first_share: float | None
    kappa: float | None
    ece: float | None
    reliability: list[ReliabilityBin]
    unparsed: int
    refused: int
    failed: int
    faults: dict[str, int]
    """Why there was no verdict -> judgements."""


class PrincipleFigures(VerdictFigures):
    """Figures of one principle's judgements."""

    decided: int
    """Labels that would have another winner, or none, without it."""


class Agreement(TypedDict):
    """How often two judges say the same."""

    share: float | None
    n: int


class VoteFigures(TypedDict):
    """How far the judges of a panel agree."""

    matrix: dict[str, dict[str, Agreement]]
    alpha: float | None
    """Krippendorff's."""


class WonOver(TypedDict):
    """How often an edit won the judge over."""

    n: int
    won_over: int
    rate: float | None
    ci95: Bounds | None


class AttackFigures(WonOver):
    """Of one kind of attack, or of all."""

    control: WonOver
    """Of the harmless edits that go with it."""
    difference: float | None
    difference_ci95: Bounds | None
    without: int
    faults: dict[str, int]
    unmatched: int
    labels: float | None


class StepFigures(TypedDict):
    """What a step of an escalation saw."""

    step: int
    pairs: int
    right: int
    accuracy: float | None
    """Had it ended there."""


class PricedStep(StepFigures):
    """And what the calls behind it cost."""

    cost_usd: float | None


class DriftFigures(TypedDict):
    """How far the same judges, asked once more, say something else."""

    n: int
    changed: float | None
    ci95: Bounds | None
    mean_shift: float | None


class LookFigures(DriftFigures):
    """And in which look past the ledger."""

    look: int


class FurtherFigures(TypedDict, total=False):
    """Those that only some runs have: with planted attacks, with a second look, with steps."""

    canaries: dict[str, AttackFigures]
    """Kind of attack, and `all`."""
    attack_rate: float | None
    attack_control_rate: float | None
    attack_excess: float | None
    drift: LookFigures
    drift_rate: float | None
    drift_shift: float | None
    steps: list[PricedStep]


class WholeFigures(VerdictFigures):
    """Those of every audit."""

    kappa_ci95: Bounds | None
    ece_ci95: Bounds | None
    cost_usd: float | None
    by_tag: dict[str, VerdictFigures]
    by_principle: dict[str, PrincipleFigures]


class AuditFigures(WholeFigures, FurtherFigures):
    """All that `preceptor audit --json` prints, and `audit` of a label folder's manifest holds."""

    votes: NotRequired[VoteFigures]
    alpha: NotRequired[float | None]
    audited: NotRequired[float]
    """The share of the labels that the figures rest on, where there were very many."""
