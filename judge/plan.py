"""What a run would ask and cost, before anything is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from judge.ledger import Ledger
from judge.models.protocol import Dialogue, Request
from judge.prices import Prices, likely_tokens_in

LOOK_UP = 500
"""Requests that are looked up in the ledger together."""


class PlanLine(NamedTuple):
    """What a run would ask of one model."""

    model: str
    in_ledger: int
    to_ask: int
    tokens_in: int
    """Of the calls to ask, at four characters a token."""
    tokens_out: int
    """Of the calls to ask, if every reply were as long as it may be."""
    cost_usd: float | None
    """At most, for these tokens; None: the price is not known."""
    batch_cost_usd: float | None
    """The same through the provider's batch API."""


class Plan(NamedTuple):
    """The first round of every dialogue; later rounds depend on what comes back."""

    rows: int
    lines: tuple[PlanLine, ...]


async def plan(dialogues: Iterable[Dialogue[Any]], ledger: Ledger, prices: Prices) -> Plan:
    """Count the first round of each dialogue against the ledger. A request that comes twice counts once."""
    rows = 0
    seen: set[str] = set()
    figures: Counter[tuple[str, str]] = Counter()
    waiting: list[Request] = []
    for dialogue in dialogues:
        rows += 1
        for request in next(dialogue, ()):
            if request.key not in seen:
                seen.add(request.key)
                waiting.append(request)
        dialogue.close()
        if len(waiting) >= LOOK_UP:
            figures += await _figures(waiting, ledger)
            waiting = []
    figures += await _figures(waiting, ledger)
    return Plan(
        rows, tuple(_line(model, figures, prices) for model in sorted({model for model, _ in figures}))
    )


async def _figures(requests: Sequence[Request], ledger: Ledger) -> Counter[tuple[str, str]]:
    """(model, what) -> how many, for the figures of a PlanLine."""
    known = await ledger.find([request.key for request in requests])
    figures: Counter[tuple[str, str]] = Counter()
    for request in requests:
        if request.key in known:
            figures[request.model, "in_ledger"] += 1
        else:
            figures[request.model, "to_ask"] += 1
            figures[request.model, "tokens_in"] += likely_tokens_in(request)
            figures[request.model, "tokens_out"] += request.max_tokens
    return figures


def _line(model: str, figures: Counter[tuple[str, str]], prices: Prices) -> PlanLine:
    in_ledger, to_ask, tokens_in, tokens_out = (figures[model, what] for what in PlanLine._fields[1:5])
    cost = prices.estimate(model, tokens_in, tokens_out)
    batch = None if cost is None else cost * (1 - prices.batch_discount(model))
    return PlanLine(model, in_ledger, to_ask, tokens_in, tokens_out, cost, batch)
