"""What the judge side makes, in the order in which it comes to be.

    Response -> Critique -> Revision -> Pair -> Judgement -> Label -> Preference

Every row names its parents: a Preference has the id of its Label, a Label holds its Judgements, a Judgement names
the ledger's key of the call that gave it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from preceptor.prompts.records import Message, Prompt, Record

Status = Literal["ok", "tie", "inconsistent", "refused", "unparsed", "failed", "abstained"]
"""What became of a comparison. Only `ok` rows become preferences; no status stands for a number. `abstained`: there
is a winner, and no certificate stands behind it."""

ReplyStatus = Literal["ok", "refused", "truncated", "empty", "failed"]
JudgementFault = Literal["", "refused", "off-topic", "truncated", "empty", "failed"]
"""Why a judgement holds no verdict. `off-topic`: words, and none of them a verdict on offer."""

Letter = Literal["a", "b", "tie"]
Order = Literal["original", "swapped", "none"]
"""How the replies were shown: a first, b first, or side by side, where neither comes first."""


class Response(Record):
    """One sampled reply to a prompt."""

    id: str
    prompt: Prompt
    text: str
    thoughts: str = ""
    """What the model thought before it replied, as far as its provider shows it; no part of the reply."""
    model: str
    sample: int
    """Number of the sample among those for the prompt, from 0."""
    status: ReplyStatus
    problem: str = ""
    """Why the status is not ok, in the provider's words."""
    call: str
    """Key of the call in the ledger."""


class Critique(Record):
    """What a reply does against one principle."""

    principle: str
    text: str
    thoughts: str = ""
    """What the critic thought before it replied."""
    call: str


class Revision(Record):
    """A response and what critique and revision made of it, round by round."""

    id: str
    response: Response
    critiques: tuple[Critique, ...]
    drafts: tuple[str, ...]
    """The reply after each round; the last is the revised reply."""
    calls: tuple[str, ...]
    """Ledger keys of the revising calls, one for each draft."""
    text: str
    """The final reply; the original where no round succeeded."""
    thoughts: tuple[str, ...] = ()
    """What the model thought before each draft; no part of any."""
    status: ReplyStatus
    problem: str = ""
    constitution: str
    model: str


class Pair(Record):
    """Two replies to one prompt, waiting for a judge. `preferred` is gold that no judge sees."""

    id: str
    prompt: Prompt
    response_a: str
    response_b: str
    preferred: Letter | None = None
    sources: tuple[str, str] | None = None
    """Ids of the responses or revisions from which a and b come."""
    models: tuple[str, str] | None = None
    """Who wrote a and b, as far as known: a judge may prefer its own words."""


class Group(Record):
    """Replies to one prompt, waiting to be ranked."""

    id: str
    prompt: Prompt
    responses: tuple[str, ...] = Field(min_length=2)
    sources: tuple[str, ...]
    """Ids of the replies."""
    models: tuple[str, ...] | None = None


class Ranking(Record):
    """What the comparisons within a group say of all its replies."""

    id: str
    prompt: Prompt
    responses: tuple[str, ...]
    sources: tuple[str, ...]
    scores: tuple[float | None, ...]
    """Bradley-Terry strengths in nats, of mean 0; None for a reply without a usable comparison."""
    labels: tuple[str, ...]
    """Ids of the labels that the scores rest on."""
    constitution: str
    judge: str


class Judgement(Record):
    """One verdict in one order about one principle, or about all applicable ones together (`joint`)."""

    principle: str
    order: Order
    letter: Letter | None = None
    """The better reply, a or b as in the Pair whatever order was shown; None where there is no verdict."""
    probability: float | None = Field(default=None, ge=0, le=1)
    """That response a is the better; None where there is no verdict."""
    status: Status
    reason: str
    """The judge's words: its reasoning, or the raw reply where no verdict was read."""
    thoughts: str = ""
    """What the judge thought before it replied; no verdict is read from it."""
    model: str
    """Who judged; `checks` for a principle's own machine check."""
    call: str | None = None
    """Ledger key; None for a machine check."""
    sampled: bool = False
    """True where `probability` comes from the letter alone, because the provider gave no token probabilities."""
    fault: JudgementFault = ""
    """Why there is no verdict; empty where there is one."""


class Vote(Record):
    """What one judge's judgements of a pair add up to, where several have a say."""

    judge: str
    step: int = Field(ge=0)
    """0 for the judges who see every pair, 1 for those to whom some are escalated, and so on."""
    status: Status
    probability: float | None = Field(default=None, ge=0, le=1)


class Grade(Record):
    """One grade of a reply about one principle, or about all applicable ones together (`joint`)."""

    principle: str
    status: Status
    grade: float | None = Field(default=None, ge=1, le=10)
    """1 to 10; None where there is none."""
    parsed: bool = False
    """True where the grade is the number that the judge wrote, because it gave no token probabilities."""
    reason: str
    thoughts: str = ""
    """What the judge thought before it replied."""
    call: str


class Score(Record):
    """How well one reply follows the principles."""

    id: str
    prompt: Prompt
    text: str
    status: Status
    score: float | None = Field(default=None, ge=1, le=10)
    """1 to 10; None where the judge gave no grade."""
    reward: float | None = Field(default=None, ge=-1, le=1)
    """The score on [-1, 1]."""
    parsed: bool
    """True where some grade is a written number and no expected value."""
    grades: tuple[Grade, ...]
    unjudged: tuple[str, ...] = ()
    constitution: str
    judge: str


class RubricScore(Record):
    """What one reply is worth by a rubric."""

    id: str
    prompt: Prompt
    text: str
    status: Status
    score: float | None = Field(default=None, ge=0, le=1)
    """0 to 1; None where it cannot be said."""
    reward: float | None = Field(default=None, ge=-1, le=1)
    """The score on [-1, 1]."""
    met: dict[str, float | None]
    """Criterion -> how far it is met, 0 to 1; None where nobody could say."""
    vetoed: tuple[str, ...] = ()
    """Criteria with a veto that the reply breaks."""
    unjudged: tuple[str, ...] = ()
    """Criteria without an answer, which have no part in the score."""
    grades: tuple[Grade, ...]
    """What the judge said of each criterion."""
    rubric: str
    judge: str


class Label(Record):
    """A comparison and what the judgements about it add up to."""

    id: str
    status: Status
    probability: float | None = Field(default=None, ge=0, le=1)
    """That response a is the better; absent where the judgements add up to none."""
    prompt: Prompt
    response_a: str
    response_b: str
    preferred: Letter | None = None
    sources: tuple[str, str] | None = None
    models: tuple[str, str] | None = None
    judgements: tuple[Judgement, ...]
    votes: tuple[Vote, ...] = ()
    """One for each judge asked, where there was more than one; the last step's votes made the label."""
    unjudged: tuple[str, ...] = ()
    """Principles that applied but got no complete verdict, and so have no part in the probability."""
    constitution: str
    judge: str
    """Who made the label: one judge, or those of the last step joined by ` + `."""


class CertifiedStep(Record):
    """One step's judges, and the labels of theirs that are kept."""

    judge: str
    """As labels name it."""
    threshold: float
    """Labels of at least this confidence are kept."""
    seen: int
    """Gold rows that came to the step."""
    n: int
    """Those of them that are kept."""
    right: int
    """Those that agree with gold."""
    low: float
    """Lower end of the agreement, by the exact binomial bound at the step's part of the level."""


class RefusedStep(Record):
    """One step's judges, of whose labels none can be certified: they are not asked about the rows."""

    judge: str
    reason: str
    needed: int | None = None
    """Gold rows that would be about enough; None: no number would."""


class Certificate(Record):
    """That the labels kept agree with gold in at least `target`, at confidence 1 - `level`; or why it is not said."""

    target: float
    level: float
    ways: int = 1
    """Ways in which each step was asked before one was certified, each tested at an equal part of the level."""
    granted: bool
    reason: str = ""
    """Why it is not granted."""
    steps: tuple[CertifiedStep, ...]
    refused: tuple[RefusedStep, ...] = ()
    gold: int
    """Gold rows."""
    labels: int
    """Rows that were labelled."""
    kept: int
    """Those whose label the certificate is about."""
    people: int = 0
    """Those that people decided, or the judge whose verdicts are the gold; it is not about them."""
    shift_p: float
    """Of the test whether gold and labels are alike, all features together."""
    shift_feature: str
    """In which they are least alike."""
    shift_level: float
    """At or below which they are unlike, and nothing is certified."""
    agreement_naive: float | None = None
    """Mean confidence of the labels with a winner: what the judge would have one believe."""
    agreement: float | None = None
    """Of all of them, corrected by gold (`judge.statistics.prediction_powered`)."""
    agreement_ci95: tuple[float, float] | None = None
    constitution: str
    judge: str
    floating: tuple[str, ...] = ()
    """Judges behind whose name the provider can put other weights."""
    date: str
    """YYYY-MM-DD."""


class DriftLook(Record):
    """One look at a label folder's judges: some rows were asked again, past the ledger."""

    date: str
    """YYYY-MM-DD."""
    look: int
    """Its number in the ledger, which is in every request."""
    tolerance: float
    """The share of other outcomes that the judges' own unsteadiness explains."""
    n: int
    """Rows with an outcome both times."""
    changed: int
    """Those whose outcome is another."""
    principles: dict[str, tuple[int, int]] = Field(default_factory=dict)
    """The same of each principle, where each was asked about on its own."""
    failed: int = 0
    """Rows that got no answer; they prove nothing."""


class Opinion(Record):
    """What the judgements about one principle say of a preference."""

    principle: str
    probability: float = Field(ge=0, le=1)
    """That the chosen reply is the better, by this principle alone."""


class Preference(Record):
    """An `ok` label in TRL's explicit-prompt conversational form, with the probability beside it."""

    id: str
    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    probability: float = Field(ge=0.5, le=1)
    """That the chosen reply is the better."""
    margin: float = Field(ge=0, le=1)
    """2 * probability - 1."""
    constitution: str
    judge: str
    tags: tuple[str, ...] = ()
    principles: tuple[Opinion, ...] = ()
    """By principle, where the judge was asked about each on its own."""
    gold: Literal["chosen", "rejected", "tie"] | None = None
    """The better reply by people's verdict, where one is known; it takes no part in training."""
    meta: dict[str, Any] = Field(default_factory=dict)
