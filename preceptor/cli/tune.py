"""`preceptor constitution tune`: which wording of a principle a judge follows best."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from preceptor.cli import console, options
from preceptor.cli.asking import show_plan, tell_of_batches
from preceptor.cli.constitution import SourceArgument
from preceptor.cli.flags import Flags
from preceptor.label.judging import OneJudge
from preceptor.settings import Asking
from preceptor.workbench.settings import InductionSettings


def tune(
    source: SourceArgument,
    principle_id: Annotated[
        str, typer.Argument(metavar="ID", help="The principle's id.", show_default=False)
    ],
    gold: Annotated[str, typer.Argument(help="Pairs whose better reply is known.", show_default=False)],
    judge: Annotated[OneJudge, Flags("Judging")],
    settings: Annotated[InductionSettings, Flags("Learning", only=("held_out", "seed", "tie"))],
    asking: Asking,
    wording: Annotated[
        list[str] | None, typer.Option("--wording", metavar="TEXT", help="A wording to try; repeatable.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="TEXT", help="Have a model write wordings: provider/model."),
    ] = None,
    wordings: Annotated[
        int, typer.Option("--wordings", metavar="INT", min=1, help="With --model: how many it writes.")
    ] = 4,
    form: options.FormatOption = "rows",
    columns: options.ColumnsOption = None,
    limit: options.Limit = None,
    plan: options.PlanOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Compare wordings of one principle on gold; the best is proposed as a diff, and nothing is changed."""
    from preceptor.asking import stages
    from preceptor.asking.step_bill import StepBill
    from preceptor.constitution.errors import UserError
    from preceptor.constitution.files import load
    from preceptor.prompts.columns import mapping_of
    from preceptor.workbench import tuning
    from preceptor.workbench.induction import split_pairs
    from preceptor.workbench.wordings import applicable, best, proposal, tuned

    if not wording and model is None:
        raise UserError(
            "there is one wording, the file's own; bring others with --wording, or name a --model"
        )
    rules = load(source)
    principle = tuned(rules, principle_id)
    asking.require([judge.needed, *([model] if model else [])], None)
    read = islice(stages.pairs_from(gold, form, mapping_of(columns or [])), limit)
    split = split_pairs(applicable(read, principle), settings)
    job = tuning.TuningJob(
        constitution=rules,
        principle=principle,
        split=split,
        judge=judge.needed,
        tie=settings.tie,
        given=wording or (),
        model=model,
        most=wordings,
        asking=asking,
    )
    if plan:
        show_plan(tuning.asks(job), asking, as_json)
        return
    tell_of_batches(asking)
    bill = StepBill(asking, console.progress)
    found = tuning.try_wordings(job, bill)
    winner = best(found)
    rows = [
        [
            "file's own" if one["original"] else one["text"][:60],
            f"{one['learn']['share']:.3f}",
            f"{one['held_out']['share']:.3f}",
            f"{one['held_out']['ci95'][0]:.3f} to {one['held_out']['ci95'][1]:.3f}",
            str(one["flips"]),
            f"${one['cost_usd']:.2f}",
        ]
        for one in found
    ]
    heads = [
        "wording",
        f"{len(split.learn)} learning",
        f"{len(split.held_out)} held out",
        "95 %",
        "flips",
        "cost",
    ]
    console.table(f"{principle.id} by {judge.needed}: agreement with gold", heads, rows)
    console.say(bill.said())
    change = "" if winner["original"] else proposal(principle, winner["text"])
    if as_json:
        result = {"constitution": rules.identity, "principle": principle.id, "judge": judge.needed}
        console.result(
            result | {"wordings": found, "best": winner["text"], "diff": change, "cost_usd": bill.cost_usd}
        )
    elif change:
        console.show(change)
    if not change:
        console.say("no wording agrees better on the learning pairs than the file's own")
