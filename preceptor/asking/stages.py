"""Where the stages meet: each is given its rows, its model and the fan-out, and its rows go to a file.

Nothing is decided here. Each function opens what it needs and lets go of it, so that a model's memory is free again
when training begins.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence, Sized
from contextlib import AbstractContextManager, asynccontextmanager
from functools import cache
from itertools import combinations
from typing import Any, Literal, NamedTuple

from preceptor.asking.gc import seldom_collecting
from preceptor.constitution.errors import UserError
from preceptor.constitution.principle import Constitution
from preceptor.judge.asking.batch import Batches, warn_of_batches
from preceptor.judge.asking.fanout import Fanout, Progress
from preceptor.judge.asking.first_rows import FirstRows
from preceptor.judge.asking.plan import AskingPlan, plan
from preceptor.judge.clock import SYSTEM, Clock
from preceptor.judge.errors import BudgetReached, ProviderStopped
from preceptor.judge.label import label, require_order, template_for
from preceptor.judge.ledger.ledger import open_ledger
from preceptor.judge.ledger.location import there
from preceptor.judge.models.protocol import Dialogue, Model, RowT
from preceptor.judge.pairs import Candidate, groups_of, read_groups, read_pairs, slotted
from preceptor.judge.records import Group, Label, Pair, Response, Revision, RubricScore
from preceptor.judge.respond import respond
from preceptor.judge.revise import revise
from preceptor.judge.rubric import Rubric, graded_by
from preceptor.judge.score import ReplyToScore, score
from preceptor.judge.score import template_for as grading
from preceptor.judge.settings import LabelSettings, RespondSettings, ReviseSettings, Schedule, ScoreSettings
from preceptor.judge.singles import holds_singles, read_singles
from preceptor.judge.voting.cascade import Judge, Step, VotingRule, label_by_steps, require_steps
from preceptor.judge.voting.ranking import Ranked, rank
from preceptor.prompts.rows import RawRow, read_records, read_rows
from preceptor.settings import Access, Asking, in_this_process

SamplePairing = Literal["adjacent", "all"]
Truncated = Literal["keep", "drop"]
_log = logging.getLogger(__name__)


class WorkerContext(NamedTuple):
    """What a worker process needs: the opened models, and how a row's dialogue is made of them."""

    models: tuple[Model | None, ...]
    dialogue: Callable[[Any], Dialogue[Any]]


class AskJob(NamedTuple):
    """A job in a form that any process can do."""

    rows: Sequence[Any]
    open: Callable[[], WorkerContext]
    """Made of what can be sent to other processes: a function of a module, and values."""


class AskingResult(NamedTuple):
    """What a stage that asked models has done."""

    rows: int
    progress: Progress
    stopped: BaseException | None
    """Why it ended before its last row: the budget, a provider that answers nobody, an interrupt. None: it did not."""


OnProgress = Callable[[Progress], None]
OpenBar = Callable[[str], AbstractContextManager[OnProgress]]
"""Opens a progress bar for what it is told, and gives the watch that drives it."""
Dialogues = Iterable[Dialogue[RowT]] | Callable[[], Iterable[Dialogue[RowT]]]
"""Or what makes them from their beginning, equal ones each time: asking in batches walks them once a round."""


@asynccontextmanager
async def open_asker(
    models: Iterable[Model],
    asking: Asking,
    on_progress: OnProgress | None = None,
    clock: Clock = SYSTEM,
) -> AsyncIterator[Fanout | Batches]:
    """A fan-out, or batches, that ask these models over the ledger. Everything is closed at the end of the block."""
    models = tuple(models)
    named = {model.name: model for model in models}
    prices = asking.price_table
    try:
        with seldom_collecting():
            async with open_ledger(asking.ledger, clock=clock) as ledger:
                if asking.in_batches:
                    direct = Fanout(named, ledger, asking.limits, prices, clock=clock)
                    yield Batches(direct, named, ledger, prices, asking.then_sync, on_progress)
                else:
                    await warn_of_batches(ledger, named)
                    yield Fanout(named, ledger, asking.limits, prices, on_progress, clock=clock)
    finally:
        for model in models:
            await model.close()


def revising(
    responses: Iterable[Response], constitution: Constitution, model: Model, settings: ReviseSettings
) -> Iterable[Dialogue[Revision]]:
    """One dialogue a response."""
    return (revise(response, constitution, model, settings) for response in responses)


def to_respond(name: str, access: Access, settings: RespondSettings) -> WorkerContext:
    """What sampling replies takes."""
    model = access.open(name)
    return WorkerContext((model,), lambda prompt: respond(prompt, model, settings))


def to_revise(
    name: str, access: Access, constitution: Constitution, settings: ReviseSettings
) -> WorkerContext:
    """What criticising and rewriting replies takes."""
    model = access.open(name)
    return WorkerContext((model,), lambda response: revise(response, constitution, model, settings))


def to_score(name: str, access: Access, constitution: Constitution, settings: ScoreSettings) -> WorkerContext:
    """What grading replies takes."""
    model = access.open(name)
    template = grading(model, settings)
    return WorkerContext((model,), lambda reply: score(reply, constitution, model, template, settings))


def to_rubric_score(name: str, access: Access, rubric: Rubric, settings: ScoreSettings) -> WorkerContext:
    """What grading replies by a rubric takes: one ask for each criterion that no machine check decides."""
    model = access.open(name)
    settings = settings.model_copy(update={"principles": "each"})
    template = grading(model, settings)

    def dialogue(reply: ReplyToScore) -> Dialogue[RubricScore]:
        return (yield from graded_by(rubric, reply, model, template, settings))

    return WorkerContext((model,), dialogue)


def to_label(name: str, access: Access, constitution: Constitution, settings: LabelSettings) -> WorkerContext:
    """What judging pairs takes; `checks` asks nobody."""
    judge = access.open_judge(name)
    require_order([judge], settings)
    template = template_for(judge, settings) if judge else None
    return WorkerContext((judge,), lambda pair: label(pair, constitution, judge, template, settings))


def labelling(
    pairs: Iterable[Pair], constitution: Constitution, judge: Model | None, settings: LabelSettings
) -> Iterable[Dialogue[Label]]:
    """One dialogue a pair, all over one reading of the template."""
    require_order([judge], settings)
    template = template_for(judge, settings) if judge else None
    return (label(pair, constitution, judge, template, settings) for pair in pairs)


def open_steps(
    panels: Sequence[tuple[Sequence[str], str]], settings: LabelSettings, access: Access
) -> tuple[Step, ...]:
    """The judges of every step, opened: (names, when) for each."""
    opened = [([access.open_judge(name) for name in names], when) for names, when in panels]
    require_order([model for models, _ in opened for model in models], settings)
    steps = []
    for models, when in opened:
        judges = (Judge(model, template_for(model, settings) if model else None) for model in models)
        steps.append(Step(tuple(judges), when))
    require_steps(steps)
    return tuple(steps)


def judging(
    pairs: Iterable[Pair],
    constitution: Constitution,
    steps: Sequence[Step],
    settings: LabelSettings,
    rule: VotingRule,
) -> Iterable[Dialogue[Label]]:
    """One dialogue a pair, through every step that it needs."""
    return (label_by_steps(pair, constitution, steps, settings, rule) for pair in pairs)


def ranking(
    groups: Iterable[Group],
    constitution: Constitution,
    steps: Sequence[Step],
    settings: LabelSettings,
    rule: VotingRule,
    schedule: Schedule,
) -> Iterable[Dialogue[Ranked]]:
    """One dialogue a group."""

    def label_pair(pair: Pair) -> Dialogue[Label]:
        return label_by_steps(pair, constitution, steps, settings, rule)

    return (rank(group, label_pair, schedule) for group in groups)


async def run_dialogues(
    dialogues: Dialogues[RowT],
    models: Sequence[Model | None],
    asking: Asking,
    write: Callable[[RowT], None],
    on_progress: OnProgress | None = None,
) -> AskingResult:
    """Run dialogues and hand each row to `write`, in order; a run that must stop has written what was complete.

    The reason is handed back, not raised, so that the caller can finish its files first.
    """
    rows = 0
    stopped: BaseException | None = None
    first_rows = FirstRows()
    async with open_asker((model for model in models if model), asking, on_progress) as run:
        try:
            async for row in _rows(run, dialogues):
                write(row)
                rows += 1
                first_rows.see(row)
            stopped = first_rows.end()
        except (BudgetReached, ProviderStopped) as reason:
            stopped = reason
        except asyncio.CancelledError:
            stopped = KeyboardInterrupt()
        return AskingResult(rows, run.progress, stopped)


def _rows(run: Fanout | Batches, dialogues: Dialogues[RowT]) -> AsyncIterator[RowT]:
    made = dialogues() if callable(dialogues) else dialogues
    total = len(made) if isinstance(made, Sized) else None
    if isinstance(run, Fanout):
        return run.run(made, total)
    if not callable(dialogues):
        raise UserError("this command asks its models directly; leave --batch out")
    return run.run(dialogues, total)


async def price(dialogues: Iterable[Dialogue[RowT]], asking: Asking) -> AskingPlan:
    """What the dialogues would cost at most; nothing is asked, and no ledger is made where there was none."""

    @cache
    def opened(name: str) -> Model | None:
        try:
            return asking.open(name) if in_this_process(name) else None
        except UserError:  # a model that is still to be trained
            return None

    if not there(asking.ledger):
        return await plan(dialogues, None, asking.price_table, opened)
    async with open_ledger(asking.ledger) as ledger:
        return await plan(dialogues, ledger, asking.price_table, opened)


def pairs_from(
    source: str, form: str, columns: Mapping[str, str] | None = None, truncated: Truncated = "keep"
) -> Iterable[Pair]:
    """The pairs of a file: rows to judge in any layout, or what `preceptor respond` or `preceptor revise` wrote."""
    wrote = _wrote(source)
    if wrote is Response:
        return pairs_to_label(list(read_records(source, Response)), [], truncated=truncated)
    if wrote is Revision:
        return pairs_to_label([], list(read_records(source, Revision)))
    return read_pairs(source, form, columns)


def pairs_to_label(
    responses: Sequence[Response],
    revisions: Sequence[Revision],
    pairing: SamplePairing = "adjacent",
    truncated: Truncated = "drop",
) -> list[Pair]:
    """The comparisons of a run: samples of a prompt among themselves, and every revised reply against its original.

    `adjacent`: two by two, so that each sample is in one pair; `all`: each sample against each other. Only usable
    replies are compared; `truncated`: whether one that was cut off at its length is among them. Which one is a is drawn
    by a hash of their ids: no slot is the revised one's.
    """
    tell_cut(responses, truncated)
    by_prompt: dict[str, list[Response]] = {}
    for response in responses:
        if usable(response, truncated):
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
        if row.status == row.response.status == "ok"
    ]
    return sampled + revised


def usable(response: Response, truncated: Truncated) -> bool:
    """Whether a reply is compared: one that came whole, and with `keep` also what came of one that was cut off."""
    return response.status == "ok" or (truncated == "keep" and response.status == "truncated")


def tell_cut(responses: Sequence[Response], truncated: Truncated) -> None:
    """Say how many samples were cut at their length, and what becomes of them.

    Kept they teach a judge of length and of finished sentences what it is to teach; a principle that does not look at
    the end of a reply is served better by leaving them out.
    """
    cut = sum(response.status == "truncated" for response in responses)
    if cut:
        kept = "kept: --truncated drop leaves them out"
        done = kept if truncated == "keep" else "left out: --truncated keep judges them"
        _log.info("%d of %d samples were cut at --max-tokens, and are %s", cut, len(responses), done)


def _candidate(response: Response) -> Candidate:
    return Candidate(response.id, response.text, response.model)


def groups_from(source: str, truncated: Truncated = "keep") -> Iterable[Group]:
    """The groups of a file: rows with `responses`, or what `preceptor respond` wrote."""
    if _wrote(source) is not Response:
        return read_groups(source)
    responses = list(read_records(source, Response))
    tell_cut(responses, truncated)
    return groups_of(response for response in responses if usable(response, truncated))


def _wrote(source: str) -> type[Response] | type[Revision] | None:
    """Which of our own rows a file holds, by its first."""
    first = next(iter(read_rows(source)), None)
    columns = first.fields.keys() if isinstance(first, RawRow) else set()
    if {"prompt", "text", "sample"} <= columns:
        return Response
    return Revision if {"response", "drafts", "text"} <= columns else None


def replies_from(
    source: str, form: str = "rows", columns: Mapping[str, str] | None = None, truncated: Truncated = "keep"
) -> Iterable[ReplyToScore]:
    """The single replies of a file: what `preceptor respond` wrote, rows with a `response`, or both sides of
    every pair, in any layout."""
    wrote = _wrote(source)
    if wrote is Response:
        rows = list(read_records(source, Response))
        tell_cut(rows, truncated)
        return (ReplyToScore(row.id, row.prompt, row.text) for row in rows if usable(row, truncated))
    if wrote is None and form == "rows" and holds_singles(source, columns or {}):
        return read_singles(source, columns or {})
    return (
        ReplyToScore(f"{pair.id}-{side}", pair.prompt, text)
        for pair in pairs_from(source, form, columns)
        for side, text in (("a", pair.response_a), ("b", pair.response_b))
    )
