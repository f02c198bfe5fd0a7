"""`preceptor label`: have replies judged, against one another."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from preceptor.cli import console, options
from preceptor.cli.asking import finish, show_plan, tell_of_batches
from preceptor.cli.flags import Flags
from preceptor.cli.judging import JUDGING, Judges
from preceptor.constitution.errors import UserError
from preceptor.judge.settings import LabelSettings, Pairing, Schedule
from preceptor.prompts.records import Settings
from preceptor.settings import Asking, Share

if TYPE_CHECKING:
    from preceptor.judge.models.protocol import Dialogue


class Comparing(Settings):
    """What is compared, and what is asked beyond the rows."""

    groups: Schedule | None = None
    """Rank all replies to a prompt, comparing them by this schedule."""
    preferences: Pairing = "best-worst"
    """With --groups: which of the ranked replies become preferences."""
    canaries: Share = 0.0
    """Plant attacks among the pairs: 2%."""
    recheck: Share = 0.0
    """Ask this share again past the ledger, to see drift: 1%."""


def label(
    pairs: Annotated[str, typer.Argument(help="Pairs, TRL preference rows, hh transcripts, or responses.")],
    constitution: options.ConstitutionName,
    out: options.Out,
    judges: Annotated[Judges, Flags("Judging")],
    settings: Annotated[LabelSettings, Flags("Judging", omit=JUDGING)],
    comparing: Annotated[Comparing, Flags("Comparing", old={"preferences": "--pairs"})],
    asking: Asking,
    form: options.Format = "rows",
    limit: options.Limit = None,
    fail_if: options.FailIf = None,
    plan: options.Plan = False,
    show: Annotated[
        bool,
        typer.Option(
            "--show", metavar="", help="Print what would be asked about the first row; ask nothing."
        ),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Have judges say, in both orders, which reply follows the constitution better."""
    from preceptor.constitution.files import load
    from preceptor.judge.conditions import gate
    from preceptor.label.finished import Source
    from preceptor.label.run import Job, dialogues_of, label_folder, opened, rows_of

    job = Job(
        constitution=load(constitution),
        panels=judges.panels,
        settings=settings,
        access=asking.access,
        combine=judges.combine,
        schedule=comparing.groups,
        pairing=comparing.preferences,
        canaries=comparing.canaries,
        recheck=comparing.recheck,
    )
    asking.require_use(judges.names)
    if judges.human and asking.cluster:
        raise UserError("--human asks a person at this terminal, not on a cluster; leave out --engine ray")
    source = Source(pairs, f"groups {form}" if comparing.groups else form, limit)
    rows = rows_of(source)
    if show:
        _show_asks(dialogues_of(islice(rows, 1), job, opened(job)))
        return
    if plan:
        show_plan(dialogues_of(rows, job, opened(job)), asking, as_json)
        return
    tell_of_batches(asking)
    bar = console.quiet if judges.human else console.progress
    made = label_folder(out, rows, job, asking, bar, source)
    by_status = made.manifest["rows"]["by_status"]
    named = "groups" if comparing.groups else "pairs"
    finish({"out": str(out), named: made.asked.rows, **by_status}, made.asked, as_json)
    if fail_if and gate(fail_if, made.manifest["audit"]):
        console.say(f"the gate failed: {fail_if}")
        raise typer.Exit(1)


def _show_asks(dialogues: Iterable[Dialogue[Any]]) -> None:
    """Every message of the first row's requests, word for word."""
    for request in next(next(iter(dialogues)), ()):
        typer.echo(f"=== {request.model}, principle {request.principle}")
        for message in request.messages:
            typer.echo(f"[{message.role}]\n{message.content}\n")
