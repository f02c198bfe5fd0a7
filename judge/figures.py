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
    error_correlation: NotRequired[float | None]
    """Mean correlation of being wrong, over all pairs of the first step's judges; where no row has gold, of naming a,
    which is more."""
    effective_votes: NotRequired[float | None]
    """How many independent judges they amount to by it."""


class MemberFigures(TypedDict):
    """What one judge of a panel is worth."""

    judge: str
    accuracy: float
    adds: float | None
    """Accuracy of all together less that of all but this one."""
    cost_usd: float | None
    adds_per_usd: float | None


class PanelFigures(TypedDict):
    """What recorded judges are worth together, as `panel choose` has it."""

    n: int
    """Pairs with gold."""
    judges: int
    accuracy: float
    """Of all judges together; a pair without a winner counts half."""
    error_correlation: float | None
    effective_votes: float | None
    members: list[MemberFigures]
    chosen: list[str]
    """One name: one judge is enough."""
    chosen_accuracy: float


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
    added: float | None
    """By how much the accuracy rose over the step before; None for the first, and without gold."""
    added_per_usd: float | None
    """None where a cost is not known, or 0."""


class SavedFigures(TypedDict):
    """Pairs of which no judge but those of the first step was asked."""

    share: float | None
    """Of all pairs: so much of the next judge's calls was saved."""
    over_time: list[float]
    """The same in ten runs of rows one after another, in the order of the file; fewer where there are fewer rows."""


class DriftFigures(TypedDict):
    """How far the same judges, asked once more, say something else."""

    n: int
    changed: float | None
    ci95: Bounds | None
    mean_shift: float | None


class LookFigures(DriftFigures):
    """And in which look past the ledger."""

    look: int


class PerturbedFigures(TypedDict):
    """How often a verdict follows the form of the ask."""

    n: int
    """Pairs with a winner in both forms."""
    flip_rate: float | None
    """Share whose winner is another in the changed form."""
    ci95: Bounds | None
    unparsed: int
    """Pairs without a winner in the changed form alone."""
    accuracy: float | None
    """In the changed form, of labels against gold."""
    accuracy_change: float | None
    accuracy_change_ci95: Bounds | None


class CorrectedAgreement(TypedDict):
    """How often labels of rows without gold are right, as gold corrects what the judge's confidence says."""

    rows: int
    """Labels with a winner."""
    gold: int
    """Of the gold rows, those with a winner."""
    naive: float | None
    """Mean confidence of the rows."""
    agreement: float | None
    """By prediction-powered inference; None with fewer than two gold rows."""
    ci95: Bounds | None
    """It counts the gold rows' own chance."""
    unlike: str
    """In what the rows are unlike the gold ones, so that the correction does not hold; empty: in nothing seen."""


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
    corrected: CorrectedAgreement
    perturbed: dict[str, PerturbedFigures]
    """What was changed -> what came of it."""
    options_flip_rate: float | None
    principles_flip_rate: float | None
    words_flip_rate: float | None
    steps: list[PricedStep]
    saved: SavedFigures


class CertifiedStepFigures(TypedDict):
    """Which labels of one step's judges gold vouches for, as `judge.records.CertifiedStep` has it."""

    judge: str
    threshold: float
    seen: int
    n: int
    right: int
    low: float
    coverage: float
    """Share of the gold rows that came to the step."""
    when: str
    """Which pairs go on from here: what `--when` would be."""
    one_order: NotRequired[bool]
    """With --adaptive: whether one order alone is certified, so that the other is not asked."""


class RefusedSet(TypedDict):
    """Judges of whose labels none can be certified."""

    judge: str
    reason: str
    needed: int | None


class CertifiedFigures(TypedDict):
    """What `audit --certify` finds."""

    target: float
    level: float
    steps: list[CertifiedStepFigures]
    refused: list[RefusedSet]


class LengthControlled(TypedDict):
    """A share of verdicts as a logistic model has it for replies of one length (`judge.audit.length_control`)."""

    n: int
    """Verdicts that decide."""
    naive: float
    """The share as it is."""
    share: float
    ci95: Bounds
    constant: float
    """The model's first coefficient, in log-odds: that of the share."""
    constant_stderr: float
    length: float
    """In log-odds for each doubling of length."""
    length_stderr: float


class WholeFigures(VerdictFigures):
    """Those of every audit."""

    kappa_ci95: Bounds | None
    ece_ci95: Bounds | None
    agreement_lc: float | None
    """Of the labels with a winner and gold, were their replies of one length."""
    cost_usd: float | None
    by_tag: dict[str, VerdictFigures]
    by_principle: dict[str, PrincipleFigures]


class AuditFigures(WholeFigures, FurtherFigures):
    """All that `preceptor audit --json` prints, and `audit` of a label folder's manifest holds."""

    votes: NotRequired[VoteFigures]
    alpha: NotRequired[float | None]
    certified: NotRequired[CertifiedFigures]
    length_controlled: NotRequired[LengthControlled]
    """The model behind `agreement_lc`; absent where there is none."""
    audited: NotRequired[float]
    """The share of the labels that the figures rest on, where there were very many."""


class ChangeFigures(TypedDict):
    """How often looks past the ledger found another outcome, and what that proves."""

    n: int
    """Rows looked at, over all looks."""
    changed: float | None
    last_changed: float | None
    """At the last look."""
    evidence: float
    """The e-value; an alarm from the threshold up."""
    at_least: float
    """The changed share is above this, at the level; 0: nothing is proved."""
    alarm: int | None
    """The look at which the evidence first passed the threshold, from 1."""


class ChangedFigures(ChangeFigures):
    """What all looks at a label folder's judges say, as `preceptor drift` has it."""

    looks: int
    tolerance: float
    """The share of other outcomes that the judge's own unsteadiness explains."""
    level: float
    """Of a false alarm over all looks and principles together, however long one looks."""
    threshold: float
    since: str | None
    """YYYY-MM-DD of the first alarm; a certificate ends with it."""
    by_principle: dict[str, ChangeFigures]
