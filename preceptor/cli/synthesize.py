"""`preceptor prompts synthesize`: new prompts, written by a model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from preceptor.cli import console, options
from preceptor.cli.asking import show_plan_of, tell_of_batches
from preceptor.cli.flags import Flags
from preceptor.settings import Asking
from preceptor.workbench.settings import SynthesisSettings

if TYPE_CHECKING:
    from preceptor.prompts.recipes import CellToFill
    from preceptor.prompts.records import Prompt
    from preceptor.workbench.synthesis import SynthesisFigures


def synthesize(
    model: options.ModelOption,
    out: options.Out,
    settings: Annotated[SynthesisSettings, Flags("Writing")],
    asking: Asking,
    seeds: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SEEDS...", help="Shipped pools or files of prompts: drawn from, and not written again."
        ),
    ] = None,
    constitution: options.MaybeConstitution = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="DIR",
            help="For taxonomy: what `label` wrote; a cell is as full as it told pairs apart.",
        ),
    ] = None,
    fill: Annotated[
        bool,
        typer.Option(
            "--fill/--no-fill",
            metavar="",
            help="Write for the emptiest cells of `prompts coverage`, and nothing else.",
        ),
    ] = False,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="TAG", help="For taxonomy: a further tag; repeatable."),
    ] = None,
    documents: Annotated[
        list[Path] | None,
        typer.Option("--documents", metavar="FILE", help="A text to ask about; repeatable."),
    ] = None,
    held_out: Annotated[
        list[str] | None,
        typer.Option("--held-out", metavar="FILE", help="Prompts that none may be near; repeatable."),
    ] = None,
    columns: options.ColumnsOption = None,
    plan: options.PlanOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Have a model write new prompts; near-duplicates, leaks and what cannot be answered are refused as they come."""
    from preceptor.constitution.errors import UserError
    from preceptor.constitution.forms.carry import text_of
    from preceptor.preflight import check_file
    from preceptor.prompts.admission import Admission
    from preceptor.prompts.columns import mapping_of
    from preceptor.prompts.pool import prompts_from
    from preceptor.prompts.recipes import RecipeInput
    from preceptor.prompts.rows import writing
    from preceptor.workbench.rounds import ask_rounds, calls_of_a_round, round_job
    from preceptor.workbench.synthesis import Synthesis, parts_of_documents

    check_file(out, [*(seeds or []), *(held_out or []), *(documents or [])])
    if fill:
        if constitution is None or not seeds:
            raise UserError("--fill counts prompts by principle; name a file of prompts and --constitution")
        if settings.how:
            raise UserError("--fill is taxonomy for the emptiest cells; leave --how out")
        settings = settings.model_copy(update={"how": ("taxonomy",)})
    if labels is not None and constitution is None:
        raise UserError("--labels without --constitution; name the constitution of the labels")
    asking.require([model], None)
    named = mapping_of(columns or [])
    known = [prompt for name in seeds or [] for prompt in prompts_from(name, named)]
    apart = [prompt for name in held_out or [] for prompt in prompts_from(name, named)]
    cells = _cells(constitution, known, labels, tag or [])
    given = RecipeInput(known, parts_of_documents(text_of(path) for path in documents or []))
    words = (settings.fewest_words, settings.most_words)
    with Admission(settings.threshold, known, apart, words, settings.language) as admission:
        if plan:
            made = Synthesis(settings, given, cells, admission, lambda _: None)
            job = round_job(made.prompts_at_best(), model, settings, asking)
            console.say(f"{len(job.rows)} calls if every prompt is taken; each that is refused takes more")
            show_plan_of(job, asking, as_json)
            return
        tell_of_batches(asking)
        with writing(out) as write:
            made = Synthesis(settings, given, cells, admission, write)
            ask = ask_rounds(model, settings, asking, console.progress)
            found, stopped = made.run(ask, model, calls_of_a_round(model, made, asking))
            if not found["new"]:  # nothing was done, so nothing is left behind
                raise stopped or UserError(_nothing(model, found))
    _show(out, found)
    if as_json:
        console.result({"out": str(out), **found, "complete": stopped is None})
    if stopped is not None:
        console.say(f"stopped early: {out} is valid, and the same command goes on where it stopped")
        raise stopped


def _nothing(model: str, found: SynthesisFigures) -> str:
    refused = ", ".join(f"{count} {reason}" for reason, count in found["refused"].items())
    why = f" ({refused})" if refused else ""
    return (
        f"{model} wrote no prompt that is taken, of {found['written']} in its replies{why}; "
        "look at one with `preceptor ledger show`, or ask another model"
    )


def _cells(
    constitution: str | None, known: Iterable[Prompt], labels: Path | None, tags: list[str]
) -> dict[CellToFill, int]:
    if constitution is None:
        return {}
    from preceptor.constitution.files import load
    from preceptor.label.costs import read_labels
    from preceptor.workbench.synthesis import cells_of

    return cells_of(load(constitution), known, None if labels is None else read_labels(labels), tags)


def _show(out: Path, found: SynthesisFigures) -> None:
    for reason, count in found["refused"].items():
        console.say(f"not taken: {count} {reason}")
    if found["unusable_replies"]:
        console.say(f"not taken: {found['unusable_replies']} whole replies, refused, empty or failed")
    if found["cells"]:
        cells = [[str(cell[0]) or "(any)", *(str(value) for value in cell[1:])] for cell in found["cells"]]
        console.table("cells", ["tag", "principle", "before", "new"], cells)
    each = "" if found["usd_per_new"] is None else f", ${found['usd_per_new']:.4f} for each new prompt"
    console.say(
        f"{out}: {found['new']} new of {found['written']} written; {found['calls']} calls asked, "
        f"{found['from_ledger']} from the ledger, ${found['cost_usd']:.2f}{each}; {found['ended']}"
    )
