"""The figures of a run as JSON has them: `summary.json`, a run's manifest, and what `evaluate --json` prints.

Who writes them and who reads them go by these types.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, final

from typing_extensions import TypedDict

from preceptor.judge.figures import AuditFigures, Bounds, LengthControlled


class Outcomes(TypedDict):
    """How often the policy's reply was the better one."""

    won: int
    lost: int
    tied: int
    unjudged: int


class BothSides(TypedDict):
    """A figure of the baseline's replies and of the policy's."""

    before: float
    after: float


class ComparisonFigures(TypedDict):
    """A policy beside its baseline on held-out prompts."""

    n: int
    win_rate: float | None
    """None where nothing was judged."""
    win_rate_ci95: Bounds
    wins: Outcomes
    before: dict[str, float]
    """Principle, and `overall` -> share of replies that satisfy it, of those that the oracle can decide."""
    after: dict[str, float]
    ci95: dict[str, Bounds]
    """Of `after`."""
    distinct_2: BothSides
    win_rate_lc: NotRequired[LengthControlled]
    """Were the replies of one length, with the model behind it; absent where there is none."""


class ProbeFigures(TypedDict):
    """One measure of what tuning breaks; None where nothing bears on it."""

    mode: str
    before: float | None
    before_ci95: Bounds | None
    after: float | None
    after_ci95: Bounds | None
    change: float | None
    change_ci99: Bounds | None
    worse_when: str
    worse: bool
    """Beyond the interval of the change; `better` likewise."""
    better: bool
    n: int


class ProbedFigures(TypedDict):
    """All measures of one set of probes."""

    set: str
    n: int
    figures: dict[str, ProbeFigures]


class ProbedAndLost(ProbedFigures):
    """And how many probes got no reply."""

    lost: int


@final
class ProbesAlone(TypedDict):
    """What `evaluate --probes --json` prints without a comparison."""

    probes: ProbedAndLost


class CorrectedFigures(TypedDict):
    """The win rate as gold corrects it (`judge.statistics.rogan_gladen`)."""

    win_rate: float | None
    """None where the judge is not surely better than a coin, so that it tells none."""
    ci95: Bounds | None
    judge_accuracy: float
    """On the gold pairs; a comparison without a winner counts half."""
    gold: int


class EvaluationFigures(ComparisonFigures):
    """What `evaluate --json` prints."""

    corrected: NotRequired[CorrectedFigures]
    """With `--gold`."""
    probes: NotRequired[ProbedAndLost]


class RewardSummary(TypedDict):
    """What a run's summary has of its reward model's report card."""

    n: int
    accuracy: float
    ci95: Bounds
    nll: float
    brier: float
    ece: float


class RewardAgreement(TypedDict):
    """How often the reward model prefers the reply that a round's labels prefer."""

    accuracy: float | None
    accuracy_ci95: Bounds | None
    n: int


class RoundFigures(TypedDict):
    """One round of a run; round 0 is the first reference. None: nothing could be measured."""

    round: int
    n: int
    satisfied: float | None
    satisfied_ci95: Bounds | None
    distinct_2: float
    kl_nats: float
    """To the first reference."""
    kl_nats_ci95: Bounds
    win_rate: NotRequired[float | None]
    win_rate_ci95: NotRequired[Bounds]
    labels: NotRequired[dict[str, int]]
    labels_ok: NotRequired[float]
    pairs: NotRequired[int]
    dpo_wall_s: NotRequired[float]
    wall_s: NotRequired[float]
    """Of the round's own stages; `cost_usd` likewise."""
    cost_usd: NotRequired[float]
    reward_model: NotRequired[RewardAgreement]


class StoppedFigures(TypedDict):
    """Where a guard ended a training."""

    step: int
    reason: str
    returned_step: int
    """Whose policy was handed back."""


class PpoFigures(ComparisonFigures):
    """The policy of PPO beside the run's start."""

    kl_nats: float
    kl_nats_ci95: Bounds
    kl_nats_to_sft: NotRequired[float]
    kl_nats_to_sft_ci95: NotRequired[Bounds]
    steps: int | None
    wall_s: float
    stopped: NotRequired[StoppedFigures]
    guard: NotRequired[dict[str, Any]]
    """What the guard concludes, and `judge`, `meaning`, `prompts`, `prompts_left_out`."""


class WholeSummary(ComparisonFigures):
    """What the summary of every run has."""

    constitution: str
    oracle: str
    kl_nats: float
    labels: dict[str, int]
    label_agreement: dict[str, float]
    audit: AuditFigures
    wall_s: float
    cost_usd: float


class RunSummary(WholeSummary):
    """`summary.json`, and what `run --json` prints."""

    reward_model: NotRequired[RewardSummary]
    rounds: NotRequired[list[RoundFigures]]
    ppo: NotRequired[PpoFigures]
    probes: NotRequired[ProbedFigures]
    stages: NotRequired[dict[str, dict[str, Any]]]
    """Stage of another package -> its figures."""


class StageRow(TypedDict):
    """A stage in a run's manifest: its record less the figures."""

    stage: str
    fingerprint: str
    outputs: dict[str, str]
    rows_in: int
    rows_out: int
    set_aside: dict[str, int]
    wall_s: float
    cost_usd: float


class RunManifest(TypedDict):
    """`manifest.json` of a run, written last of all."""

    schema: Literal[1]
    kind: Literal["run"]
    preceptor: str
    versions: dict[str, str]
    settings: dict[str, Any]
    constitution: str
    stages: list[StageRow]
    files: dict[str, str]
    """Path in the folder -> SHA-256; of a folder, of its manifest."""
    ppo_stopped: NotRequired[StoppedFigures]
    wall_s: float
    cost_usd: float
