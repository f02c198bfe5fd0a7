"""Rubrics: what a reply to a prompt is to fulfil, criterion by criterion, with weights of either sign and vetoes.

A constitution says what replies are compared by; a rubric says what one reply is worth by itself. Its criteria are
asked about one by one in the way of `judge.score`, each as a principle of its own, or decided by machine checks.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

from pydantic import Field, model_validator

from preceptor.constitution.checks import Exchange, passes, validate
from preceptor.constitution.principle import SLUG, Constitution, Principle
from preceptor.judge.aggregate import gravest
from preceptor.judge.models.protocol import Dialogue, Model
from preceptor.judge.records import RubricScore, Score, Status
from preceptor.judge.score import HIGH, LOW, ReplyToScore, score
from preceptor.judge.settings import ScoreSettings
from preceptor.prompts.records import Record, canonical_json
from preceptor.prompts.template import Template

BINARY = ("no", "yes")
ALIKE = 1e-6
"""Standard deviation at or below which replies are alike in a criterion."""
VETO_BELOW = 0.5
"""A criterion with a veto is broken below this share of being met; one that is to be avoided, from this share on."""


class Criterion(Record):
    """One thing that a reply is to do, or to avoid."""

    name: str = Field(pattern=SLUG)
    text: str = Field(min_length=1)
    """What holds of a reply that meets it."""
    weight: float = Field(default=1.0, allow_inf_nan=False)
    """Above 0: to be met; below 0: to be avoided. How much it counts beside the others."""
    veto: bool = False
    """Whether a reply that breaks it is worth nothing, whatever else it does."""
    choices: tuple[str, ...] = BINARY
    """Names of the steps from not met to fully met, evenly apart."""
    applies_to: tuple[str, ...] = ()
    """Prompt tags to which it is limited; none: it applies to every prompt."""
    check: dict[str, Any] = Field(default_factory=dict)
    """Machine check that decides it, by the names in `constitution.checks`; empty: a judge does."""

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if not self.weight:
            raise ValueError(f"the weight of {self.name} is 0; leave the criterion out, or give it one")
        if len(self.choices) < 2 or len(set(self.choices)) < len(self.choices):
            raise ValueError(f"the choices of {self.name} are {self.choices}; wanted two or more, each once")
        if faults := list(validate(self.check)):
            raise ValueError(f"the check of {self.name}: {faults[0]}")
        return self

    def applies(self, tags: Sequence[str]) -> bool:
        """Whether it speaks about a prompt with these tags."""
        return not self.applies_to or not {*self.applies_to}.isdisjoint(tags)

    def value(self, grade: float) -> float:
        """A grade from 1 to 10 as a share of being met, 0 to 1."""
        return (grade - LOW) / (HIGH - LOW)


class Rubric(Record):
    """Criteria in the order of the file."""

    name: str = Field(pattern=SLUG)
    criteria: tuple[Criterion, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [one.name for one in self.criteria]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"criterion {twice[0]} comes twice; name every criterion once")
        if not any(one.weight > 0 for one in self.criteria):
            raise ValueError("no criterion has a weight above 0, so that no reply could be worth anything")
        return self

    @property
    def identity(self) -> str:
        """`name#<12 hex of the content hash>`."""
        return f"{self.name}#{hashlib.sha256(canonical_json(self.model_dump(mode='json')).encode()).hexdigest()[:12]}"


def asked_as(rubric: Rubric) -> Constitution:
    """The criteria as principles, by which `judge.score` asks about each on its own."""
    return Constitution(
        name=rubric.name,
        principles=tuple(
            Principle(id=one.name, text=_words(one), applies_to=one.applies_to, check=one.check)
            for one in rubric.criteria
        ),
    )


def _words(one: Criterion) -> str:
    if one.choices == BINARY:
        return f"{one.text}\n(1: this does not hold of the reply; 10: it holds in full)"
    steps = (len(one.choices) - 1) / (HIGH - LOW)
    marks = ", ".join(f"{LOW + number / steps:g}: {name}" for number, name in enumerate(one.choices))
    return f"{one.text}\n({marks})"


class RubricSum(NamedTuple):
    """What criteria add up to."""

    status: Status
    score: float | None
    """0 to 1; None where nothing can be said."""
    vetoed: tuple[str, ...]
    unjudged: tuple[str, ...]


def rubric_sum(criteria: Sequence[Criterion], met: Mapping[str, float | None]) -> RubricSum:
    """sum of w_i v_i over the sum of the weights above 0, between 0 and 1, as HealthBench's (arXiv 2505.08775).

    met: how far each criterion is met, 0 to 1; None: nobody could say. Such a criterion is left out of both sums. A
    veto that is broken makes the score 0. Where a veto, or every criterion to be met, is without an answer, there is no
    score: what is not known is never 0.
    """
    known = {one.name: value for one in criteria if (value := met.get(one.name)) is not None}
    unjudged = tuple(one.name for one in criteria if one.name not in known)
    broken = tuple(
        one.name
        for one in criteria
        if one.veto and one.name in known and (known[one.name] < VETO_BELOW) is (one.weight > 0)
    )
    if broken:
        return RubricSum("ok", 0.0, broken, unjudged)
    whole = sum(one.weight for one in criteria if one.weight > 0 and one.name in known)
    if not whole or any(one.veto for one in criteria if one.name in unjudged):
        return RubricSum("unparsed", None, (), unjudged)
    value = sum(one.weight * known[one.name] for one in criteria if one.name in known) / whole
    return RubricSum("ok", min(1.0, max(0.0, value)), (), unjudged)


def decoupled(rubric: Rubric, rows: Sequence[RubricScore]) -> list[float | None]:
    """Rewards of the replies to one prompt, each criterion normalised among them before they are added up.

    sum of w_i (v_i - mean_i) / std_i over the sum of |w_i|, over the criteria that are known of the reply, with mean
    and standard deviation over the replies of which they are known (GDPO, arXiv 2601.05242): a criterion that nearly
    every reply meets is not drowned by one that varies more. One in which all are alike adds nothing. A reply that
    breaks a veto counts as one that meets nothing and does all that is to be avoided. None for a reply without a score.
    """
    met: list[dict[str, float]] = []
    for row in rows:
        known = {name: value for name, value in row.met.items() if value is not None}
        if row.vetoed:
            known = {one.name: float(one.weight < 0) for one in rubric.criteria if one.name in row.met}
        met.append({} if row.score is None else known)
    total = [0.0] * len(rows)
    weight = [0.0] * len(rows)
    for one in rubric.criteria:
        at = [number for number, known in enumerate(met) if one.name in known]
        values = [met[number][one.name] for number in at]
        mean = sum(values) / len(values) if values else 0.0
        spread = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values)) if values else 0.0
        for number, value in zip(at, values, strict=True):
            weight[number] += abs(one.weight)
            if spread > ALIKE:
                total[number] += one.weight * (value - mean) / spread
    return [
        None if row.score is None or not share else found / share
        for row, found, share in zip(rows, total, weight, strict=True)
    ]


def graded_by(
    rubric: Rubric, reply: ReplyToScore, judge: Model, template: Template, settings: ScoreSettings
) -> Dialogue[RubricScore]:
    """The reply's score by the rubric: one ask for each criterion that no machine check decides.

    template, settings: as `judge.score.score` takes them, but that criteria are always asked one by one.
    """
    each = settings.model_copy(update={"principles": "each"})
    return scored(rubric, reply, (yield from score(reply, asked_as(rubric), judge, template, each)))


def scored(rubric: Rubric, reply: ReplyToScore, said: Score) -> RubricScore:
    """The reply's score by the rubric, of what the judge said about each criterion and of the checks."""
    criteria = [one for one in rubric.criteria if one.applies(reply.prompt.tags)]
    grades = {grade.principle: grade for grade in said.grades}
    met: dict[str, float | None] = {}
    for one in criteria:
        grade = grades.get(one.name)
        if one.check:
            met[one.name] = float(passes(one.check, reply.text, Exchange.of(reply.prompt)))
        else:
            met[one.name] = None if grade is None or grade.grade is None else one.value(grade.grade)
    made = rubric_sum(criteria, met)
    missing = [grade.status for grade in said.grades if grade.grade is None]
    status = made.status if made.score is not None else gravest(missing)
    return RubricScore(
        id=reply.id,
        prompt=reply.prompt,
        text=reply.text,
        status=status,
        score=made.score,
        reward=None if made.score is None else 2 * made.score - 1,
        met=met,
        vetoed=made.vetoed,
        unjudged=made.unjudged,
        grades=said.grades,
        rubric=rubric.identity,
        judge=said.judge,
    )
