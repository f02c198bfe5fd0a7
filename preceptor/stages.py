"""Where the stages meet: each is given its rows, its model and the fan-out, and its rows go to a file.

Nothing is decided here. Each function opens what it needs and lets go of it, so that a model's memory is free again
when training begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import combinations
from typing import Literal, NamedTuple

from pydantic import Field

from constitution.principle import Constitution
from judge.errors import BudgetReached, ProviderStopped
from judge.fanout import Fanout, Limits, Progress
from judge.label import LabelSettings, label, template_for
from judge.ledger import open_ledger
from judge.models.protocol import Dialogue, Model, Row
from judge.models.registry import open_model
from judge.pairs import read_pairs
from judge.plan import Plan, plan
from judge.prices import Prices
from judge.records import Label, Pair, Response, Revision
from judge.respond import RespondSettings, respond
from judge.revise import ReviseSettings, revise
from prompts.records import Prompt, Record, content_id
from prompts.rows import RawRow, read_records, read_rows

Pairing = Literal["adjacent", "all"]
CHECKS = "checks"
"""The judge that is no model: the constitution's own machine checks."""


class Asking(Record):
    """How models are asked: the same for every command."""

    ledger: str
    concurrency: int = Field(default=16, gt=0)
    max_cost_usd: float | None = Field(default=None, ge=0)
    base_url: str | None = None


class Asked(NamedTuple):
    """What a stage that asked models has done."""

    rows: int
    progress: Progress
    stopped: BaseException | None
    """Why it ended before its last row: the budget, a provider that answers nobody, an interrupt. None: it did not."""


Watch = Callable[[Progress], None]


@asynccontextmanager
async def fanout(
    models: Iterable[Model], asking: Asking, watch: Watch | None = None
) -> AsyncIterator[Fanout]:
    """A fan-out to these models over the ledger; all of it is closed at the end of the block."""
    models = tuple(models)
    limits = Limits(concurrency=asking.concurrency, max_cost_usd=asking.max_cost_usd)
    try:
        async with open_ledger(asking.ledger) as ledger:
            named = {model.name: model for model in models}
            yield Fanout(named, ledger, limits, Prices.load(), watch)
    finally:
        for model in models:
            await model.close()


def open_judge(name: str, base_url: str | None) -> Model | None:
    """The judge's model; None for `checks`, which asks nobody."""
    return None if name == CHECKS else open_model(name, base_url=base_url)


def responding(
    prompts: Iterable[Prompt], model: Model, settings: RespondSettings
) -> Iterable[Dialogue[tuple[Response, ...]]]:
    """One dialogue a prompt."""
    return (respond(prompt, model, settings) for prompt in prompts)


def revising(
    responses: Iterable[Response], constitution: Constitution, model: Model, settings: ReviseSettings
) -> Iterable[Dialogue[Revision]]:
    """One dialogue a response."""
    return (revise(response, constitution, model, settings) for response in responses)


def labelling(
    pairs: Iterable[Pair], constitution: Constitution, judge: Model | None, settings: LabelSettings
) -> Iterable[Dialogue[Label]]:
    """One dialogue a pair, all over one reading of the template."""
    template = template_for(judge, settings) if judge else None
    return (label(pair, constitution, judge, template, settings) for pair in pairs)


async def carry_out(
    dialogues: Sequence[Dialogue[Row]],
    models: Sequence[Model | None],
    asking: Asking,
    write: Callable[[Row], None],
    watch: Watch | None = None,
) -> Asked:
    """Run dialogues and hand each row to `write`, in order; a run that must stop has written what was complete.

    The reason is handed back, not raised, so that the caller can finish its files first.
    """
    rows = 0
    stopped: BaseException | None = None
    async with fanout((model for model in models if model), asking, watch) as run:
        try:
            async for row in run.run(dialogues, len(dialogues)):
                write(row)
                rows += 1
        except (BudgetReached, ProviderStopped) as reason:
            stopped = reason
        except asyncio.CancelledError:
            stopped = KeyboardInterrupt()
        return Asked(rows, run.progress, stopped)


def whole(
    dialogues: Sequence[Dialogue[Row]],
    model: Model | None,
    asking: Asking,
    write: Callable[[Row], None],
    watch: Watch | None = None,
) -> Asked:
    """`carry_out` for a stage whose file is written whole or not at all: what stopped it is raised.

    What it had asked is in the ledger, so the next try asks only the rest.
    """
    asked = asyncio.run(carry_out(dialogues, [model], asking, write, watch))
    if asked.stopped is not None:
        raise asked.stopped
    return asked


async def price(dialogues: Iterable[Dialogue[Row]], asking: Asking) -> Plan:
    """What the dialogues' first asks would cost; nothing is asked."""
    async with open_ledger(asking.ledger) as ledger:
        return await plan(dialogues, ledger, Prices.load())


def pairs_from(source: str, form: Literal["rows", "hh"]) -> Iterable[Pair]:
    """The pairs of a file: rows to judge, or what `preceptor respond` or `preceptor revise` wrote."""
    first = next(iter(read_rows(source)), None)
    columns = first.fields.keys() if isinstance(first, RawRow) else set()
    if {"prompt", "text", "sample"} <= columns:
        return pairs_to_label(list(read_records(source, Response)), [])
    if {"response", "drafts", "text"} <= columns:
        return pairs_to_label([], list(read_records(source, Revision)))
    return read_pairs(source, form)


def pairs_to_label(
    responses: Sequence[Response], revisions: Sequence[Revision], pairing: Pairing = "adjacent"
) -> list[Pair]:
    """The comparisons of a run: samples of a prompt among themselves, and every revised reply against its original.

    `adjacent`: two by two, so that each sample is in one pair; `all`: each sample against each other. Only usable
    replies are compared. Which one is a is drawn by a hash of their ids: no slot is the revised one's.
    """
    by_prompt: dict[str, list[Response]] = {}
    for response in responses:
        if response.status == "ok":
            by_prompt.setdefault(response.prompt.id, []).append(response)
    sampled = [
        _pair(one.prompt, (one.id, one.text), (other.id, other.text))
        for group in by_prompt.values()
        for one, other in (
            combinations(group, 2) if pairing == "all" else zip(group[::2], group[1::2], strict=False)
        )
    ]
    revised = [
        _pair(row.response.prompt, (row.response.id, row.response.text), (row.id, row.text))
        for row in revisions
        if row.status == "ok"
    ]
    return sampled + revised


def _pair(prompt: Prompt, one: tuple[str, str], other: tuple[str, str]) -> Pair:
    first, second = sorted((one, other), key=lambda reply: content_id("slot", reply[0]))
    return Pair(
        id=content_id("pair", first[0], second[0]),
        prompt=prompt,
        response_a=first[1],
        response_b=second[1],
        sources=(first[0], second[0]),
    )
