"""Rubrics: weighted criteria for replies, in the forms of the field."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from preceptor.cli import console

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)


@app.callback()
def rubric() -> None:
    """Rubrics: weighted criteria for replies, in the forms of the field."""


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="A rubric's file: its form is known by sight.")],
    out: Annotated[Path, typer.Argument(help="Where the rubric is written.")],
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="FORM", help="preceptor, verifiers, autorubric, healthbench or openenv."
        ),
    ] = "preceptor",
) -> None:
    """Write a rubric in another form; what that cannot say is refused."""
    from preceptor.constitution.errors import UserError
    from preceptor.judge.rubric_forms import FORMS, read_rubric, write_rubric
    from preceptor.preflight import check_file
    from preceptor.prompts.manifest import write_text

    form = next((name for name in FORMS if name == to), None)
    if form is None:
        raise UserError(f"--to is {to!r}; wanted {', '.join(FORMS)}")
    check_file(out, [file])
    read = read_rubric(file)
    write_text(out, write_rubric(read, form))
    console.say(f"{out}: {len(read.criteria)} criteria of {read.identity}, as {form}")
