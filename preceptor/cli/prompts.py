"""Prompt pools: list those that ship, show the rows of a file."""

from __future__ import annotations

from typing import Annotated

import typer

from preceptor.cli import console

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)


@app.command("list")
def list_pools() -> None:
    """The pools that ship, one a line: name, prompts, tags."""
    from preceptor.prompts.pool import prompts_from, shipped_pools

    for name in shipped_pools():
        rows = list(prompts_from(name))
        tags = sorted({tag for row in rows for tag in row.tags})
        console.show(f"{name}\t{len(rows)} prompts\t{', '.join(tags)}")


@app.command()
def show(
    source: Annotated[str, typer.Argument(help="A shipped pool's name or a file of prompts.")],
    limit: Annotated[int, typer.Option(min=1, help="Rows to show.")] = 10,
) -> None:
    """The rows as Preceptor reads them, one JSON object a line."""
    from itertools import islice

    from preceptor.prompts.pool import prompts_from

    for prompt in islice(prompts_from(source), limit):
        console.show_row(prompt)
