"""One comparison: pair, principles and order -> Request; what came back -> Judgement.

Letters are of two kinds. What the judge says is about the reply shown first (`a` of the menu) and second
(`b`); what a Judgement holds is about the pair's own a and b. `read` is the one place where the one becomes
the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from constitution.checks import Exchange, looks_refused, run
from constitution.principle import Principle
from judge.models.protocol import Completion, Model, Outcome, Request
from judge.records import Judgement, Letter, Order, Pair, Status
from judge.replies import read_reply
from prompts.errors import TemplateError
from prompts.template import Template, nonce
from prompts.verdict import Unparsed, Verdict, parse

JOINT = "joint"
"""Stands for the principle where several are judged in one ask."""

CHECKS = "checks"
"""The judge's name where a principle's machine check decides."""

SHOWN: Mapping[Order, Mapping[str, Letter]] = {
    "original": {"a": "a", "b": "b", "tie": "tie"},
    "swapped": {"a": "b", "b": "a", "tie": "tie"},
}
"""Order -> letter on the menu -> letter of the pair."""


class Question(NamedTuple):
    """What is the same in all comparisons of a run."""

    judge: Model
    template: Template
    menu: Mapping[str, str]
    """The verdicts on offer."""
    reasoning: bool
    max_tokens: int
    seed: int


def offered(template: Template, tie: bool) -> Mapping[str, str]:
    """The template's menu, with the tie only where one is wanted. Raises TemplateError."""
    if template.kind != "compare":
        raise TemplateError(f"{template.name}: its kind is {template.kind}; judging needs a compare template")
    if tie and "tie" not in template.menu:
        raise TemplateError(f"{template.name}: its verdicts offer no tie; add one, or judge without ties")
    return {letter: words for letter, words in template.menu.items() if tie or letter != "tie"}


def ask(pair: Pair, principles: Sequence[Principle], order: Order, question: Question) -> Request:
    """The request that shows the pair in this order: a first in `original`, b first in `swapped`."""
    shown = (pair.response_a, pair.response_b)
    first, second = shown if order == "original" else shown[::-1]
    messages = question.template.render(
        messages=pair.prompt.messages,
        response_a=first,
        response_b=second,
        principles=tuple(principles),
        menu=question.menu,
        reasoning=question.reasoning,
        nonce=nonce(question.seed, [message.model_dump() for message in pair.prompt.messages], first, second),
    )
    return Request(
        model=question.judge.name,
        endpoint=question.judge.endpoint,
        messages=messages,
        max_tokens=question.max_tokens,
        seed=question.seed,
        menu=dict(question.menu),
        reasoning=question.reasoning,
        stage="label",
        principle=subject(principles),
    )


def subject(principles: Sequence[Principle]) -> str:
    """What a Judgement names as its principle: the one, or `joint`."""
    return principles[0].id if len(principles) == 1 else JOINT


def read(outcome: Outcome, order: Order, request: Request) -> Judgement:
    """The judgement in an outcome, in the pair's own letters.

    The probability comes from the provider's token probabilities, P(a) + P(tie) / 2 over the menu, or else
    from the letter alone (1, 0, or 0.5 for a tie; `sampled`). A reply with no verdict that counts has a
    status and its raw text, and neither letter nor probability:

    - `failed`: the request was not answered;
    - `refused`: the provider says so, or there is no verdict and the words decline;
    - `unparsed`: empty, no verdict on the menu, or cut off before the end that should hold the verdict.
      Without
      reasoning the verdict comes first, so that a reply cut off after it still counts.
    """
    reply = read_reply(outcome)
    if isinstance(outcome, Completion) and reply.status in ("ok", "truncated"):
        verdict = parse(outcome.text, request.menu)
        if isinstance(verdict, Verdict) and not (reply.status == "truncated" and request.reasoning):
            return _decided(outcome, verdict, order, request)
        status: Status = "refused" if looks_refused(reply.text) else "unparsed"
        problem = verdict.reason if isinstance(verdict, Unparsed) else reply.problem
    else:
        status = "unparsed" if reply.status == "empty" else cast(Status, reply.status)
        problem = reply.problem
    return Judgement(
        principle=request.principle,
        order=order,
        letter=None,
        status=status,
        reason=reply.text or problem,
        model=request.model,
        call=request.key,
    )


def _decided(outcome: Completion, verdict: Verdict, order: Order, request: Request) -> Judgement:
    names = SHOWN[order]
    letter = names[verdict.letter]
    given = {
        names[shown]: share
        for shown, share in (outcome.probabilities or {}).items()
        if shown in request.menu and share >= 0
    }
    total = sum(given.values())
    if total > 0:
        probability = (given.get("a", 0.0) + given.get("tie", 0.0) / 2) / total
    else:
        probability = {"a": 1.0, "b": 0.0, "tie": 0.5}[letter]
    said = f"{outcome.text[: verdict.start]} {outcome.text[verdict.end :]}".strip(" \n*_`")
    return Judgement(
        principle=request.principle,
        order=order,
        letter=letter,
        probability=min(probability, 1.0),
        status="tie" if letter == "tie" else "ok",
        reason=said if any(mark.isalnum() for mark in said) else "",
        model=request.model,
        call=request.key,
        sampled=total <= 0,
    )


def check(pair: Pair, principle: Principle) -> Judgement:
    """The judgement of a principle's machine check, for which no model is asked.

    Where exactly one reply passes it is the better, for certain. Where both or neither do, the check cannot
    tell them apart: a tie. It knows no order; `original` stands for both.
    """
    exchange = Exchange(
        system="\n\n".join(message.content for message in pair.prompt.messages if message.role == "system"),
        user=next((message.content for message in pair.prompt.messages[::-1] if message.role == "user"), ""),
    )
    of_a, of_b = (run(principle.check, reply, exchange) for reply in (pair.response_a, pair.response_b))
    a_passes, b_passes = (all(finding.passed for finding in findings) for findings in (of_a, of_b))
    letter: Letter = "tie" if a_passes == b_passes else "a" if a_passes else "b"
    measured = "; ".join(
        f"{name}: {', '.join(finding.measured for finding in findings)}"
        for name, findings in (("a", of_a), ("b", of_b))
    )
    return Judgement(
        principle=principle.id,
        order="original",
        letter=letter,
        probability={"a": 1.0, "b": 0.0, "tie": 0.5}[letter],
        status="tie" if letter == "tie" else "ok",
        reason=f"{measured}; wanted {', '.join(finding.wanted for finding in of_a)}",
        model=CHECKS,
        call=None,
    )
