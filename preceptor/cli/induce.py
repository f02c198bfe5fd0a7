"""`preceptor constitution induce`: principles that would have made the same choices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from preceptor.cli import console, options
from preceptor.cli.asking import show_plan, tell_of_batches
from preceptor.cli.flags import Flags
from preceptor.cli.judging import OneJudge
from preceptor.cli.overrides import OverridesAsked, propose_changes
from preceptor.cli.step_bill import StepBill
from preceptor.judge.settings import LabelSettings, RespondSettings
from preceptor.settings import Asking
from preceptor.workbench.settings import InductionSettings

if TYPE_CHECKING:
    from preceptor.constitution.principle import Constitution
    from preceptor.judge.models.protocol import Dialogue
    from preceptor.judge.records import Label, Pair, Response
    from preceptor.workbench.induction import ReconstructionFigures

PROPOSING = RespondSettings(samples=1, max_tokens=1024, temperature=0.0)
JOINT = LabelSettings(principles="joint")
TYPICAL = "Choose the reply that gives the reason for what it says and leaves out what was not asked for."
"""In the place of a candidate, where only the plan is wanted."""


def induce(
    pairs: Annotated[
        str,
        typer.Argument(
            help="Pairs whose better reply is known, in any layout; with --from-overrides a folder of labels."
        ),
    ],
    model: Annotated[
        str, typer.Option("--model", metavar="TEXT", help="Who proposes principles: provider/model.")
    ],
    judge: Annotated[OneJudge, Flags("Judging")],
    settings: Annotated[InductionSettings, Flags("Learning")],
    asking: Asking,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="PATH",
            help="The constitution's file; a new one. --from-overrides can do without.",
        ),
    ] = None,
    overrides: Annotated[
        list[Path] | None,
        typer.Option(
            "--from-overrides",
            metavar="FILE",
            help="Propose changes to a constitution: corrections of labels, or what a blind check gave; repeatable.",
        ),
    ] = None,
    constitution: Annotated[
        str | None,
        typer.Option(
            "--constitution",
            "-c",
            metavar="TEXT",
            help="With --from-overrides: what is to be changed; else what the labels were made under.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Of the constitution; else the file's.")
    ] = None,
    form: options.FormatOption = "rows",
    columns: options.ColumnsOption = None,
    limit: options.Limit = None,
    plan: options.PlanOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Learn principles from preferences, or changes from what people said of labels, and try them on held-out pairs."""
    from preceptor.asking import stages
    from preceptor.constitution.edit import write_text
    from preceptor.constitution.errors import UserError
    from preceptor.constitution.files import load_text
    from preceptor.constitution.forms.carry import file_text
    from preceptor.constitution.forms.draft import slug
    from preceptor.prompts.columns import mapping_of
    from preceptor.workbench import induction
    from preceptor.workbench.proposing import asking_of

    if out is None and not overrides:
        raise UserError("there is no file for the constitution; name a new one with --out")
    if constitution is not None and not overrides:
        raise UserError("--constitution is what --from-overrides changes; leave it out")
    if out is not None and out.exists() and not plan:
        raise UserError(f"{out} is already there; name another file with --out, or remove it first")
    if overrides:
        if name is not None or form != "rows" or columns:
            raise UserError(
                "--name, --format and --map are of pairs; --from-overrides reads a folder of labels"
            )
        propose_changes(
            OverridesAsked(
                *(Path(pairs), overrides, constitution, model, judge.name, settings, asking),
                *(out, limit, plan, as_json),
            )
        )
        return
    assert out is not None
    voter, each = judge.name or model, LabelSettings(principles="each", tie=settings.tie)
    asking.require([model, voter], None)
    read = stages.pairs_from(pairs, form, mapping_of(columns or []))
    split = induction.split_pairs(islice(read, limit), settings)
    proposals = asking_of(induction.proposing(split.learn, settings), model, asking, PROPOSING)
    if plan:
        stand_ins = [induction.ProposedPrinciple(f"{TYPICAL} {n}", 1) for n in range(settings.candidates)]
        some, few = (
            induction.constitution_of(stand_ins[:count]) for count in (settings.candidates, settings.most)
        )
        means = proposals.open()
        asks = chain(
            map(means.dialogue, proposals.rows),
            _dialogues([*split.learn, *split.held_out], some, voter, asking, each),
            _dialogues(split.held_out, few, voter, asking, JOINT),
        )
        console.say(f"as if {settings.candidates} candidates were voted on and {settings.most} chosen")
        show_plan(asks, asking, as_json)
        return
    tell_of_batches(asking)
    bill = StepBill(asking)
    replies: list[Response] = []
    bill.ask("propose", proposals, replies.extend)
    candidates = induction.candidates_in(replies, settings.candidates)
    if not candidates:
        raise UserError(
            f"{model} proposed no principle; look at a reply with `preceptor ledger show`, or ask another"
        )
    voting = induction.constitution_of(candidates)
    labels = bill.labels("vote", [*split.learn, *split.held_out], voter, voting, each)
    chosen = induction.choices_of(labels)
    names = [one.id for one in voting.principles]
    taken = induction.chosen_set(names, split.learn, chosen, settings)
    if not taken:
        raise UserError(
            f"none of {len(candidates)} candidates reconstructs the learning pairs better than chance by more than "
            f"{settings.least_gain}; bring more pairs, or ask another model"
        )
    drafts = induction.drafts_of(candidates, names, taken, split.learn, chosen)
    called = name or slug(out.stem)
    text = file_text(
        called,
        f"Induced from {len(split.learn)} pairs of {Path(pairs).name} by {model}, judged by {voter}",
        drafts,
    )
    rules = load_text(text, out)
    held = [label for label in labels if label.id in {pair.id for pair in split.held_out}]
    executors = [
        induction.reconstructed(
            "vote", split.held_out, {pair.id: induction.voted(pair, taken, chosen) for pair in split.held_out}
        ),
        induction.reconstructed("each", split.held_out, induction.by_each(held, rules)),
        induction.reconstructed(
            "joint",
            split.held_out,
            induction.by_label(bill.labels("joint", split.held_out, voter, rules, JOINT)),
        ),
    ]
    write_text(out, text)
    _show(out, rules, executors, voter)
    console.say(f"{len(candidates)} candidates voted on; {bill.said()}")
    if as_json:
        console.result(
            {
                "out": str(out),
                "constitution": rules.identity,
                "model": model,
                "judge": voter,
                "learn": len(split.learn),
                "held_out": len(split.held_out),
                "candidates": len(candidates),
                "principles": [
                    {"id": one, **induction.tally(one, split.learn, chosen)._asdict()} for one in taken
                ],
                "executors": executors,
                "calls": bill.calls,
                "from_ledger": bill.from_ledger,
                "cost_usd": bill.cost_usd,
            }
        )


def _dialogues(
    pairs: Sequence[Pair], rules: Constitution, judge: str, asking: Asking, way: LabelSettings
) -> Iterable[Dialogue[Label]]:
    from preceptor.asking import stages

    return stages.labelling(pairs, rules, asking.open_judge(judge), way)


def _show(out: Path, rules: Constitution, executors: Sequence[ReconstructionFigures], judge: str) -> None:
    rows = [
        [
            one["executor"],
            str(one["right"]),
            str(one["undecided"]),
            f"{one['share']:.3f}",
            f"{one['ci95'][0]:.3f} to {one['ci95'][1]:.3f}",
        ]
        for one in executors
    ]
    heads = ["carried out by", "right", "undecided", "share", "95 % interval"]
    console.table(f"{rules.identity} on {executors[0]['n']} held-out pairs, judged by {judge}", heads, rows)
    console.say(f"{out}: {len(rules.principles)} principles")
