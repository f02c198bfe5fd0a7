"""`preceptor next`: what to do next with a project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from preceptor.cli import console, options


def next_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The project's folder.")] = Path(),
    as_json: options.JsonOption = False,
) -> None:
    """What to do next, from what lies in a folder: each with its reason, command and price. Nothing is asked."""
    from preceptor.workbench.next_steps import next_steps

    steps = next_steps(folder)
    if as_json:
        console.result({"folder": str(folder), "steps": steps})
        return
    for number, step in enumerate(steps, 1):
        cost = step["cost_usd"]
        price = "price: see the plan" if cost is None else "free" if not cost else f"about ${cost:.2f}"
        if step["people"]:
            price = f"{step['people']} question{'s' * (step['people'] > 1)} to a person"
        console.show(f"{number}. {step['why']} ({price})\n   {step['command']}")
    if not steps:
        console.say(f"{folder}: nothing stands out")
