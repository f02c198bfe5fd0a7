"""`preceptor ledger`: what was asked, what it cost, and what of it can be thrown away."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from preceptor.cli import console, options
from preceptor.cli.options import LEDGER

if TYPE_CHECKING:
    from preceptor.judge.ledger.batches import Batch
    from preceptor.judge.ledger.queries import BillLine, Call, Wanted

app = typer.Typer(
    no_args_is_help=True, help="The ledger of calls: what was asked, what it cost, what can go."
)

Run = Annotated[str | None, typer.Option("--run", help="Only of this run, as `bill --by run` names it.")]
Model = Annotated[str | None, typer.Option("--model", help="Only of this model: provider/model.")]
Stage = Annotated[str | None, typer.Option("--stage", help="Only of this stage: respond, revise, label, ….")]
Principle = Annotated[str | None, typer.Option("--principle", help="Only about this principle.")]
Status = Annotated[
    Literal["answered", "failed", "lost", "intent"] | None,
    typer.Option("--status", help="lost: in flight when its run was killed; intent: in flight now."),
]


@app.command()
def show(
    key: Annotated[str | None, typer.Argument(help="How a call's key begins: that call, in full.")] = None,
    run: Run = None,
    model: Model = None,
    stage: Stage = None,
    principle: Principle = None,
    status: Status = None,
    limit: Annotated[int, typer.Option(min=1, help="Calls to show, latest first.")] = 20,
    ledger: options.Ledger = LEDGER,
    as_json: options.Json = False,
) -> None:
    """The latest calls, or one call with every word of it."""
    import json

    from preceptor.constitution.errors import UserError
    from preceptor.judge.ledger.location import reading
    from preceptor.judge.ledger.queries import calls, count

    wanted = _wanted(run, model, stage, principle, status, key)
    with reading(ledger) as connection:
        by_status = count(connection, wanted)
        found = list(calls(connection, wanted, 1 if key else limit))
    total = sum(by_status.values())
    if key is not None:
        if total != 1:
            raise UserError(
                f"{ledger}: {total} calls whose key begins with {key!r}; wanted one, give more of it"
            )
        typer.echo(json.dumps(found[0].model_dump(mode="json"), ensure_ascii=False, indent=2))
        return
    if as_json:
        console.result({"by_status": by_status, "calls": [call.model_dump(mode="json") for call in found]})
        return
    columns = ["key", "status", "stage", "principle", "model", "tokens", "cost"]
    console.table(_counts(ledger, by_status, len(found)), columns, [_row(call) for call in found])


@app.command()
def bill(
    by: Annotated[
        str,
        typer.Option(
            "--by", help="Broken down by run, model, stage, principle, batch: one or more, by comma."
        ),
    ] = "model,stage",
    run: Run = None,
    ledger: options.Ledger = LEDGER,
    as_json: options.Json = False,
) -> None:
    """What was spent, over all runs on this ledger; what was paid for twice counts twice."""
    from preceptor.constitution.errors import UserError
    from preceptor.judge.ledger import queries as ledger_books
    from preceptor.judge.ledger.location import reading

    chosen = tuple(name for name in ledger_books.BY if name in by.split(","))
    if unknown := sorted(set(by.split(",")) - set(ledger_books.BY)):
        raise UserError(f"--by names {', '.join(unknown)!r}; wanted some of {', '.join(ledger_books.BY)}")
    with reading(ledger) as connection:
        lines = ledger_books.bill(connection, chosen, run)
        total = ledger_books.bill(connection, (), run)
    if as_json:
        summed = _figures(total[0]) if total else None
        console.result({"lines": [line.of | _figures(line) for line in lines], "total": summed})
        return
    columns = [*chosen, "answers", "failed", "lost", "tokens in", "tokens out", "cost"]
    rows = [[*line.of.values(), *_cells(line)] for line in lines]
    rows += [["total", *[""] * (len(chosen) - 1), *_cells(line)] for line in total]
    console.table(f"{ledger}: the bill", columns, rows)
    if total and total[0].lost:
        console.say(
            f"{total[0].lost} lost calls were in flight at a kill: they may have been paid for, at most once"
        )


@app.command()
def export(
    out: Annotated[str, typer.Option("--out", "-o", help="A file, .gz too; - for stdout.")] = "-",
    run: Run = None,
    model: Model = None,
    stage: Stage = None,
    principle: Principle = None,
    status: Status = None,
    ledger: options.Ledger = LEDGER,
) -> None:
    """The calls with every word of them, one JSON object a line, latest first."""
    from preceptor.judge.ledger.location import reading
    from preceptor.judge.ledger.queries import calls
    from preceptor.prompts.rows import write_rows

    with reading(ledger) as connection:
        rows = calls(connection, _wanted(run, model, stage, principle, status))
        if out != "-":
            console.say(f"{out}: {write_rows(out, rows)} calls")
            return
        for row in rows:
            typer.echo(row.line())


@app.command()
def prune(
    older_than: Annotated[
        float | None, typer.Option("--older-than", metavar="DAYS", min=0, help="Asked so many days ago.")
    ] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="Only what has no answer: failed and lost.")
    ] = False,
    run: Run = None,
    model: Model = None,
    stage: Stage = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, it is only counted.")] = False,
    ledger: options.Ledger = LEDGER,
    as_json: options.Json = False,
) -> None:
    """Throw calls away; an answer that is gone is asked and paid for again. The bill is kept."""
    from preceptor.constitution.errors import UserError
    from preceptor.judge.ledger import queries as ledger_books
    from preceptor.judge.ledger.location import open_engines, reading

    if older_than is None and not failed and run is None and model is None and stage is None:
        raise UserError(
            "nothing says what can go; give --older-than DAYS, --failed, --run, --model or --stage"
        )
    wanted = _wanted(run, model, stage)._replace(
        statuses=ledger_books.UNANSWERED if failed else None,
        before=None if older_than is None else time.time() - 86400 * older_than,
    )
    with reading(ledger) as connection:
        pruned = ledger_books.to_prune(connection, wanted)
    if yes:
        engines = open_engines(ledger)
        try:
            pruned = ledger_books.prune(engines.writer, wanted)
        finally:
            engines.writer.dispose()
            engines.reader.dispose()
    if as_json:
        console.result(pruned._asdict() | {"done": yes})
        return
    what = f"{pruned.calls} calls, {pruned.answered} of them answered, {pruned.text_bytes / 2**20:.1f} MiB"
    again = f"asking those again would cost about ${pruned.cost_usd:.2f}"
    console.say(f"thrown away: {what}; {again}" if yes else f"--yes would throw away {what}; {again}")


@app.command()
def batches(
    model: Model = None,
    limit: Annotated[int, typer.Option(min=1, help="Batches to show, latest first.")] = 20,
    ledger: options.Ledger = LEDGER,
    as_json: options.Json = False,
) -> None:
    """The batches that were sent, latest first: how far each is, as far as the last look at it, and what it cost."""
    from preceptor.judge.ledger.batches import listed
    from preceptor.judge.ledger.location import reading

    with reading(ledger) as connection:
        found = listed(connection, model)
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
    console.table(f"{ledger}: {len(found)} batches; the latest {len(rows)}", columns, rows)


def _told(batch: Batch) -> dict[str, Any]:
    """Without the address of the process and of the server, which may carry a key."""
    return batch.model_dump(mode="json", exclude={"owner", "endpoint"})


def _wanted(
    run: str | None,
    model: str | None,
    stage: str | None,
    principle: str | None = None,
    status: str | None = None,
    key: str | None = None,
) -> Wanted:
    from preceptor.judge.ledger.queries import Wanted

    return Wanted(run, model, stage, principle, None if status is None else (status,), key)


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
    return [*(f"{figure:,}" for figure in figures), f"${line.cost_usd:.4f}{unpriced}"]
