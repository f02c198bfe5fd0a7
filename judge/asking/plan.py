"""What a run would ask and cost, before anything is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

from preceptor.judge.asking.prices import Prices
from preceptor.judge.ledger.ledger import Ledger
from preceptor.judge.models.protocol import Completion, Dialogue, Outcome, Request
from preceptor.judge.models.reply_limits import billed_tokens
from preceptor.judge.models.token_estimates import likely_tokens_in

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
    """Of all calls to ask, at four characters a token; in later rounds with every reply as long as it may be."""
    tokens_out: int
    """Of all calls to ask, if every reply were as long as it may be."""
    cost_usd: float | None
    """At most, for these tokens; None: the price is not known."""
    batch_cost_usd: float | None
    """The same through the provider's batch API."""


class AskingPlan(NamedTuple):
    """Every round of every dialogue: on the ledger's answers as far as they go, then on stand-ins."""

    rows: int
    lines: tuple[PlanLine, ...]


async def plan(dialogues: Iterable[Dialogue[Any]], ledger: Ledger | None, prices: Prices) -> AskingPlan:
    """Walk each dialogue to its end against the ledger, None where there is none yet. A request that comes twice
    counts once.

    Where the ledger has no answer the dialogue is sent one as long as it may be that holds no verdict, so that
    later rounds are counted as if every draft were long and every doubtful pair went on to the next judge.
    """
    rows = 0
    seen: set[int] = set()
    figures: Counter[tuple[str, str]] = Counter()
    waiting = iter(dialogues)
    while block := list(islice(waiting, AT_ONCE)):
        rows += len(block)
        figures += await _walked(block, ledger, seen)
    return AskingPlan(
        rows, tuple(_line(model, figures, prices) for model in sorted({model for model, _ in figures}))
    )


async def _walked(
    dialogues: Sequence[Dialogue[Any]], ledger: Ledger | None, seen: set[int]
) -> Counter[tuple[str, str]]:
    """(model, what) -> how many, for the figures of a PlanLine. Keys that are met are added to `seen`."""
    figures: Counter[tuple[str, str]] = Counter()
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
                    figures += _figures(request, answer, later)
                if answer is None:
                    guessed.add(number)
                answers.setdefault(number, []).append(answer or _stand_in(request))
        going = {number: _next(dialogues[number], answers.get(number, [])) for number in going}
    return figures


def _next(dialogue: Dialogue[Any], outcomes: Sequence[Outcome] | None) -> Sequence[Request] | None:
    """What the dialogue asks next; None: nothing more."""
    try:
        return next(dialogue) if outcomes is None else dialogue.send(outcomes)
    except StopIteration:
        return None


def _figures(request: Request, answer: Completion | None, later: bool) -> Counter[tuple[str, str]]:
    model = request.model
    if answer is not None:
        return Counter({(model, "in_ledger"): 1})
    return Counter(
        {
            (model, "may_ask" if later else "to_ask"): 1,
            (model, "tokens_in"): likely_tokens_in(request),
            (model, "tokens_out"): billed_tokens(request),
        }
    )


def _stand_in(request: Request) -> Completion:
    """A reply of as many tokens as there may be, at four characters a token, without a verdict and like no other."""
    return Completion(text=request.key + " mmm" * max(0, request.max_tokens - 8), finish_reason="stop")


def _line(model: str, figures: Counter[tuple[str, str]], prices: Prices) -> PlanLine:
    counts = [figures[model, what] for what in PlanLine._fields[1:6]]
    cost = prices.estimate(model, counts[-2], counts[-1])
    batch = None if cost is None else prices.batch_estimate(model, counts[-2], counts[-1])
    return PlanLine._make((model, *counts, cost, batch))
