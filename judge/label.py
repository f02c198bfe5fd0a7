"""Pair -> Label: who judges which principles in which orders, and what it adds up to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from preceptor.constitution.errors import UserError
from preceptor.constitution.principle import Constitution, Principle
from preceptor.judge import compare
from preceptor.judge.aggregate import Sum, sum_up, weights
from preceptor.judge.errors import PairsError
from preceptor.judge.groupings import GROUPINGS, Drawing
from preceptor.judge.models.protocol import Dialogue, Model
from preceptor.judge.records import Judgement, Label, Order, Pair
from preceptor.judge.settings import ANSWER_TOKENS, CHECKS, LabelSettings
from preceptor.prompts.errors import TemplateError
from preceptor.prompts.template import Template, load

BOTH: tuple[Order, Order] = ("original", "swapped")


def template_for(judge: Model, settings: LabelSettings) -> Template:
    """The template by which this judge is asked. Raises TemplateError where it does not suit the settings, and
    UserError where the judge does not.
    """
    settings = _suited(settings, judge)
    kind = compare.SIDE_BY_SIDE if settings.orders == "none" else "compare"
    template = load(settings.template or kind, judge.dialect)
    compare.offered(template, settings.tie)
    if template.kind != kind:
        raise TemplateError(
            f"{template.name}: its kind is {template.kind}; {judge.name} is asked by one of kind {kind}"
        )
    if settings.shots and "shots" not in template.uses:
        raise TemplateError(
            f"{template.name}: it has no place for worked examples; use `shots`, or ask without"
        )
    if settings.structured and not judge.capabilities.structured:
        raise UserError(f"{judge.name} cannot be held to a JSON schema; leave out --structured")
    return template


def require_order(judges: Sequence[Model | None], settings: LabelSettings) -> None:
    """Raises UserError for replies side by side where no judge reads them so."""
    if settings.orders == "none" and not any(judge and judge.capabilities.side_by_side for judge in judges):
        names = ", ".join(judge.name for judge in judges if judge) or CHECKS
        raise UserError(
            f"--orders none is for judges in this process, which read both replies side by side; {names} cannot: leave "
            "it out, or add a judge such as hf/FOLDER"
        )


def label(
    pair: Pair,
    constitution: Constitution,
    judge: Model | None,
    template: Template | None,
    settings: LabelSettings,
    again: Callable[[Label], bool] | None = None,
) -> Dialogue[Label]:
    """The label of one pair. `judge` is None where machine checks alone judge; `template` None means the
    shipped one.

    again: whether the second order is to be asked, by the label of the first, which is then drawn by the pair's id.
    Both go out at once where it is None, and where there is more than the one verdict: a principle that lacks one in
    the second order leaves the label to the others, and nobody can foretell that.

    A principle that carries a machine check is decided by its check alone; the judge is asked about the
    others that apply to the prompt's tags, in the asks of `judge.groupings`. All asks of a pair go out at once. How
    verdicts add up is `judge.aggregate.sum_up`'s to say. Applicable principles without a complete verdict are listed
    in `unjudged`; those that `sample` did not draw were never meant to be judged and are not. Equal replies are a tie
    that nobody is asked about. A pair to whose tags no principle applies is `failed`, because nothing was judged.

    Raises PairsError if there is neither a judge nor any machine check.
    """
    if judge is None and not any(principle.check for principle in constitution.principles):
        raise PairsError(
            f"{constitution.identity} has no machine checks; the judge `checks` needs some, or name a model"
        )
    applicable = constitution.for_prompt(pair.prompt.tags)
    if pair.response_a == pair.response_b:
        return _label(pair, summed(pair, (), constitution), (), constitution, judge)
    judgements = [compare.check(pair, principle) for principle in applicable if principle.check]
    open_ones = tuple(principle for principle in applicable if not principle.check)
    settings = _suited(settings, judge)
    if judge is None:
        added = summed(pair, judgements, constitution, by_checks=True)
        return _label(pair, added, judgements, constitution, None)
    drawing = Drawing(settings.seed, str(pair.prompt.meta.get("canary_of", pair.id)), settings.draws)
    groups = GROUPINGS[settings.principles].asks(open_ones, drawing)
    template = template or template_for(judge, settings)
    orders = orders_of(pair, settings)
    if again is not None and len(orders) == 2 and len(groups) == 1 and not judgements:
        first = orders_of(pair, settings.model_copy(update={"orders": "one"}))
        judgements += yield from _asked(pair, groups, judge, template, settings, first)
        so_far = _label(pair, summed(pair, judgements, constitution), judgements, constitution, judge)
        if not again(so_far):
            return so_far
        orders = tuple(order for order in orders if order not in first)
    judgements += yield from _asked(pair, groups, judge, template, settings, orders)
    return _label(pair, summed(pair, judgements, constitution), judgements, constitution, judge)


def summed(
    pair: Pair | Label, judgements: Sequence[Judgement], constitution: Constitution, by_checks: bool = False
) -> Sum:
    """What one judge's judgements of a pair add up to. by_checks: nobody was asked, machine checks alone judged.

    Raises KeyError for a judgement about a principle that does not apply to the pair.
    """
    if pair.response_a == pair.response_b:
        return Sum("tie", 0.5, ())
    applicable = constitution.for_prompt(pair.prompt.tags)
    added = sum_up(judgements, weights(applicable))
    if by_checks or compare.JOINT in added.incomplete:
        added = added._replace(incomplete=_ids([one for one in applicable if not one.check]))
    return added


def orders_of(pair: Pair, settings: LabelSettings) -> tuple[Order, ...]:
    """The orders in which the pair is shown."""
    if settings.orders == "one":
        return (BOTH[int(hashlib.sha256(f"order:{pair.id}".encode()).hexdigest(), 16) % 2],)
    if settings.orders == "none":
        return ("none",)
    return BOTH if settings.orders == "both" else ("original",)


def _suited(settings: LabelSettings, judge: Model | None) -> LabelSettings:
    """A person is not asked the same twice in another order, nor principle by principle; a judge that does not read
    replies side by side is asked in both orders."""
    if judge is None:
        return settings
    if not judge.capabilities.person:
        beside = settings.orders != "none" or judge.capabilities.side_by_side
        return settings if beside else settings.model_copy(update={"orders": "both"})
    asks = {"principles": "joint", "draws": 1, "orders": "one", "reasoning": False, "tie": True, "shots": 0}
    return settings.model_copy(update={**asks, "structured": False, "clamp": None, "template": ""})


def _asked(
    pair: Pair,
    groups: Sequence[tuple[Principle, ...]],
    judge: Model,
    template: Template,
    settings: LabelSettings,
    orders: Sequence[Order],
) -> Dialogue[list[Judgement]]:
    question = compare.ComparisonSetup(
        judge=judge,
        template=template,
        menu=compare.offered(template, settings.tie),
        reasoning=settings.reasoning,
        max_tokens=settings.max_tokens or ANSWER_TOKENS,
        own_limit=settings.max_tokens is not None,
        seed=settings.seed,
        shots=settings.shots,
        structured=settings.structured,
        clamp=settings.clamp,
        sample=settings.sample,
        effort=settings.effort or "",
    )
    asks = [(group, order) for group in groups for order in orders]
    if not asks:
        return []
    requests = tuple(compare.ask(pair, group, order, question) for group, order in asks)
    outcomes = yield requests
    return [
        compare.read(outcome, order, request, settings.clamp)
        for outcome, (_, order), request in zip(outcomes, asks, requests, strict=True)
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
        models=pair.models,
        judgements=tuple(judgements),
        unjudged=added.incomplete,
        constitution=constitution.identity,
        judge=judge.name if judge else CHECKS,
    )


def _ids(principles: Sequence[Principle]) -> tuple[str, ...]:
    return tuple(principle.id for principle in principles)
