"""Pair -> Label: who judges which principles in which orders, and what it adds up to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from constitution.principle import Constitution, Principle
from judge import compare
from judge.errors import PairsError
from judge.models.protocol import Dialogue, Model
from judge.records import Judgement, Label, Order, Pair
from judge.weigh import Sum, sum_up, weights
from prompts.records import Record
from prompts.template import Template, load

ORDERS: dict[str, tuple[Order, ...]] = {"both": ("original", "swapped"), "original": ("original",)}


class LabelSettings(Record):
    """How pairs are judged."""

    principles: Literal["joint", "each", "sample"] = "joint"
    """All applicable principles in one ask; one ask for each; or one of them drawn for each pair."""
    orders: Literal["both", "original"] = "both"
    reasoning: bool = False
    """Whether the judge explains before its verdict. Without, the probability of the verdict is read
    directly.
    """
    tie: bool = False
    """Whether the judge may say tie."""
    max_tokens: int = Field(default=512, ge=1)
    seed: int = 0
    template: str = ""
    """File of one's own; empty: the shipped one in the judge's dialect."""


def template_for(judge: Model, settings: LabelSettings) -> Template:
    """The template by which this judge is asked. Raises TemplateError, also where it does not suit the
    settings.
    """
    template = load(settings.template or "compare", judge.dialect)
    compare.offered(template, settings.tie)
    return template


def label(
    pair: Pair,
    constitution: Constitution,
    judge: Model | None,
    template: Template | None,
    settings: LabelSettings,
) -> Dialogue[Label]:
    """The label of one pair. `judge` is None where machine checks alone judge; `template` None means the
    shipped one.

    A principle that carries a machine check is decided by its check alone; the judge is asked about the
    others that apply to the prompt's tags: all in one ask (`joint`), each in its own (`each`), or one drawn
    by seed and pair id (`sample`). All asks of a pair go out at once. How verdicts add up is
    `judge.weigh.sum_up`'s to say. Applicable principles without a complete verdict are listed in `unjudged`;
    those that `sample` did not draw were never meant to be judged and are not. Equal replies are a tie that
    nobody is asked about. A pair to whose tags no principle applies is `failed`, because nothing was judged.

    Raises PairsError if there is neither a judge nor any machine check.
    """
    if judge is None and not any(principle.check for principle in constitution.principles):
        raise PairsError(
            f"{constitution.identity} has no machine checks; the judge `checks` needs some, or name a model"
        )
    applicable = constitution.for_prompt(pair.prompt.tags)
    if pair.response_a == pair.response_b:
        return _label(pair, Sum("tie", 0.5, ()), (), constitution, judge)
    judgements = [compare.check(pair, principle) for principle in applicable if principle.check]
    open_ones = tuple(principle for principle in applicable if not principle.check)
    if judge is None:
        added = sum_up(judgements, weights(applicable))
        return _label(pair, added._replace(incomplete=_ids(open_ones)), judgements, constitution, None)
    groups = _groups(pair, open_ones, settings)
    judgements += yield from _asked(pair, groups, judge, template or template_for(judge, settings), settings)
    added = sum_up(judgements, weights(applicable))
    if compare.JOINT in added.incomplete:
        added = added._replace(incomplete=_ids(open_ones))
    return _label(pair, added, judgements, constitution, judge)


def _groups(
    pair: Pair, principles: Sequence[Principle], settings: LabelSettings
) -> tuple[tuple[Principle, ...], ...]:
    """The principles of each ask."""
    if not principles:
        return ()
    if settings.principles == "joint":
        return (tuple(principles),)
    if settings.principles == "each":
        return tuple((principle,) for principle in principles)
    drawn = int(hashlib.sha256(f"{settings.seed}:{pair.id}".encode()).hexdigest(), 16) % len(principles)
    return ((principles[drawn],),)


def _asked(
    pair: Pair,
    groups: Sequence[tuple[Principle, ...]],
    judge: Model,
    template: Template,
    settings: LabelSettings,
) -> Dialogue[list[Judgement]]:
    question = compare.Question(
        judge=judge,
        template=template,
        menu=compare.offered(template, settings.tie),
        reasoning=settings.reasoning,
        max_tokens=settings.max_tokens,
        seed=settings.seed,
    )
    orders = [(group, order) for group in groups for order in ORDERS[settings.orders]]
    if not orders:
        return []
    requests = tuple(compare.ask(pair, group, order, question) for group, order in orders)
    outcomes = yield requests
    return [
        compare.read(outcome, order, request)
        for outcome, (_, order), request in zip(outcomes, orders, requests, strict=True)
    ]


def _label(
    pair: Pair, added: Sum, judgements: Sequence[Judgement], constitution: Constitution, judge: Model | None
) -> Label:
    return Label(
        id=pair.id,
        status=added.status,
        probability=added.probability,
        prompt=pair.prompt,
        response_a=pair.response_a,
        response_b=pair.response_b,
        preferred=pair.preferred,
        sources=pair.sources,
        judgements=tuple(judgements),
        unjudged=added.incomplete,
        constitution=constitution.identity,
        judge=judge.name if judge else compare.CHECKS,
    )


def _ids(principles: Sequence[Principle]) -> tuple[str, ...]:
    return tuple(principle.id for principle in principles)
