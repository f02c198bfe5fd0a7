"""The ledger of calls: what was asked, what it cost, what can go."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from preceptor.cli import console, options
from preceptor.cli.flags import Flags, given, with_flags
from preceptor.prompts.records import Settings
from preceptor.settings import Asking

if TYPE_CHECKING:
    from preceptor.judge.ledger.batches import BatchRecord
    from preceptor.judge.ledger.queries import BillLine, Call, Wanted

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)

Over = Annotated[Asking, Flags(only=("ledger",))]


class Filter(Settings):
    """Which calls are meant."""

    run: str | None = None
    """Only of this run, as `bill --by run` names it."""
    model: str | None = None
    """Only of this model: provider/model."""
    stage: str | None = None
    """Only of this stage: respond, revise, label, …."""
    principle: str | None = None
    """Only about this principle."""
    status: Literal["answered", "failed", "lost", "intent"] | None = None
    """lost: in flight when its run was killed; intent: in flight now."""

    def wanted(self, key: str | None = None) -> Wanted:
        """As the ledger is asked."""
        from preceptor.judge.ledger.queries import Wanted

        statuses = None if self.status is None else (self.status,)
        return Wanted(self.run, self.model, self.stage, self.principle, statuses, key)


@app.command()
@with_flags
def show(
    over: Over,
    chosen: Filter,
    key: Annotated[str | None, typer.Argument(help="How a call's key begins: that call, in full.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Calls to show, latest first.")] = 20,
    as_json: options.JsonOption = False,
) -> None:
    """The latest calls, or one call with every word of it."""

    from preceptor.constitution.errors import UserError
    from preceptor.judge.ledger.location import location_of, reading
    from preceptor.judge.ledger.queries import calls, count

    wanted = chosen.wanted(key)
    with reading(over.ledger) as connection:
        by_status = count(connection, wanted)
        found = list(calls(connection, wanted, 1 if key else limit))
    total = sum(by_status.values())
    if key is not None:
        if total != 1:
            raise UserError(
                f"{location_of(over.ledger).shown}: {total} calls whose key begins with {key!r}; give more of it"
            )
        console.show_json(found[0].model_dump(mode="json"))
        return
    if as_json:
        console.result({"by_status": by_status, "calls": [call.model_dump(mode="json") for call in found]})
        return
    columns = ["key", "status", "stage", "principle", "model", "tokens", "cost"]
    console.table(
        _counts(location_of(over.ledger).shown, by_status, len(found)),
        columns,
        [_row(call) for call in found],
    )


@app.command()
@with_flags
def bill(
    over: Over,
    chosen: Annotated[Filter, Flags(only=("run",))],
    by: Annotated[
        str,
        typer.Option(
            "--by", help="Broken down by run, model, stage, principle, batch: one or more, by comma."
        ),
    ] = "model,stage",
    as_json: options.JsonOption = False,
) -> None:
    """What was spent, over all runs on this ledger; what was paid for twice counts twice."""
    from preceptor.constitution.errors import UserError
    from preceptor.judge.ledger import queries as ledger_books
    from preceptor.judge.ledger.location import location_of, reading

    parts = tuple(name for name in ledger_books.BY if name in by.split(","))
    if unknown := sorted(set(by.split(",")) - set(ledger_books.BY)):
        raise UserError(f"--by names {', '.join(unknown)!r}; wanted some of {', '.join(ledger_books.BY)}")
    with reading(over.ledger) as connection:
        lines = ledger_books.bill(connection, parts, chosen.run)
        total = ledger_books.bill(connection, (), chosen.run)
    if as_json:
        summed = _figures(total[0]) if total else None
        console.result({"lines": [line.of | _figures(line) for line in lines], "total": summed})
        return
    columns = [*parts, "answers", "failed", "lost", "tokens in", "tokens out", "cost"]
    rows = [[*line.of.values(), *_cells(line)] for line in lines]
    rows += [["total", *[""] * (len(parts) - 1), *_cells(line)] for line in total]
    console.table(f"{location_of(over.ledger).shown}: the bill", columns, rows)
    if total and total[0].lost:
        console.say(
            f"{total[0].lost} lost calls were in flight at a kill: they may have been paid for, at most once"
        )


@app.command()
@with_flags
def export(
    over: Over,
    chosen: Filter,
    out: Annotated[str, typer.Option("--out", "-o", help="A file, .gz too; - for stdout.")] = "-",
) -> None:
    """The calls with every word of them, one JSON object a line, latest first."""
    from preceptor.judge.ledger.location import reading
    from preceptor.judge.ledger.queries import calls
    from preceptor.prompts.rows import write_rows

    with reading(over.ledger) as connection:
        rows = calls(connection, chosen.wanted())
        if out != "-":
            console.say(f"{out}: {write_rows(out, rows)} calls")
            return
        for row in rows:
            console.show_row(row)


@app.command()
@with_flags
def prune(
    over: Over,
    chosen: Annotated[Filter, Flags(only=("run", "model", "stage"))],
    older_than: Annotated[
        float | None, typer.Option("--older-than", metavar="DAYS", min=0, help="Asked so many days ago.")
    ] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="Only what has no answer: failed and lost.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, it is only counted.")] = False,
    as_json: options.JsonOption = False,
) -> None:
    """Throw calls away; an answer that is gone is asked and paid for again. The bill is kept."""
    import asyncio

    from preceptor.constitution.errors import UserError
    from preceptor.judge.ledger import queries as ledger_books
    from preceptor.judge.ledger.ledger import open_ledger
    from preceptor.judge.ledger.location import reading

    async def thrown_away() -> ledger_books.Pruned:
        async with open_ledger(over.ledger) as opened:
            return await opened.prune(wanted)

    if older_than is None and not failed and not given(chosen):
        raise UserError(
            "nothing says what can go; give --older-than DAYS, --failed, --run, --model or --stage"
        )
    wanted = chosen.wanted()._replace(
        statuses=ledger_books.UNANSWERED if failed else None,
        before=None if older_than is None else time.time() - 86400 * older_than,
    )
    with reading(over.ledger) as connection:
        pruned = ledger_books.to_prune(connection, wanted)
    if yes:
        pruned = asyncio.run(thrown_away())
    if as_json:
        console.result(pruned._asdict() | {"done": yes})
        return
    what = f"{pruned.calls} calls, {pruned.answered} of them answered, {pruned.text_bytes / 2**20:.1f} MiB"
    again = f"asking those again would cost about ${pruned.cost_usd:.2f}"
    console.say(f"thrown away: {what}; {again}" if yes else f"--yes would throw away {what}; {again}")


@app.command()
@with_flags
def batches(
    over: Over,
    chosen: Annotated[Filter, Flags(only=("model",))],
    limit: Annotated[int, typer.Option(min=1, help="Batches to show, latest first.")] = 20,
    as_json: options.JsonOption = False,
) -> None:
    """The batches that were sent, latest first: how far each is, as far as the last look at it, and what it cost."""
    from preceptor.judge.ledger.batches import listed
    from preceptor.judge.ledger.location import location_of, reading

    with reading(over.ledger) as connection:
        found = listed(connection, chosen.model)
    if as_json:
        console.result({"batches": [_told(batch) for batch in found[:limit]], "total": len(found)})
        return
    columns = [*("batch", "state", "model", "run", "requests"), *("answered", "failed", "cost", "problem")]
    rows = [
        [
            *(batch.remote or batch.token, batch.state, batch.model, batch.run),
            *(f"{batch.requests:,}", f"{batch.answered:,}", f"{batch.failed:,}"),
            *(f"${batch.cost_usd:.4f}", batch.problem or ""),
        ]
        for batch in found[:limit]
    ]
    console.table(
        f"{location_of(over.ledger).shown}: {len(found)} batches; the latest {len(rows)}", columns, rows
    )


def _told(batch: BatchRecord) -> dict[str, Any]:
    """Without the address of the process and of the server, which may carry a key."""
    return batch.model_dump(mode="json", exclude={"owner", "endpoint"})


def _counts(ledger: str, by_status: dict[str, int], shown: int) -> str:
    counted = ", ".join(f"{calls} {status}" for status, calls in sorted(by_status.items())) or "no calls"
    return f"{ledger}: {counted}; the latest {shown}"


def _row(call: Call) -> list[str]:
    tokens = "" if call.tokens_in is None else f"{call.tokens_in}+{call.tokens_out}"
    cost = "" if call.cost_usd is None else f"${call.cost_usd:.4f}"
    return [call.key[:8], call.status, call.stage, call.principle, call.model, tokens, cost]


def _figures(line: BillLine) -> dict[str, Any]:
    return {name: value for name, value in line._asdict().items() if name != "of"}


def _cells(line: BillLine) -> list[str]:
    figures = (line.calls, line.failed, line.lost, line.tokens_in, line.tokens_out)
    unpriced = f" and {line.unpriced} of unknown price" if line.unpriced else ""
    estimated = f", {line.estimated} of the calls estimated" if line.estimated else ""
    return [*(f"{figure:,}" for figure in figures), f"${line.cost_usd:.4f}{unpriced}{estimated}"]
