"""Judges together: what recorded votes say of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from preceptor.cli import console

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)


@app.callback()
def panel() -> None:
    """Judges together: what recorded votes say of them."""


@app.command()
def choose(
    labels: Annotated[
        Path, typer.Argument(help="What `label` wrote with several judges, of rows with gold.")
    ],
    ledger: Annotated[
        str | None, typer.Option("--ledger", help="Where the calls are, for what each judge cost.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Which of the judges should decide together, by recorded votes and gold; often one is enough."""
    from preceptor.constitution.errors import UserError
    from preceptor.judge.voting.choice import recordings_of, worth
    from preceptor.label.costs import cost_by_judge, read_labels

    rows = read_labels(labels)
    known = recordings_of(rows)
    if len(known.judges) < 2 or not len(known.gold):
        raise UserError(
            f"{labels} holds {len(known.gold)} pairs with gold on which several judges have voted; wanted what "
            "`preceptor label --judge A --judge B` wrote of rows with `preferred`"
        )
    found = worth(known, cost_by_judge(rows, ledger))
    if as_json:
        console.result(found)
        return
    votes = found["effective_votes"]
    amount = "an unknown number of" if votes is None else f"{votes:.1f}"
    console.say(f"{found['judges']} judges on {found['n']} pairs are worth {amount} independent votes")
    names = ["judge", "accuracy", "adds to the others", "USD", "adds for a dollar"]
    keys = ("judge", "accuracy", "adds", "cost_usd", "adds_per_usd")
    cells = [[_cell(value) for value in map(dict(one).get, keys)] for one in found["members"]]
    console.table(f"all together: {found['accuracy']:.3f}", names, cells)
    if len(found["chosen"]) == 1:
        console.say(
            f"one judge: {found['chosen'][0]} ({found['chosen_accuracy']:.3f}); no panel is surely better"
        )
    else:
        console.say(
            f"a panel: {' '.join(f'--judge {one}' for one in found['chosen'])} ({found['chosen_accuracy']:.3f})"
        )


def _cell(value: object) -> str:
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
