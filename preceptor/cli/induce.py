"""`preceptor constitution induce`: principles that would have made the same choices."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from preceptor.cli import console, options
from preceptor.cli.asking import show_plan, tell_of_batches
from preceptor.cli.flags import Flags
from preceptor.cli.overrides import OverridesAsked, propose_changes, reconstruction_row
from preceptor.label.judging import OneJudge
from preceptor.settings import Asking
from preceptor.workbench.settings import InductionSettings

if TYPE_CHECKING:
    from preceptor.constitution.principle import Constitution
    from preceptor.workbench.induction import ReconstructionFigures


def induce(
    pairs: Annotated[
        str,
        typer.Argument(
            help="Pairs whose better reply is known, in any layout; with --from-overrides a folder of labels."
        ),
    ],
    model: Annotated[
        str, typer.Option("--model", metavar="TEXT", help="Who proposes principles: provider/model.")
    ],
    judge: Annotated[OneJudge, Flags("Judging")],
    settings: Annotated[InductionSettings, Flags("Learning")],
    asking: Asking,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="PATH",
            help="The constitution's file; a new one. --from-overrides can do without.",
        ),
    ] = None,
    overrides: Annotated[
        list[Path] | None,
        typer.Option(
            "--from-overrides",
            metavar="FILE",
            help="Propose changes to a constitution: corrections of labels, or what a blind check gave; repeatable.",
        ),
    ] = None,
    constitution: Annotated[
        str | None,
        typer.Option(
            "--constitution",
            "-c",
            metavar="TEXT",
            help="With --from-overrides: what is to be changed; else what the labels were made under.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Of the constitution; else the file's.")
    ] = None,
    form: options.FormatOption = "rows",
    columns: options.ColumnsOption = None,
    limit: options.Limit = None,
    plan: options.PlanOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Learn principles from preferences, or changes from what people said of labels, and try them on held-out pairs."""
    from preceptor.asking import stages
    from preceptor.constitution.edit import write_text
    from preceptor.constitution.errors import UserError
    from preceptor.constitution.forms.draft import slug
    from preceptor.prompts.columns import mapping_of
    from preceptor.workbench import inducing
    from preceptor.workbench.induction import split_pairs

    if out is None and not overrides:
        raise UserError("there is no file for the constitution; name a new one with --out")
    if constitution is not None and not overrides:
        raise UserError("--constitution is what --from-overrides changes; leave it out")
    if out is not None and out.exists() and not plan:
        raise UserError(f"{out} is already there; name another file with --out, or remove it first")
    if overrides:
        if name is not None or form != "rows" or columns:
            raise UserError(
                "--name, --format and --map are of pairs; --from-overrides reads a folder of labels"
            )
        propose_changes(
            OverridesAsked(
                *(Path(pairs), overrides, constitution, model, judge.name, settings, asking),
                *(out, limit, plan, as_json),
            )
        )
        return
    assert out is not None
    voter = judge.name or model
    asking.require([model, voter], None)
    read = stages.pairs_from(pairs, form, mapping_of(columns or []))
    job = inducing.InductionJob(split_pairs(islice(read, limit), settings), model, voter, settings, asking)
    if plan:
        console.say(f"as if {settings.candidates} candidates were voted on and {settings.most} chosen")
        show_plan(inducing.asks(job), asking, as_json)
        return
    tell_of_batches(asking)
    made = inducing.induce(job, name or slug(out.stem), Path(pairs).name, out, console.progress)
    write_text(out, made.text)
    _show(out, made.constitution, made.executors, voter)
    console.say(f"{made.candidates} candidates voted on; {made.bill.said()}")
    if as_json:
        console.result(
            {
                "out": str(out),
                "constitution": made.constitution.identity,
                "model": model,
                "judge": voter,
                "learn": len(job.split.learn),
                "held_out": len(job.split.held_out),
                "candidates": made.candidates,
                "principles": [{"id": one, **tally._asdict()} for one, tally in made.tallies.items()],
                "executors": made.executors,
                "calls": made.bill.calls,
                "from_ledger": made.bill.from_ledger,
                "cost_usd": made.bill.cost_usd,
            }
        )


def _show(out: Path, rules: Constitution, executors: Sequence[ReconstructionFigures], judge: str) -> None:
    rows = [reconstruction_row(one["executor"], one) for one in executors]
    heads = ["carried out by", "right", "undecided", "share", "95 % interval"]
    console.table(f"{rules.identity} on {executors[0]['n']} held-out pairs, judged by {judge}", heads, rows)
    console.say(f"{out}: {len(rules.principles)} principles")
