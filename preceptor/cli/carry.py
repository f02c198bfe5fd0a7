"""`preceptor constitution import | export`: constitutions from other tools, and to them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from preceptor.cli import console, options
from preceptor.cli.asking import show_plan_of
from preceptor.cli.constitution import SourceArgument
from preceptor.cli.flags import Flags
from preceptor.judge.settings import RespondSettings
from preceptor.settings import Asking

if TYPE_CHECKING:
    from collections.abc import Mapping

    from preceptor.constitution.forms.carry import ImportedConstitution
    from preceptor.judge.records import Response

READ = "annotated-pairs, critiques, icai, openai-grader, nemo-gym, rubric, texts, markdown, prose"
WRITTEN = "critiques, icai, openai-grader, nemo-gym, rubric, texts, markdown"


def import_form(
    file: Annotated[Path, typer.Argument(help="Text, Markdown, JSON or JSON Lines.", show_default=False)],
    settings: Annotated[
        RespondSettings, Flags("Sampling", only=("max_tokens", "effort"), defaults={"max_tokens": 2048})
    ],
    asking: Asking,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="PATH",
            help="The constitution's file; a new one.",
            show_default="NAME.yaml",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Of the constitution; else the file's.")
    ] = None,
    form: Annotated[
        str, typer.Option("--format", metavar="FORM", help=f"auto: by sight; or one of {READ}.")
    ] = "auto",
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="TEXT", help="Have a model word the principles of prose: provider/model."
        ),
    ] = None,
    plan: options.PlanOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Make a constitution of what another tool, paper or page has, with the words that each principle came from."""
    from preceptor.constitution.edit import write_text
    from preceptor.constitution.errors import UserError
    from preceptor.constitution.forms.carry import read_form
    from preceptor.constitution.forms.draft import slug

    called = name or slug(file.stem)
    path = out or Path(f"{called}.yaml")
    if plan and model is None:
        raise UserError("--plan without --model: nothing is asked; leave it out")
    if path.exists() and not plan:
        raise UserError(f"{path} is already there; name another file with --out, or remove it first")
    if model is None:
        made = read_form(file, form, called)
    else:
        proposed = _by_model(file, called, model, settings, asking, plan, as_json)
        if proposed is None:
            return
        made = proposed
    write_text(path, made.text)
    _tell(made.set_aside)
    console.say(
        f"{path}: {made.constitution.identity}, {len(made.constitution.principles)} principles, read as {made.form}"
    )
    if as_json:
        console.result(
            {
                "out": str(path),
                "constitution": made.constitution.identity,
                "principles": len(made.constitution.principles),
                "form": made.form,
                "set_aside": dict(made.set_aside),
            }
        )


def _by_model(
    file: Path, name: str, model: str, settings: RespondSettings, asking: Asking, plan: bool, as_json: bool
) -> ImportedConstitution | None:
    """What a model proposes; None where only the plan was wanted."""
    from preceptor.asking.step_bill import StepBill
    from preceptor.cli.asking import tell_of_batches
    from preceptor.workbench.proposing import drafted, reading_job

    asking.require([model], settings.effort)
    reading = reading_job(file, model, asking, settings)
    if plan:
        show_plan_of(reading.job, asking, as_json)
        return None
    tell_of_batches(asking)
    bill = StepBill(asking, console.progress)
    replies: list[Response] = []
    bill.ask("propose", reading.job, replies.extend)
    console.say(bill.said())
    return drafted(reading, replies, name)


def _tell(set_aside: Mapping[str, int]) -> None:
    for reason, count in set_aside.items():
        console.say(f"left out: {count} {reason}")


def export_form(
    source: SourceArgument,
    form: Annotated[str, typer.Option("--to", metavar="FORM", help=f"One of {WRITTEN}.")],
    out: options.Out,
    as_json: options.JsonOption = False,
) -> None:
    """Write a constitution in another tool's form; what has no place in it is named."""
    from preceptor.constitution.edit import write_text
    from preceptor.constitution.files import load
    from preceptor.constitution.forms.carry import write_form
    from preceptor.preflight import check_file

    check_file(out, [source])
    rules = load(source)
    made = write_form(rules, form)
    write_text(out, made.text)
    _tell(made.set_aside)
    if made.lost:
        console.say(f"no place in {form} for: {', '.join(made.lost)}")
    console.say(f"{out}: {rules.identity} as {form}")
    if as_json:
        console.result(
            {"out": str(out), "form": form, "set_aside": dict(made.set_aside), "lost": list(made.lost)}
        )
