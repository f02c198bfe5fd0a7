"""`preceptor constitution tune`: which wording of a principle a judge follows best."""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated

import typer

from preceptor.cli import console, options
from preceptor.cli.asking import show_plan, tell_of_batches
from preceptor.cli.constitution import SourceArgument
from preceptor.cli.flags import Flags
from preceptor.cli.judging import OneJudge
from preceptor.cli.step_bill import StepBill
from preceptor.judge.settings import LabelSettings, RespondSettings
from preceptor.settings import Asking
from preceptor.workbench.settings import InductionSettings

if TYPE_CHECKING:
    from preceptor.judge.records import Response

REWORDING = RespondSettings(samples=1, max_tokens=1024, temperature=0.0)


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
    from preceptor.constitution.errors import UserError
    from preceptor.constitution.files import load
    from preceptor.prompts.columns import mapping_of
    from preceptor.workbench import wordings as tuning
    from preceptor.workbench.induction import by_label, split_pairs
    from preceptor.workbench.proposing import asking_of

    if not wording and model is None:
        raise UserError(
            "there is one wording, the file's own; bring others with --wording, or name a --model"
        )
    rules = load(source)
    principle = tuning.tuned(rules, principle_id)
    asking.require([judge.needed, *([model] if model else [])], None)
    read = islice(stages.pairs_from(gold, form, mapping_of(columns or [])), limit)
    split = split_pairs(tuning.applicable(read, principle), settings)
    pairs, way = [*split.learn, *split.held_out], LabelSettings(principles="each", tie=settings.tie)
    asks = [tuning.rewording(principle, wordings)] if model else []
    if plan:
        tried = tuning.wordings_in((), principle, wording or [], wordings)
        tried += [
            f"{principle.text} {n}" for n in range(wordings if model else 0)
        ]  # as long as those to come
        judging = [
            stages.labelling(
                pairs, tuning.alone(rules, principle, text), asking.open_judge(judge.needed), way
            )
            for text in tried
        ]
        means = asking_of(asks, model, asking, REWORDING).open() if model else None
        first = map(means.dialogue, asks) if means else iter(())
        show_plan(chain(first, *judging), asking, as_json)
        return
    tell_of_batches(asking)
    bill = StepBill(asking)
    replies: list[Response] = []
    if model:
        bill.ask("reword", asking_of(asks, model, asking, REWORDING), replies.extend)
    made = []
    for number, text in enumerate(tuning.wordings_in(replies, principle, wording or [], wordings)):
        before = bill.cost_usd
        labels = bill.labels(
            f"wording {number}", pairs, judge.needed, tuning.alone(rules, principle, text), way
        )
        made.append(tuning.Wording(text, by_label(labels), bill.cost_usd - before))
    found = tuning.compared(split, made)
    winner = tuning.best(found)
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
    change = "" if winner["original"] else tuning.proposal(principle, winner["text"])
    if as_json:
        result = {"constitution": rules.identity, "principle": principle.id, "judge": judge.needed}
        console.result(
            result | {"wordings": found, "best": winner["text"], "diff": change, "cost_usd": bill.cost_usd}
        )
    elif change:
        console.show(change)
    if not change:
        console.say("no wording agrees better on the learning pairs than the file's own")
