"""`preceptor constitution induce --from-overrides`: changes to a constitution by which a judge meets people oftener."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from preceptor.cli import console
from preceptor.cli.asking import show_plan, tell_of_batches

if TYPE_CHECKING:
    from preceptor.settings import Asking
    from preceptor.workbench.induction import ReconstructionFigures
    from preceptor.workbench.overrides import HumanChoices
    from preceptor.workbench.settings import InductionSettings


class OverridesAsked(NamedTuple):
    """What the command line says."""

    labels: Path
    overrides: Sequence[Path]
    constitution: str | None
    """None: that of the labels."""
    model: str
    judge: str | None
    """None: that of the labels."""
    settings: InductionSettings
    asking: Asking
    out: Path | None
    limit: int | None
    plan: bool
    as_json: bool


def propose_changes(asked: OverridesAsked) -> None:
    """Propose changes to a constitution; the file stays as it is."""
    from preceptor.constitution.edit import write_text
    from preceptor.label.costs import read_labels
    from preceptor.workbench import amending
    from preceptor.workbench.overrides import evidence, human_choices, opinions_in

    settings, asking = asked.settings, asked.asking
    labels = read_labels(asked.labels)[: asked.limit]
    document = amending.document_of(asked.constitution, asked.labels)
    rules = document.constitution
    judge = asked.judge or amending.judge_of(labels, asked.labels)
    asking.require([asked.model, judge], None)
    said = human_choices([one for file in asked.overrides for one in opinions_in(file)], labels)
    _show_counts(said)
    job = amending.AmendingJob(document, said, asked.model, judge, settings, asking)
    if asked.plan:
        console.say(f"as if people contradicted every label, and {settings.candidates} wordings were tried")
        show_plan(amending.asks(job), asking, asked.as_json)
        return
    tell_of_batches(asking)
    made = amending.amend(job, console.progress, console.say)
    console.table(
        f"{rules.identity} on {made.held_out} held-out pairs, judged by {judge} principle by principle",
        ["constitution", "as people", "undecided", "share", "95 % interval"],
        [reconstruction_row("as it is", made.before), reconstruction_row("with the changes", made.after)],
    )
    console.say(
        f"held out: {len(made.put_right)} put right, {len(made.put_wrong)} put wrong; {made.tried} changes tried; "
        f"{made.bill.said()}"
    )
    if made.taken and asked.out is not None:
        write_text(asked.out, made.document.text)
        console.say(f"{asked.out}: the constitution with {len(made.taken)} changes")
    if not made.taken:
        console.say("no change adds to the agreement with people on the learning pairs; nothing is proposed")
    diff = evidence(made.taken, made.document) if made.taken else ""
    if not asked.as_json:
        if diff:
            console.show(diff)
        return
    console.result(
        {
            "constitution": rules.identity,
            "model": asked.model,
            "judge": judge,
            "learn": made.learn,
            "overridden": made.overridden,
            "held_out": made.held_out,
            "ties": said.ties,
            "disagreed": said.disagreed,
            "unknown": said.unknown,
            "tried": made.tried,
            "changes": made.taken,
            "before": made.before,
            "after": made.after,
            "put_right": made.put_right,
            "put_wrong": made.put_wrong,
            "diff": diff,
            "out": str(asked.out) if made.taken and asked.out is not None else None,
            "calls": made.bill.calls,
            "from_ledger": made.bill.from_ledger,
            "cost_usd": made.bill.cost_usd,
        }
    )


def reconstruction_row(name: str, figures: ReconstructionFigures) -> list[str]:
    """A row of a table: right, undecided, share and its interval."""
    low, high = figures["ci95"]
    return [
        name,
        str(figures["right"]),
        str(figures["undecided"]),
        f"{figures['share']:.3f}",
        f"{low:.3f} to {high:.3f}",
    ]


def _show_counts(said: HumanChoices) -> None:
    parts = [
        f"{count} {what}"
        for count, what in (
            (said.ties, "ties"),
            (said.disagreed, "about which people disagree"),
            (said.unknown, "opinions about labels that are not there"),
        )
        if count
    ]
    left = f"; left out: {', '.join(parts)}" if parts else ""
    console.say(f"people chose a reply of {len(said.made)} pairs{left}")
