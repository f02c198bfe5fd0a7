"""`preceptor conform`: what becomes of a judge's failures in a trainer's client, or in a service that rewards."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Annotated

import typer

from preceptor.cli import console
from preceptor.cli.options import JsonOption

if TYPE_CHECKING:
    from preceptor.serve.conform.table import Table


def conform(
    clients: Annotated[
        list[str] | None,
        typer.Argument(
            help="trl, verl, ms-swift, areal (the default: all four), control, MODULE:FUNCTION of one's own, or the "
            "address of a service.",
            show_default=False,
        ),
    ] = None,
    judge_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Where a service finds the failing judge, on 127.0.0.1.")
    ] = 9009,
    reward: Annotated[str | None, typer.Option(help="The service's reward, where it has several.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Fail in twelve ways at clients, or at a service by its judge, and tell whether an invented number is a reward.

    MODULE:FUNCTION is given the address of a server that fails, and gives back a reward function as TRL calls them.
    A service speaks POST /v1/reward, and has the model at http://127.0.0.1:9009/v1 for its judge; PRECEPTOR_KEY is its
    key. Exit code 1 where a number was invented.
    """
    from preceptor.serve.conform.clients import OWN
    from preceptor.serve.conform.failing import FAILURES
    from preceptor.serve.conform.failing_judge import JUDGE_FAILURES
    from preceptor.serve.conform.service import service_looked_at
    from preceptor.serve.conform.table import invented, looked_at, markdown_of

    # it warns of every reply that has no reward
    logging.getLogger("preceptor.client").setLevel(logging.ERROR)
    names = clients or [*OWN]
    addresses = [name for name in names if name.startswith(("http://", "https://"))]
    functions = [name for name in names if name not in addresses]
    key = os.environ.get("PRECEPTOR_KEY")
    services = [service_looked_at(url, judge_port, reward=reward, key=key) for url in addresses]
    tables = [(table, JUDGE_FAILURES) for table in services]
    tables += [(looked_at(functions), FAILURES)] if functions else []
    found = [one for table, _ in tables for one in invented(table)]
    if as_json:
        console.result({"failures": _cells([table for table, _ in tables]), "invented": len(found)})
    else:
        for table, failures in tables:
            console.show(markdown_of(table, failures))
    if found:
        said = "; ".join(f"{name} at {failure}" for failure, name in found)
        console.say(f"{len(found)} times a number reached the reward that no judge gave: {said}")
        raise typer.Exit(1)


def _cells(tables: list[Table]) -> dict[str, dict[str, dict[str, str]]]:
    """Failure -> client or service -> its cell."""
    cells: dict[str, dict[str, dict[str, str]]] = {}
    for table in tables:
        for failure, row in table.items():
            cells.setdefault(failure, {}).update({name: cell._asdict() for name, cell in row.items()})
    return cells
