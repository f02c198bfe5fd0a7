"""`preceptor drift`: are the judges still those that made the labels?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import Field

from preceptor.cli import console, options
from preceptor.cli.asking import show_plan
from preceptor.cli.flags import Flags
from preceptor.prompts.records import Settings
from preceptor.settings import Asking

if TYPE_CHECKING:
    from preceptor.judge.figures import ChangedFigures


class DriftOptions(Settings):
    """How often, at how much, and what is no drift."""

    rows: int = Field(default=100, ge=1)
    """Labels that a look asks again, drawn anew from all of them."""
    every: float | None = Field(default=None, ge=0)
    """Days that must lie between two looks: a command that a clock starts more often asks nothing. Else it looks at
    once."""
    tolerate: float | None = Field(default=None, gt=0, lt=0.5)
    """Share of other outcomes that is no drift; else what `label --recheck` found on its day, or 0.05."""


def drift(
    labels: Annotated[Path, typer.Argument(help="A folder that `label` wrote.")],
    looking: Annotated[DriftOptions, Flags("Comparing")],
    asking: Annotated[Asking, Flags(omit=("engine", "address", "gpus", "workers"))],
    plan: options.PlanOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Ask the judges of some labels again, past the ledger; exit 1 where they are not those any more."""
    from preceptor.judge.asking import prices
    from preceptor.judge.audit.drift import verdict
    from preceptor.label.drifted import look, watched
    from preceptor.label.run import dialogues_of, floating, look_number, opened
    from preceptor.label.run import looking as again

    found = watched(labels, asking, looking.rows, looking.tolerate)
    if plan:
        job = again(found.job, look_number(found.pairs, found.job, found.asking))
        show_plan(dialogues_of(found.pairs, job, opened(job)), found.asking, as_json)
        return
    due = found.due(looking.every, prices.today())
    spent = 0.0
    if due:
        figures, asked = look(found, console.progress)
        spent = asked.progress.cost_usd
    else:
        figures = verdict(found.looks)
    names = floating(found.job)
    if as_json:
        console.result({**figures, "looked": due, "floating": names, "cost_usd": spent})
    else:
        _show(figures, str(labels), looked=due)
        if names:
            console.say(
                f"note: {', '.join(names)}: a name without a date, behind which the provider can put another model; "
                "name a dated version where there is one"
            )
    if figures["since"] is not None:
        raise typer.Exit(1)


def _show(found: ChangedFigures, title: str, *, looked: bool) -> None:
    """The figures as a table, and what follows in words."""
    keys = ("n", "changed", "last_changed", "at_least", "evidence", "alarm")
    names = ["", "rows", "changed", "at the last look", "surely more than", "evidence", "alarm at look"]
    subjects: dict[str, Any] = {"all": found, **found["by_principle"]}
    rows = [[name, *(_cell(one[key]) for key in keys)] for name, one in subjects.items()]
    console.table(
        f"{title}: {found['looks']} looks, {found['tolerance']:.1%} tolerated, alarm from {found['threshold']:g} up",
        names,
        rows,
    )
    if not looked:
        console.say("not due yet: nothing was asked")
    if found["since"] is None:
        console.say("nothing shows that the judges have changed")
        return
    named = [name for name, own in found["by_principle"].items() if own["alarm"] is not None]
    which = f" (principles: {', '.join(named)})" if named else ""
    console.say(
        f"the judges are not those of these labels any more, found on {found['since']}{which}; a certificate of theirs "
        "has ended"
    )


def _cell(value: object) -> str:
    return "–" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
