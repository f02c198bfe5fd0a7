"""What every command that asks models does: the plan or the work, and what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preceptor.cli import console

if TYPE_CHECKING:
    from preceptor.asking.stages import AskingResult, AskJob
    from preceptor.judge.asking.plan import AskingPlan
    from preceptor.judge.models.protocol import Dialogue
    from preceptor.prompts.records import Record
    from preceptor.settings import Asking, AskSettings


BATCHES = "preceptor.judge.asking.batch"
"""Whose log tells how far a batch is."""


def tell_of_batches(asking: AskSettings) -> None:
    """Have what happens to batches shown, where any are sent: they take hours."""
    if asking.in_batches:
        console.relay(BATCHES)


def to_file(
    what: str,
    out: Path,
    work: AskJob,
    asking: Asking,
    rows_of: Callable[[Any], Iterable[Record]],
) -> AskingResult:
    """Do the work under a progress bar, here or on a cluster, each row to the file."""
    from preceptor.asking.work import run_job
    from preceptor.prompts.rows import writing

    tell_of_batches(asking)
    with writing(out) as write, console.progress(what) as watch:

        def each(row: Any) -> None:
            for record in rows_of(row):
                write(record)

        asked = run_job(work, asking, each, watch)
        if asked.stopped is not None and not asked.rows:
            raise asked.stopped  # nothing was done, so nothing is left behind
        return asked


def show_plan_of(work: AskJob, asking: Asking, as_json: bool) -> None:
    """`show_plan` of all the work."""
    means = work.open()
    show_plan([means.dialogue(row) for row in work.rows], asking, as_json)


def show_plan(dialogues: Iterable[Dialogue[Any]], asking: Asking, as_json: bool) -> None:
    """What asking would cost at most, as a table or as one JSON object; nothing is asked."""
    from preceptor.asking import stages

    plan = asyncio.run(stages.price(dialogues, asking))
    if as_json:
        console.result({"rows": plan.rows, "models": [line._asdict() for line in plan.lines]})
    else:
        show_priced(plan, asking)


def show_priced(plan: AskingPlan, asking: Asking) -> None:
    """The plan as a table, with what is to be said of the prices."""
    from preceptor.judge.asking import prices

    rows = [
        [
            line.model,
            str(line.in_ledger),
            str(line.to_ask),
            str(line.may_ask),
            ("" if line.counted else "~") + _many(line.tokens_in),
            _many(line.tokens_out),
            _usd(line.cost_usd),
            *("–" if usd is None else _usd(usd) for usd in (line.batch_cost_usd, line.flex_cost_usd)),
        ]
        for line in plan.lines
    ]
    columns = (
        "model",
        "in\nledger",
        "to ask",
        "later ≤",
        "tokens\nin",
        "tokens\nout ≤",
        "cost ≤",
        "as a\nbatch ≤",
        "at flex ≤",
    )
    for said in prices.warnings(asking.price_table, (line.model for line in plan.lines), prices.today()):
        console.say(f"note: {said}")
    console.table(f"plan for {plan.rows} rows; nothing was asked (≤: at most, ~: by estimate)", columns, rows)


def _many(count: int) -> str:
    """A number of tokens to three figures."""
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return str(count)


def _usd(cost: float | None) -> str:
    if cost is None:
        return "price unknown"
    return f"${cost:.2f}" if cost >= 0.1 or not cost else f"${cost:.4f}"


def finish(result: dict[str, Any], work: AskingResult, as_json: bool) -> None:
    """Say what was done; raise what stopped it, so that the exit code tells."""
    now = work.progress
    spent = {
        "asked": now.asked,
        "from_ledger": now.from_ledger,
        "failed": now.failed,
        "cost_usd": now.cost_usd,
    }
    if as_json:
        console.result({**result, "calls": spent, "complete": work.stopped is None})
    else:
        counts = ", ".join(f"{name} {value}" for name, value in result.items() if name != "out")
        guessed = f" ({now.estimated} calls by estimate: no usage reported)" if now.estimated else ""
        calls = f"{now.asked} calls asked, {now.from_ledger} from the ledger, ${now.cost_usd:.2f}{guessed}"
        console.say(f"{result['out']}: {counts}; {calls}")
    if work.stopped is not None:
        console.say(f"stopped early: {result['out']} is valid, and the same command goes on where it stopped")
        raise work.stopped
