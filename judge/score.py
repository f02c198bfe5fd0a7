"""Response -> Score: how well one reply follows the principles, without another beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from preceptor.constitution.principle import Constitution, Principle
from preceptor.judge import compare
from preceptor.judge.aggregate import gravest, weights
from preceptor.judge.groupings import GROUPINGS, Drawing
from preceptor.judge.models.protocol import Completion, Dialogue, Model, Outcome, Request
from preceptor.judge.records import Grade, Score, Status
from preceptor.judge.replies import read_reply
from preceptor.judge.settings import ANSWER_TOKENS, ScoreSettings
from preceptor.prompts.errors import TemplateError
from preceptor.prompts.records import Prompt
from preceptor.prompts.template import Template, load, nonce
from preceptor.prompts.verdict import Verdict

LOW, HIGH = 1, 10


class ReplyToScore(NamedTuple):
    """A reply that is to be graded."""

    id: str
    prompt: Prompt
    text: str


def template_for(judge: Model, settings: ScoreSettings) -> Template:
    """The template by which this judge is asked. Raises TemplateError."""
    template = load(settings.template or "score", judge.dialect)
    if template.kind != "score":
        raise TemplateError(f"{template.name}: its kind is {template.kind}; grading needs a score template")
    return template


def score(
    reply: ReplyToScore, constitution: Constitution, judge: Model, template: Template, settings: ScoreSettings
) -> Dialogue[Score]:
    """The score of one reply: the mean grade over the principles that apply, by weight.

    A grade is the expected value over the probabilities of the numbers 1 to 10 at the place of the verdict
    (Lee et al. 2023, arXiv 2309.00267, section 2.2.2, direct RLAIF), or where the judge gives no probabilities the
    number that it wrote (`parsed`). `reward` is the score on [-1, 1]. Machine checks have no grades: their
    principles are left to checks and stand in `unjudged`, as do those without a readable grade. Without any grade
    the score has a status and no number: a failed judgement is never a low one.
    """
    applicable = constitution.for_prompt(reply.prompt.tags)
    open_ones = tuple(principle for principle in applicable if not principle.check)
    groups = GROUPINGS[settings.principles].asks(open_ones, Drawing(settings.seed, reply.id, 1))
    requests = tuple(_ask(reply, group, judge, template, settings) for group in groups)
    outcomes = (yield requests) if requests else ()
    grades = tuple(_read(outcome, request) for outcome, request in zip(outcomes, requests, strict=True))
    return _score(reply, applicable, grades, constitution, judge)


def _ask(
    reply: ReplyToScore, group: Sequence[Principle], judge: Model, template: Template, settings: ScoreSettings
) -> Request:
    messages = template.render(
        messages=reply.prompt.messages,
        response=reply.text,
        principles=tuple(group),
        menu=template.menu,
        reasoning=settings.reasoning,
        nonce=nonce(settings.seed, [message.model_dump() for message in reply.prompt.messages], reply.text),
    )
    return Request(
        model=judge.name,
        endpoint=judge.endpoint,
        messages=messages,
        max_tokens=settings.max_tokens or ANSWER_TOKENS,
        own_limit=settings.max_tokens is not None,
        seed=settings.seed,
        sample=settings.sample,
        menu=dict(template.menu),
        reasoning=settings.reasoning,
        effort=settings.effort or "",
        stage="score",
        principle=compare.subject(group),
    )


def _read(outcome: Outcome, request: Request) -> Grade:
    found = compare.fault_of(outcome, request)
    verdict = found.verdict
    if verdict is None:
        reply = read_reply(outcome)
        return Grade(
            principle=request.principle,
            status=found.status,
            reason=reply.text or found.problem,
            thoughts=reply.thoughts,
            call=request.key,
        )
    assert isinstance(outcome, Completion)
    expected = expected_grade(outcome.probabilities)
    return Grade(
        principle=request.principle,
        status="ok",
        grade=_written(verdict) if expected is None else expected,
        parsed=expected is None,
        reason=compare.words_beside(outcome.text, verdict),
        thoughts=outcome.thoughts,
        call=request.key,
    )


def _written(verdict: Verdict) -> float:
    """The number that the judge wrote: 8.5 is neither 8 nor 9."""
    return float(verdict.letter) if verdict.grade is None else verdict.grade


def expected_grade(probabilities: Mapping[str, float] | None) -> float | None:
    """Sum of grade * probability over the grades that have one; None where none has."""
    given = {int(grade): share for grade, share in (probabilities or {}).items() if share > 0}
    total = sum(given.values())
    return sum(grade * share for grade, share in given.items()) / total if total > 0 else None


def _score(
    reply: ReplyToScore,
    applicable: Sequence[Principle],
    grades: tuple[Grade, ...],
    constitution: Constitution,
    judge: Model,
) -> Score:
    weight = weights(applicable)
    counted = [(weight[grade.principle], grade.grade) for grade in grades if grade.grade is not None]
    value = sum(w * g for w, g in counted) / sum(w for w, _ in counted) if counted else None
    status: Status = "ok" if counted else gravest(grade.status for grade in grades)
    graded = {grade.principle for grade in grades if grade.grade is not None}
    return Score(
        id=reply.id,
        prompt=reply.prompt,
        text=reply.text,
        status=status,
        score=value,
        reward=None if value is None else (value - LOW) / (HIGH - LOW) * 2 - 1,
        parsed=any(grade.parsed for grade in grades),
        grades=grades,
        unjudged=tuple(one.id for one in applicable if one.check or not {one.id, compare.JOINT} & graded),
        constitution=constitution.identity,
        judge=judge.name,
    )
