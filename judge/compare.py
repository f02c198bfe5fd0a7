"""One comparison: pair, principles and order -> Request; what came back -> Judgement.

Letters are of two kinds. What the judge says is about the reply shown first (`a` of the menu) and second
(`b`); what a Judgement holds is about the pair's own a and b. `read` is the one place where the one becomes
the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from preceptor.constitution.checks import Exchange, looks_refused, run
from preceptor.constitution.principle import Principle
from preceptor.judge.models.protocol import Completion, Model, Outcome, Request, SideBySide
from preceptor.judge.records import Judgement, JudgementFault, Letter, Order, Pair, Status
from preceptor.judge.replies import read_reply
from preceptor.judge.settings import CHECKS
from preceptor.prompts.errors import TemplateError
from preceptor.prompts.records import content_id
from preceptor.prompts.template import Template, nonce
from preceptor.prompts.verdict import Unparsed, Verdict, parse

SIDE_BY_SIDE = "side_by_side"
"""Kind of the templates that show the replies side by side."""
JOINT = "joint"
"""Stands for the principle where several are judged in one ask."""

SHOWN: Mapping[Order, Mapping[str, Letter]] = {
    "original": {"a": "a", "b": "b", "tie": "tie"},
    "swapped": {"a": "b", "b": "a", "tie": "tie"},
    "none": {"a": "a", "b": "b", "tie": "tie"},
}
"""Order -> letter on the menu -> letter of the pair."""


STATUS: Mapping[JudgementFault, Status] = {
    "refused": "refused",
    "off-topic": "unparsed",
    "truncated": "unparsed",
    "empty": "unparsed",
    "failed": "failed",
}
"""Why there is no verdict -> the status of the row."""


class ComparisonSetup(NamedTuple):
    """What is the same in all comparisons of a run."""

    judge: Model
    template: Template
    menu: Mapping[str, str]
    """The verdicts on offer."""
    reasoning: bool
    max_tokens: int
    seed: int
    own_limit: bool = False
    shots: int = 0
    """Most worked examples that each principle brings."""
    structured: bool = False
    clamp: tuple[float, float] | None = None
    """Bounds of a probability that was given after reasoning."""
    sample: int = 0
    effort: str = ""


class Shot(NamedTuple):
    """A principle's example as the judge sees it."""

    number: int
    """Of its principle in the ask, from 1."""
    prompt: str
    response_a: str
    response_b: str
    because: str
    verdict: str


def offered(template: Template, tie: bool) -> Mapping[str, str]:
    """The template's menu, with the tie only where one is wanted. Raises TemplateError."""
    if template.kind not in ("compare", SIDE_BY_SIDE):
        raise TemplateError(f"{template.name}: its kind is {template.kind}; judging needs a compare template")
    if tie and "tie" not in template.menu:
        raise TemplateError(f"{template.name}: its verdicts offer no tie; add one, or judge without ties")
    return {letter: words for letter, words in template.menu.items() if tie or letter != "tie"}


def ask(pair: Pair, principles: Sequence[Principle], order: Order, question: ComparisonSetup) -> Request:
    """The request that shows the pair in this order: a first in `original`, b first in `swapped`, side by side in
    `none`."""
    if order == "none":
        return _ask_beside(pair, principles, question)
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
        shots=shots_of(principles, question),
        structured=question.structured,
    )
    return Request(
        model=question.judge.name,
        endpoint=question.judge.endpoint,
        messages=messages,
        max_tokens=question.max_tokens,
        own_limit=question.own_limit,
        seed=question.seed,
        menu=dict(question.menu),
        reasoning=question.reasoning,
        structured=question.structured,
        sample=question.sample,
        effort=question.effort,
        stage="label",
        principle=subject(principles),
    )


def _ask_beside(pair: Pair, principles: Sequence[Principle], question: ComparisonSetup) -> Request:
    """The template is filled for each reply by itself, under the name that it has in the menu: what stands before and
    behind the reply and its name is the same. Raises TemplateError where it is not."""
    mark = nonce(
        question.seed, [one.model_dump() for one in pair.prompt.messages], pair.response_a, pair.response_b
    )
    between = f"<<<REPLIES {mark}>>>"
    filled = [
        question.template.render(
            messages=pair.prompt.messages,
            response=response,
            name=name,
            principles=tuple(principles),
            menu=question.menu,
            nonce=mark,
            shots=shots_of(principles, question),
            between=between,
        )
        for response, name in ((pair.response_a, "A"), (pair.response_b, "B"))
    ]
    for at in range(len(filled[0])):
        parts = [made[at].content.split(between) for made in filled]  # before, reply, name, after
        if [len(some) for some in parts] == [4, 4]:
            break
    else:
        raise TemplateError(
            f"{question.template.name}: no message has `between` three times; wanted it before the reply, behind it, "
            "and behind its name"
        )
    (before, reply_a, name_a, after), (_, reply_b, name_b, _) = parts
    place = filled[0][at].model_copy(update={"content": f"{before}{between}{after}"})
    return Request(
        model=question.judge.name,
        endpoint=question.judge.endpoint,
        messages=(*filled[0][:at], place, *filled[0][at + 1 :]),
        max_tokens=question.max_tokens,
        own_limit=question.own_limit,
        seed=question.seed,
        menu=dict(question.menu),
        reasoning=False,
        side_by_side=SideBySide(mark=between, replies=(reply_a, reply_b), names=(name_a, name_b)),
        sample=question.sample,
        effort=question.effort,
        stage="label",
        principle=subject(principles),
    )


def shots_of(principles: Sequence[Principle], question: ComparisonSetup) -> tuple[Shot, ...]:
    """The worked examples of an ask: the first few of each principle, the better reply as A or B by its hash.

    They depend on the principles alone, so that they stand in the part of the prompt that providers cache.
    """
    shots = []
    for number, principle in enumerate(principles, start=1):
        for example in principle.examples[: question.shots]:
            letter = "ab"[int(content_id("shot", principle.id, example.better, example.worse)[-1], 16) % 2]
            first, second = (example.better, example.worse)[:: 1 if letter == "a" else -1]
            shots.append(Shot(number, example.prompt, first, second, example.because, question.menu[letter]))
    return tuple(shots)


def subject(principles: Sequence[Principle]) -> str:
    """What a Judgement names as its principle: the one, or `joint`."""
    return principles[0].id if len(principles) == 1 else JOINT


def read(
    outcome: Outcome, order: Order, request: Request, clamp: tuple[float, float] | None = None
) -> Judgement:
    """The judgement in an outcome, in the pair's own letters.

    The probability comes from the provider's token probabilities, P(a) + P(tie) / 2 over the menu, or else
    from the letter alone (1, 0, or 0.5 for a tie; `sampled`). After reasoning the judge is nearly certain of
    whatever it has just argued for; `clamp` then bounds the probability (Bai et al. 2022, section 4.1: 0.4 to
    0.6). A reply with no verdict that counts has a status, a fault and its raw text, and neither letter nor
    probability:

    - `failed`: the request was not answered;
    - `refused`: the provider says so, or there is no verdict and the words decline;
    - `unparsed`: empty, off-topic (no verdict on the menu), or truncated before the end that should hold the
      verdict. Of a reply that was to bring the verdict alone, one that is cut off counts where the verdict is the
      first thing in it and the cut cannot have taken a part of it.
    """
    found = fault_of(outcome, request)
    if found.verdict is not None:
        assert isinstance(outcome, Completion)
        return _decided(outcome, found.verdict, order, request, clamp)
    return Judgement(
        principle=request.principle,
        order=order,
        letter=None,
        status=found.status,
        reason=read_reply(outcome).text or found.problem,
        thoughts=read_reply(outcome).thoughts,
        model=request.model,
        call=request.key,
        fault=found.fault,
    )


class VerdictReading(NamedTuple):
    """Whether an outcome holds a verdict, and why not."""

    fault: JudgementFault
    status: Status
    problem: str
    verdict: Verdict | None = None


def fault_of(outcome: Outcome, request: Request) -> VerdictReading:
    """Why the outcome of a request with a menu holds no verdict; no fault where it does."""
    reply = read_reply(outcome)
    if not isinstance(outcome, Completion) or reply.status not in ("ok", "truncated"):
        fault = cast(JudgementFault, reply.status)
        return VerdictReading(fault, STATUS[fault], reply.problem)
    verdict = parse(outcome.text, request.menu)
    if isinstance(verdict, Verdict) and (
        reply.status == "ok"
        or (
            outcome.finish_reason == "length"
            and not request.reasoning
            and survives_a_cut(outcome.text, verdict)
        )
    ):
        return VerdictReading("", "ok", "", verdict)
    fault = "refused" if looks_refused(reply.text) else "truncated" if reply.problem else "off-topic"
    return VerdictReading(
        fault, STATUS[fault], verdict.reason if isinstance(verdict, Unparsed) else reply.problem
    )


def survives_a_cut(text: str, verdict: Verdict) -> bool:
    """Whether a verdict counts although the reply is cut off: nothing stands before it, and it is not cut itself.

    "Score: 1" may have been to become "Score: 10", and whatever comes after words of its own may be quoted by them.
    """
    whole = verdict.grade is None or verdict.end < len(text.rstrip())
    return whole and not any(map(str.isalnum, text[: verdict.start]))


def words_beside(text: str, verdict: Verdict) -> str:
    """What a judge said beside its verdict."""
    said = f"{text[: verdict.start]} {text[verdict.end :]}".strip(" \n*_`")
    return said if any(mark.isalnum() for mark in said) else ""


def _decided(
    outcome: Completion,
    verdict: Verdict,
    order: Order,
    request: Request,
    clamp: tuple[float, float] | None,
) -> Judgement:
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
    if clamp is not None and request.reasoning:
        probability = min(max(probability, clamp[0]), clamp[1])
    return Judgement(
        principle=request.principle,
        order=order,
        letter=letter,
        probability=min(probability, 1.0),
        status="tie" if letter == "tie" else "ok",
        reason=words_beside(outcome.text, verdict),
        thoughts=outcome.thoughts,
        model=request.model,
        call=request.key,
        sampled=total <= 0,
    )


def check(pair: Pair, principle: Principle) -> Judgement:
    """The judgement of a principle's machine check, for which no model is asked.

    Where exactly one reply passes it is the better, for certain. Where both or neither do, the check cannot
    tell them apart: a tie. It knows no order; `original` stands for both.
    """
    exchange = Exchange.of(pair.prompt)
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
