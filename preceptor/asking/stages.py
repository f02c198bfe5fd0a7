"""Where the stages meet: each is given its rows, its model and the fan-out, and its rows go to a file.

Nothing is decided here. Each function opens what it needs and lets go of it, so that a model's memory is free again
when training begins.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence, Sized
from contextlib import asynccontextmanager
from itertools import combinations
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from preceptor.asking.gc import seldom_collecting
from preceptor.asking.prices import user_prices
from preceptor.constitution.errors import UserError
from preceptor.constitution.principle import Constitution
from preceptor.judge.asking.batch import Batches, warn_of_batches
from preceptor.judge.asking.fanout import Fanout, Limits, Progress
from preceptor.judge.asking.plan import Plan, plan
from preceptor.judge.asking.prices import Price, Prices
from preceptor.judge.errors import BudgetReached, ProviderStopped
from preceptor.judge.label import LabelSettings, label, template_for
from preceptor.judge.ledger.ledger import open_ledger
from preceptor.judge.ledger.location import there
from preceptor.judge.models.protocol import Dialogue, Model, Row
from preceptor.judge.models.registry import open_model
from preceptor.judge.pairs import Candidate, groups_of, read_groups, read_pairs, slotted
from preceptor.judge.records import Group, Label, Pair, Response, Revision
from preceptor.judge.respond import RespondSettings, respond
from preceptor.judge.revise import ReviseSettings, revise
from preceptor.judge.score import Reply, ScoreSettings, score
from preceptor.judge.score import template_for as grading
from preceptor.judge.voting.cascade import Judge, Rule, Step, label_by_steps, require_steps
from preceptor.judge.voting.ranking import Ranked, Schedule, rank
from preceptor.prompts.records import Prompt, Record
from preceptor.prompts.rows import RawRow, read_records, read_rows

Pairing = Literal["adjacent", "all"]
Truncated = Literal["keep", "drop"]
_log = logging.getLogger(__name__)
NOTHING: Mapping[str, Any] = MappingProxyType({})
LOCAL = ("hf", "embedded")
"""Providers of models in this process."""
CHECKS = "checks"
"""The judge that is no model: the constitution's own machine checks."""


class Cluster(Record):
    """Where the work is done if not in this process: by Ray's workers, on this machine or on many."""

    address: str | None = None
    """Of a Ray cluster; `auto` is the one that this machine is part of. None: Ray is started here, for this command."""
    gpus: float = Field(default=0.0, ge=0)
    """Of each worker; a share lets several workers have one GPU."""
    workers: int | None = Field(default=None, gt=0)
    """None: one for each machine, or with `gpus` as many as there is room for."""

    @model_validator(mode="after")
    def _whole_or_shared(self) -> Self:
        if self.gpus > 1 and not self.gpus.is_integer():
            raise UserError(f"--gpus is {self.gpus:g}; wanted a share up to 1, or a whole number")
        return self


class Means(NamedTuple):
    """What a process needs in order to work: models, opened, and how one row's dialogue is held with them."""

    models: tuple[Model | None, ...]
    dialogue: Callable[[Any], Dialogue[Any]]


class Work(NamedTuple):
    """What is to be done, so that any process can do it."""

    rows: Sequence[Any]
    open: Callable[[], Means]
    """Made of what can be sent to other processes: a function of a module, and values."""


class Asking(Record):
    """How models are asked: the same for every command."""

    ledger: str
    concurrency: int = Field(default=16, gt=0)
    max_cost_usd: float | None = Field(default=None, ge=0)
    base_url: str | None = None
    rpm: float | None = Field(default=None, gt=0)
    """Requests a minute to one model, at most; None: as the provider says, if it says."""
    tpm: float | None = Field(default=None, gt=0)
    """Tokens a minute to one model, in and out, at most."""
    batch: bool = False
    """Whether to ask through the providers' batch APIs, where there are any."""
    then_sync: bool = False
    """With `batch`: ask directly what one batch did not answer, instead of in the next."""
    prices: Mapping[str, Price] = Field(default_factory=dict)
    """Given with the command, over the user's own: by model, `""` for all that cost."""
    cluster: Cluster | None = None
    """None: everything is done in this process."""

    @property
    def limits(self) -> Limits:
        """As a fan-out takes them."""
        return Limits(
            concurrency=self.concurrency, max_cost_usd=self.max_cost_usd, rpm=self.rpm, tpm=self.tpm
        )

    @property
    def price_table(self) -> Prices:
        """The shipped prices, the user's file over them, and the command's own over that."""
        return Prices.load({**user_prices(), **self.prices})

    def less(self, spent_usd: float) -> Asking:
        """The same under what is left of the cap."""
        if self.max_cost_usd is None:
            return self
        return self.model_copy(update={"max_cost_usd": max(0.0, self.max_cost_usd - spent_usd)})


class Asked(NamedTuple):
    """What a stage that asked models has done."""

    rows: int
    progress: Progress
    stopped: BaseException | None
    """Why it ended before its last row: the budget, a provider that answers nobody, an interrupt. None: it did not."""


Watch = Callable[[Progress], None]


Dialogues = Iterable[Dialogue[Row]] | Callable[[], Iterable[Dialogue[Row]]]
"""Or what makes them from their beginning, equal ones each time: asking in batches walks them once a round."""


@asynccontextmanager
async def asker(
    models: Iterable[Model], asking: Asking, watch: Watch | None = None
) -> AsyncIterator[Fanout | Batches]:
    """Whoever asks these models over the ledger; all of it is closed at the end of the block."""
    models = tuple(models)
    named = {model.name: model for model in models}
    prices = asking.price_table
    try:
        with seldom_collecting():
            async with open_ledger(asking.ledger) as ledger:
                if asking.batch:
                    direct = Fanout(named, ledger, asking.limits, prices)
                    yield Batches(direct, named, ledger, prices, asking.then_sync, watch)
                else:
                    await warn_of_batches(ledger, named)
                    yield Fanout(named, ledger, asking.limits, prices, watch)
    finally:
        for model in models:
            await model.close()


def opened(name: str, base_url: str | None) -> Model:
    """A model, reached at `base_url` if over a network: one in this process has no address."""
    return open_model(name, base_url=None if name.partition("/")[0] in LOCAL else base_url)


def open_judge(name: str, base_url: str | None) -> Model | None:
    """The judge's model, as `opened`; None for `checks`, which asks nobody."""
    return None if name == CHECKS else opened(name, base_url)


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


def to_respond(name: str, base_url: str | None, local: Mapping[str, Any], settings: RespondSettings) -> Means:
    """What sampling replies takes."""
    model = open_model(name, base_url=base_url, **local)
    return Means((model,), lambda prompt: respond(prompt, model, settings))


def to_revise(
    name: str,
    base_url: str | None,
    local: Mapping[str, Any],
    constitution: Constitution,
    settings: ReviseSettings,
) -> Means:
    """What criticising and rewriting replies takes."""
    model = open_model(name, base_url=base_url, **local)
    return Means((model,), lambda response: revise(response, constitution, model, settings))


def to_score(
    name: str,
    base_url: str | None,
    local: Mapping[str, Any],
    constitution: Constitution,
    settings: ScoreSettings,
) -> Means:
    """What grading replies takes."""
    model = open_model(name, base_url=base_url, **local)
    template = grading(model, settings)
    return Means((model,), lambda reply: score(reply, constitution, model, template, settings))


def labelling(
    pairs: Iterable[Pair], constitution: Constitution, judge: Model | None, settings: LabelSettings
) -> Iterable[Dialogue[Label]]:
    """One dialogue a pair, all over one reading of the template."""
    template = template_for(judge, settings) if judge else None
    return (label(pair, constitution, judge, template, settings) for pair in pairs)


def open_steps(
    panels: Sequence[tuple[Sequence[str], str]],
    settings: LabelSettings,
    base_urls: Mapping[str, str],
    local: Mapping[str, Any] = NOTHING,
) -> tuple[Step, ...]:
    """The judges of every step, opened: (names, when) for each. base_urls: by judge's name, `""` for all others.
    local: placement of those in this process, which are refused with a URL.
    """

    def open_one(name: str) -> Model | None:
        here = name.partition("/")[0] in LOCAL
        base_url = base_urls.get(name, base_urls.get("")) or None
        return None if name == CHECKS else open_model(name, base_url=base_url, **(local if here else {}))

    steps = []
    for names, when in panels:
        models = map(open_one, names)
        judges = (Judge(model, template_for(model, settings) if model else None) for model in models)
        steps.append(Step(tuple(judges), when))
    require_steps(steps)
    return tuple(steps)


def judging(
    pairs: Iterable[Pair],
    constitution: Constitution,
    steps: Sequence[Step],
    settings: LabelSettings,
    rule: Rule,
) -> Iterable[Dialogue[Label]]:
    """One dialogue a pair, through every step that it needs."""
    return (label_by_steps(pair, constitution, steps, settings, rule) for pair in pairs)


def ranking(
    groups: Iterable[Group],
    constitution: Constitution,
    steps: Sequence[Step],
    settings: LabelSettings,
    rule: Rule,
    schedule: Schedule,
) -> Iterable[Dialogue[Ranked]]:
    """One dialogue a group."""

    def label_pair(pair: Pair) -> Dialogue[Label]:
        return label_by_steps(pair, constitution, steps, settings, rule)

    return (rank(group, label_pair, schedule) for group in groups)


async def carry_out(
    dialogues: Dialogues[Row],
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
    async with asker((model for model in models if model), asking, watch) as run:
        try:
            async for row in _rows(run, dialogues):
                write(row)
                rows += 1
        except (BudgetReached, ProviderStopped) as reason:
            stopped = reason
        except asyncio.CancelledError:
            stopped = KeyboardInterrupt()
        return Asked(rows, run.progress, stopped)


def _rows(run: Fanout | Batches, dialogues: Dialogues[Row]) -> AsyncIterator[Row]:
    made = dialogues() if callable(dialogues) else dialogues
    total = len(made) if isinstance(made, Sized) else None
    if isinstance(run, Fanout):
        return run.run(made, total)
    if not callable(dialogues):
        raise UserError("this command asks its models directly; leave --batch out")
    return run.run(dialogues, total)


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
    """What the dialogues would cost at most; nothing is asked, and no ledger is made where there was none."""
    if not there(asking.ledger):
        return await plan(dialogues, None, asking.price_table)
    async with open_ledger(asking.ledger) as ledger:
        return await plan(dialogues, ledger, asking.price_table)


def pairs_from(
    source: str, form: str, columns: Mapping[str, str] | None = None, truncated: Truncated = "keep"
) -> Iterable[Pair]:
    """The pairs of a file: rows to judge in any layout, or what `preceptor respond` or `preceptor revise` wrote."""
    wrote = _wrote(source)
    if wrote is Response:
        return pairs_to_label(list(read_records(source, Response)), [], truncated=truncated)
    if wrote is Revision:
        return pairs_to_label([], list(read_records(source, Revision)), truncated=truncated)
    return read_pairs(source, form, columns)


def usable(responses: Iterable[Response], truncated: Truncated) -> list[Response]:
    """The responses that are compared, and one line about those that were cut at their length.

    Kept they teach a judge of length and of finished sentences what it is to teach; a principle that does not look at
    the end of a reply is served better by leaving them out.
    """
    rows = list(responses)
    cut = sum(row.status == "truncated" for row in rows)
    if cut:
        done = (
            "kept: --truncated drop leaves them out"
            if truncated == "keep"
            else "left out: --truncated keep judges them"
        )
        _log.info("%d of %d samples were cut at --max-tokens, and are %s", cut, len(rows), done)
    statuses = ("ok", "truncated") if truncated == "keep" else ("ok",)
    return [row for row in rows if row.status in statuses and row.text.strip()]


def pairs_to_label(
    responses: Sequence[Response],
    revisions: Sequence[Revision],
    pairing: Pairing = "adjacent",
    truncated: Truncated = "keep",
) -> list[Pair]:
    """The comparisons of a run: samples of a prompt among themselves, and every revised reply against its original.

    `adjacent`: two by two, so that each sample is in one pair; `all`: each sample against each other. Only usable
    replies are compared; `truncated` says whether those are that were cut at their length. Which one is a is drawn by
    a hash of their ids: no slot is the revised one's.
    """
    by_prompt: dict[str, list[Response]] = {}
    for response in usable(responses, truncated):
        by_prompt.setdefault(response.prompt.id, []).append(response)
    sampled = [
        slotted(one.prompt, _candidate(one), _candidate(other))
        for group in by_prompt.values()
        for one, other in (
            combinations(group, 2) if pairing == "all" else zip(group[::2], group[1::2], strict=False)
        )
    ]
    revised = [
        slotted(row.response.prompt, _candidate(row.response), Candidate(row.id, row.text, row.model))
        for row in revisions
        if row.status == "ok"
    ]
    return sampled + revised


def _candidate(response: Response) -> Candidate:
    return Candidate(response.id, response.text, response.model)


def groups_from(source: str, truncated: Truncated = "keep") -> Iterable[Group]:
    """The groups of a file: rows with `responses`, or what `preceptor respond` wrote."""
    if _wrote(source) is not Response:
        return read_groups(source)
    return groups_of(usable(read_records(source, Response), truncated))


def _wrote(source: str) -> type[Response] | type[Revision] | None:
    """Which of our own rows a file holds, by its first."""
    first = next(iter(read_rows(source)), None)
    columns = first.fields.keys() if isinstance(first, RawRow) else set()
    if {"prompt", "text", "sample"} <= columns:
        return Response
    return Revision if {"response", "drafts", "text"} <= columns else None


def replies_from(source: str) -> Iterable[Reply]:
    """The single replies of a file: what `preceptor respond` wrote, or both sides of every pair."""
    if _wrote(source) is Response:
        rows = read_records(source, Response)
        return (Reply(row.id, row.prompt, row.text) for row in rows if row.status == "ok")
    return (
        Reply(f"{pair.id}-{side}", pair.prompt, text)
        for pair in pairs_from(source, "rows")
        for side, text in (("a", pair.response_a), ("b", pair.response_b))
    )
