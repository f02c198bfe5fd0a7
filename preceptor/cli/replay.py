"""`preceptor constitution replay`: what labels would have been without a principle, or with other weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from preceptor.cli import console, options

if TYPE_CHECKING:
    from preceptor.label.replay import ReplayFigures


def replay(
    labels: Annotated[
        Path, typer.Argument(help="A folder that `preceptor label` wrote.", show_default=False)
    ],
    without: Annotated[
        list[str] | None,
        typer.Option("--without", metavar="ID", help="A principle to leave out; repeatable."),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option("--weights", metavar="ID=FLOAT,...", help="Other weights: a=2,b=0; 0 leaves one out."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="A folder for the labels that would have been."),
    ] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Labels and preferences under fewer principles or other weights, by judgements at hand; nobody is asked."""
    from preceptor.label.replay import altered, open_replay

    found = open_replay(labels)
    rules = altered(found.job.constitution, without or [], _weights(weights or []))
    made = found.figures(rules, out)
    _show(made)
    if found.manifest.get("certificate"):
        console.say("the certificate holds for the labels as they were made, and for none of these")
    if out is not None:
        console.say(
            f"{out}: {made['labels'] - len(made['unknown'])} labels, {made['preferences']['after']} preferences"
        )
    if as_json:
        console.result({"out": None if out is None else str(out), **made})


def _weights(given: list[str]) -> dict[str, float]:
    """Raises UserError."""
    from preceptor.constitution.errors import UserError

    found: dict[str, float] = {}
    for part in (part.strip() for one in given for part in one.split(",")):
        name, _, number = part.partition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = -1.0
        if not 0 <= weight < float("inf"):
            raise UserError(f"--weights has {part!r}; wanted ID=NUMBER with a number from 0, as a=2,b=0")
        if name in found:
            raise UserError(f"--weights names {name!r} twice; name it once")
        found[name] = weight
    return found


def _show(made: ReplayFigures) -> None:
    counts = made["preferences"]
    rows = [
        ["the same", str(made["same"])],
        ["another winner", str(len(made["flipped"]))],
        ["a winner, now a tie", str(len(made["new_tie"]))],
        ["a winner, now none", str(len(made["undecided"]))],
        ["none, now a winner", str(len(made["decided"]))],
        ["unknown: a judge would be asked anew", str(len(made["unknown"]))],
    ]
    console.table(
        f"{made['was']} -> {made['constitution']}, {made['labels']} labels", ["label", "labels"], rows
    )
    console.say(
        f"preferences: {counts['before']} before, {counts['after']} after ({counts['lost']} lost, "
        f"{counts['gained']} gained, {counts['turned']} turned round)"
    )
    if made["mean_shift"] is not None:
        console.say(f"probabilities move by {made['mean_shift']:.3f} on average")
    if made["agreement_before"] is not None:
        console.say(
            f"agreement with gold: {made['agreement_before']:.3f} before, {made['agreement_after']:.3f} after"
        )
