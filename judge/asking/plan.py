"""What a run would ask and cost, before anything is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from preceptor.judge.asking.prices import Prices
from preceptor.judge.ledger.ledger import Ledger
from preceptor.judge.models.protocol import Completion, CountsTokens, Dialogue, Outcome, Request
from preceptor.judge.models.reply_limits import billed_tokens
from preceptor.judge.models.token_estimates import planned_tokens_in

AT_ONCE = 500
"""Dialogues that are walked together, their requests looked up in the ledger in one go."""


class PlanLine(NamedTuple):
    """What a run would ask of one model."""

    model: str
    in_ledger: int
    to_ask: int
    """Calls that are certain, being what stands to be asked next."""
    may_ask: int
    """Calls of later rounds, which depend on what comes back."""
    tokens_in: int
    """Of all calls to ask, estimated (`token_estimates.planned_tokens`) or `counted`; in later rounds with every reply
    as long as it may be."""
    tokens_out: int
    """Of all calls to ask, if every reply were as long as it may be."""
    cost_usd: float | None
    """At most, for these tokens; None: the price is not known."""
    batch_cost_usd: float | None
    """The same through the provider's batch API."""
    flex_cost_usd: float | None
    """The same at the provider's flex tier."""
    counted: bool = False
    """Whether tokens in were counted by the model's own tokenizer, but for later rounds, and are no estimate."""


class Costs(NamedTuple):
    """What calls cost at most, as they are asked; None: not known, or not to be had."""

    directly: float | None = 0.0
    batch: float | None = 0.0
    flex: float | None = 0.0

    def plus(self, more: Costs) -> Costs:
        """The sums; what is not known of a part is not known of the whole."""
        return Costs(
            *(
                None if one is None or other is None else one + other
                for one, other in zip(self, more, strict=True)
            )
        )


class AskingPlan(NamedTuple):
    """Every round of every dialogue: on the ledger's answers as far as they go, then on stand-ins."""

    rows: int
    lines: tuple[PlanLine, ...]


OpenToCount = Callable[[str], object]
"""Name of a model -> the model, not loaded; None where it cannot be opened."""


async def plan(
    dialogues: Iterable[Dialogue[Any]],
    ledger: Ledger | None,
    prices: Prices,
    opened: OpenToCount = lambda _: None,
) -> AskingPlan:
    """Walk each dialogue to its end against the ledger, None where there is none yet. A request that comes twice
    counts once. opened: models that can count tokens do.

    Where the ledger has no answer the dialogue is sent one as long as it may be that holds no verdict, so that
    later rounds are counted as if every draft were long and every doubtful pair went on to the next judge.
    """
    rows = 0
    seen: set[int] = set()
    figures: Counter[tuple[str, str]] = Counter()
    costs: dict[str, Costs] = {}
    estimated: set[str] = set()
    waiting = iter(dialogues)
    while block := list(islice(waiting, AT_ONCE)):
        rows += len(block)
        met = await _walked(block, ledger, seen)
        counts = _counts(met, opened)
        estimated |= {one.request.model for one in met if one.request.model not in counts}
        for one in met:
            model = one.request.model
            tokens = _tokens(one, counts.get(model, {}))
            figures += _figures(one, tokens)
            costs[model] = _costs(model, tokens, prices).plus(costs.get(model, Costs()))
    lines = (_plan_line(model, figures, costs[model], model not in estimated) for model in sorted(costs))
    return AskingPlan(rows, tuple(lines))


class _Met(NamedTuple):
    """A request that a walk came by for the first time."""

    request: Request
    answered: bool
    """Whether the ledger has its answer."""
    later: bool
    """Whether it depends on an answer that is not there yet."""


async def _walked(dialogues: Sequence[Dialogue[Any]], ledger: Ledger | None, seen: set[int]) -> list[_Met]:
    """Every request of these dialogues whose key is not in `seen`, to which it is added."""
    met: list[_Met] = []
    guessed: set[int] = set()
    going = {number: _next(dialogue, None) for number, dialogue in enumerate(dialogues)}
    while going := {number: requests for number, requests in going.items() if requests is not None}:
        asked = [request for requests in going.values() for request in requests]
        known = {} if ledger is None else await ledger.find(list({request.key for request in asked}))
        answers: dict[int, list[Outcome]] = {}
        for number, requests in going.items():
            later = number in guessed
            for request in requests:
                answer = known.get(request.key)
                mark = int(request.key, 16)
                if mark not in seen:
                    seen.add(mark)
                    met.append(_Met(request, answer is not None, later))
                if answer is None:
                    guessed.add(number)
                answers.setdefault(number, []).append(answer or _stand_in(request))
        going = {number: _next(dialogues[number], answers.get(number, [])) for number in going}
    return met


def _next(dialogue: Dialogue[Any], outcomes: Sequence[Outcome] | None) -> Sequence[Request] | None:
    """What the dialogue asks next; None: nothing more."""
    try:
        return next(dialogue) if outcomes is None else dialogue.send(outcomes)
    except StopIteration:
        return None


def _figures(met: _Met, tokens: tuple[int, int]) -> Counter[tuple[str, str]]:
    """(model, what) -> how many, for the figures of a PlanLine."""
    model = met.request.model
    if met.answered:
        return Counter({(model, "in_ledger"): 1})
    tokens_in, tokens_out = tokens
    return Counter(
        {
            (model, "may_ask" if met.later else "to_ask"): 1,
            (model, "tokens_in"): tokens_in,
            (model, "tokens_out"): tokens_out,
        }
    )


def _tokens(met: _Met, counted: Mapping[str, int]) -> tuple[int, int]:
    """In and out; none of what is answered. counted: key of a request -> its tokens."""
    if met.answered:
        return 0, 0
    tokens = counted.get(met.request.key)
    return planned_tokens_in(met.request) if tokens is None else tokens, billed_tokens(met.request)


def _counts(met: Sequence[_Met], opened: OpenToCount) -> dict[str, dict[str, int]]:
    """Model -> key of a request -> its tokens, of models that can count; of later rounds nobody knows the words."""
    found = {}
    for model in {one.request.model for one in met}:
        counter = opened(model)
        asked = [one.request for one in met if one.request.model == model and not (one.answered or one.later)]
        counts = counter.count_tokens(asked) if isinstance(counter, CountsTokens) else None
        if counts is not None:
            found[model] = {request.key: count for request, count in zip(asked, counts, strict=True)}
    return found


def _costs(model: str, tokens: tuple[int, int], prices: Prices) -> Costs:
    """Of one call, by itself: a long prompt makes all of it dearer."""
    ways = (prices.worst, prices.batch_worst, prices.flex_worst)
    return Costs(*(way(model, *tokens) for way in ways))


def _stand_in(request: Request) -> Completion:
    """A reply of as many tokens as there may be, at four characters a token, without a verdict and like no other."""
    return Completion(text=request.key + " mmm" * max(0, request.max_tokens - 8), finish_reason="stop")


def _plan_line(model: str, figures: Counter[tuple[str, str]], costs: Costs, counted: bool) -> PlanLine:
    counts = [figures[model, what] for what in PlanLine._fields[1:6]]
    return PlanLine._make((model, *counts, *costs, counted))
