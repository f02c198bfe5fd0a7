"""`preceptor constitution induce --from-overrides`: changes to a constitution by which a judge meets people oftener."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from preceptor.cli import console
from preceptor.cli.asking import show_plan, tell_of_batches
from preceptor.judge.settings import LabelSettings

if TYPE_CHECKING:
    from preceptor.constitution.edit import Document
    from preceptor.judge.records import Label, Response
    from preceptor.settings import Asking
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
    from preceptor.asking import stages
    from preceptor.asking.step_bill import StepBill
    from preceptor.constitution.edit import write_text
    from preceptor.constitution.errors import UserError
    from preceptor.label.costs import read_labels
    from preceptor.label.run import pair_of
    from preceptor.workbench import overrides as mending
    from preceptor.workbench.inducing import PROPOSING, TYPICAL
    from preceptor.workbench.induction import ProposedPrinciple, constitution_of, split_pairs
    from preceptor.workbench.proposing import asking_of

    settings, asking = asked.settings, asked.asking
    labels = read_labels(asked.labels)[: asked.limit]
    document = _document(asked)
    rules = document.constitution
    judge = asked.judge or _judge_of(labels, asked.labels)
    asking.require([asked.model, judge], None)
    opinions = [one for file in asked.overrides for one in mending.opinions_in(file)]
    said = mending.human_choices(opinions, labels)
    _show_counts(said)
    split = split_pairs(
        (pair_of(one.label).model_copy(update={"preferred": one.letter}) for one in said.made), settings
    )
    pairs = [*split.learn, *split.held_out]
    each = LabelSettings(principles="each", tie=settings.tie)
    learning = {pair.id: None for pair in split.learn}
    shown = [one for one in said.made if one.label.id in learning]
    if asked.plan:
        stand_ins = [ProposedPrinciple(f"{TYPICAL} {n}", 1) for n in range(settings.candidates)]
        asks = mending.proposing_changes(shown, rules, {one.label.id: one.label for one in shown}, settings)
        means, asked_judge = asking_of(asks, asked.model, asking, PROPOSING).open(), asking.open_judge(judge)
        console.say(f"as if people contradicted every label, and {settings.candidates} wordings were tried")
        show_plan(
            chain(
                stages.labelling(pairs, rules, asked_judge, each),
                map(means.dialogue, asks),
                stages.labelling(pairs, constitution_of(stand_ins), asked_judge, each),
            ),
            asking,
            asked.as_json,
        )
        return
    tell_of_batches(asking)
    bill = StepBill(asking, console.progress)
    before = bill.labels("judge", pairs, judge, rules, each)
    trial = mending.Trial(rules, (), before, ())
    overridden = [one for one in shown if trial.said(one.label.id, ()) != one.letter]
    if not overridden:
        raise UserError(
            f"{judge} by {rules.identity}, principle by principle, chooses as people do on all {len(shown)} learning "
            "pairs; there is nothing to learn from, so bring other overrides"
        )
    if len(overridden) == len(shown):
        console.say(
            "people contradict the judge on every learning pair, so what a change would put wrong is not known; "
            "bring pairs on which they agree, as a blind check has them"
        )
    replies: list[Response] = []
    asks = mending.proposing_changes(overridden, rules, {one.id: one for one in before}, settings)
    bill.ask("propose", asking_of(asks, asked.model, asking, PROPOSING), replies.extend)
    found = mending.changes_in(replies, rules, settings.candidates)
    changes = mending.removable(found.changes, document)
    for why, count in found.set_aside.items():
        console.say(f"left out: {count} {why}")
    wordings = mending.worded(changes, rules)
    by_change = bill.labels("try", pairs, judge, wordings, each) if wordings else []
    trial = mending.Trial(rules, changes, before, by_change)
    kept, taken = mending.chosen_changes(trial, changes, split.learn, rules, settings)
    mended = mending.edited(document, taken)
    figures = [trial.figures(split.held_out, some) for some in ([], kept)]
    right, wrong = trial.moved(split.held_out, (), kept)
    diff = mending.evidence(taken, mended) if taken else ""
    rows = [
        [
            name,
            str(one["right"]),
            str(one["undecided"]),
            f"{one['share']:.3f}",
            f"{one['ci95'][0]:.3f} to {one['ci95'][1]:.3f}",
        ]
        for name, one in zip(("as it is", "with the changes"), figures, strict=True)
    ]
    console.table(
        f"{rules.identity} on {len(split.held_out)} held-out pairs, judged by {judge} principle by principle",
        ["constitution", "as people", "undecided", "share", "95 % interval"],
        rows,
    )
    console.say(
        f"held out: {len(right)} put right, {len(wrong)} put wrong; {len(changes)} changes tried; {bill.said()}"
    )
    if taken and asked.out is not None:
        write_text(asked.out, mended.text)
        console.say(f"{asked.out}: the constitution with {len(taken)} changes")
    if not taken:
        console.say("no change adds to the agreement with people on the learning pairs; nothing is proposed")
    if not asked.as_json:
        if diff:
            console.show(diff)
        return
    console.result(
        {
            "constitution": rules.identity,
            "model": asked.model,
            "judge": judge,
            "learn": len(split.learn),
            "overridden": len(overridden),
            "held_out": len(split.held_out),
            "ties": said.ties,
            "disagreed": said.disagreed,
            "unknown": said.unknown,
            "tried": len(changes),
            "changes": taken,
            "before": figures[0],
            "after": figures[1],
            "put_right": right,
            "put_wrong": wrong,
            "diff": diff,
            "out": str(asked.out) if taken and asked.out is not None else None,
            "calls": bill.calls,
            "from_ledger": bill.from_ledger,
            "cost_usd": bill.cost_usd,
        }
    )


def _document(asked: OverridesAsked) -> Document:
    """The file, or the text of a constitution that is no file. Raises UserError."""
    from preceptor.constitution.edit import Document, open_document
    from preceptor.constitution.errors import UserError
    from preceptor.constitution.files import dump, load, shipped
    from preceptor.judge.dataset.label_folder import LabelFolder, constitution_of

    source = asked.constitution
    if source is not None and source not in shipped():
        return open_document(source)
    if source is not None:
        rules = load(source)
    else:
        manifest = LabelFolder(asked.labels).read_manifest()
        if manifest is None:
            raise UserError(
                f"{asked.labels} holds no labels with their manifest; wanted a folder that `preceptor label` has "
                "finished, or the constitution with --constitution"
            )
        rules = constitution_of(manifest, asked.labels)
    text = dump(rules)
    return Document(Path(f"{rules.name}.yaml"), text, text)


def _judge_of(labels: Sequence[Label], path: Path) -> str:
    from preceptor.constitution.errors import UserError

    judges = {label.judge for label in labels}
    if len(judges) != 1 or " + " in (only := judges.pop()):
        raise UserError(f"{path} was labelled by several judges, or holds no label; name one with --judge")
    return only


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
