"""`preceptor conform`: what becomes of a judge's failures in a trainer's client."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from preceptor.cli import console
from preceptor.cli.options import JsonOption


def conform(
    clients: Annotated[
        list[str] | None,
        typer.Argument(
            help="trl, verl, ms-swift, areal (the default: all four), control, or MODULE:FUNCTION of one's own.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Fail at reward clients in twelve ways, and tell whether an invented number reached the reward.

    MODULE:FUNCTION is given the address of a server that fails, and gives back a reward function as TRL calls them.
    Exit code 1 where a number was invented.
    """
    from preceptor.serve.conform.clients import OWN
    from preceptor.serve.conform.table import invented, looked_at, markdown_of

    # it warns of every reply that has no reward
    logging.getLogger("preceptor.client").setLevel(logging.ERROR)
    table = looked_at(clients or [*OWN])
    found = invented(table)
    if as_json:
        cells = {
            failure: {name: cell._asdict() for name, cell in row.items()} for failure, row in table.items()
        }
        console.result({"failures": cells, "invented": len(found)})
    else:
        console.show(markdown_of(table))
    if found:
        said = "; ".join(f"{name} at {failure}" for failure, name in found)
        console.say(f"{len(found)} times a number reached the reward that no judge gave: {said}")
        raise typer.Exit(1)
