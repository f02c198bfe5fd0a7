"""`preceptor constitution edit | test | ablate | diff`: changing a constitution with care."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from preceptor.cli import console, options
from preceptor.cli.asking import show_plan, show_priced, tell_of_batches
from preceptor.cli.constitution import FileArgument, PrintJsonOption, SourceArgument
from preceptor.cli.flags import Flags
from preceptor.judge.settings import LabelSettings
from preceptor.label.judging import JUDGING, OneJudge
from preceptor.settings import Asking

if TYPE_CHECKING:
    from preceptor.constitution.diff import PrincipleChange
    from preceptor.constitution.principle import Constitution
    from preceptor.judge.dataset.clashes import ClashFigures
    from preceptor.label.editing import Trouble

ON = Annotated[
    Path | None,
    typer.Option(
        "--on", help="A folder that `preceptor label` wrote: what of it would have to be asked again?"
    ),
]
Known = Annotated[Asking, Flags(only=("ledger", "prices"))]
"""What is known of the calls that a label folder would have to ask again."""
Direct = Annotated[Asking, Flags(omit=("batch", "then_sync", "engine", "address", "gpus", "workers"))]
"""How a command asks that has no rows to share out."""
SHOWN = 72
"""Letters of a value in a table of changes."""


def edit(file: FileArgument, known: Known, on: ON = None) -> None:
    """Edit a file in your own editor; a broken one never takes the place of a good one."""
    from preceptor.label.editing import edit as edit_file

    edited = edit_file(file, _choose, console.say)
    if edited.after is None:
        console.say(f"{file}: nothing was changed")
        return
    before, after = edited.before.constitution, edited.after.constitution
    lines = difflib.unified_diff(
        edited.before.text.splitlines(),
        edited.after.text.splitlines(),
        f"{file} (before)",
        str(file),
        lineterm="",
    )
    console.show("\n".join(lines))
    _show_changes(before, after)
    if on is not None:
        _asked_again(on, after, known, as_json=False)


def _choose(trouble: Trouble) -> str:
    """Show what is wrong and ask what is to be done."""
    from preceptor.constitution.errors import UserError

    for line in trouble.lines:
        console.say(f"  {line}")
    offered = "e: edit again, k: keep it so, g: give up" if trouble.usable else "e: edit again, g: give up"
    if not sys.stdin.isatty():
        raise UserError("there is no terminal to ask at, so the file stays as it was; edit it by hand there")
    while True:
        console.say(f"{'it can be used so' if trouble.usable else 'it cannot be used so'}; {offered}")
        key = typer.getchar().lower()
        if key in ("e", "g") or (key == "k" and trouble.usable):
            return key


def diff(
    old: SourceArgument,
    new: SourceArgument,
    known: Known,
    on: ON = None,
    as_json: PrintJsonOption = False,
) -> None:
    """What differs, principle by principle, and which labels would have to be asked again."""
    from preceptor.constitution.diff import compare
    from preceptor.constitution.files import load

    one, other = load(old), load(new)
    if not as_json:
        _show_changes(one, other)
    result: dict[str, Any] = {
        "old": one.identity,
        "new": other.identity,
        "changes": [
            change._asdict() | {"asks_again": change.asks_again, "revises_again": change.revises_again}
            for change in compare(one, other)
        ],
    }
    if on is not None:
        result["on"] = _asked_again(on, other, known, as_json)
    if as_json:
        console.result(result)


def _show_changes(old: Constitution, new: Constitution) -> None:
    from preceptor.constitution.diff import compare

    changes = compare(old, new)
    if not changes:
        console.say(f"{old.identity} and {new.identity} say the same")
        return
    rows = [row for change in changes for row in _rows(change)]
    console.table(
        f"{old.identity} -> {new.identity}", ["principle", "change", "before", "after", "asked again"], rows
    )


def _rows(change: PrincipleChange) -> list[list[str]]:
    name = change.principle or "(constitution)"
    if not change.fields:
        return [[name, change.kind, "", "", _stages(change)]]
    return [
        [name, field, _short(was), _short(now), _stages(change._replace(fields={field: (was, now)}))]
        for field, (was, now) in change.fields.items()
    ]


def _stages(change: PrincipleChange) -> str:
    """Which stages may have to ask again after a change."""
    stages = [("label", change.asks_again), ("revise", change.revises_again)]
    return ", ".join(stage for stage, asks in stages if asks) or "no"


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _asked_again(on: Path, constitution: Constitution, known: Asking, as_json: bool) -> dict[str, Any]:
    """What of a label folder would be asked again, shown as a table or handed back for --json."""
    from preceptor.label.asked_again import asked_again

    again = asked_again(on, constitution, known)
    if not as_json:
        show_priced(again.plan, again.asking)
    return again.figures()


def try_examples(
    source: SourceArgument,
    judge: Annotated[OneJudge, Flags("Judging", defaults={"judge": ("checks",)})],
    settings: Annotated[
        LabelSettings,
        Flags("Judging", omit=(*JUDGING, "principles", "draws"), defaults={"principles": "each"}),
    ],
    asking: Direct,
    plan: options.PlanOption = False,
    as_json: PrintJsonOption = False,
) -> None:
    """Does a judge apply every principle as its examples say? Exit code 1 where it does not."""
    from preceptor.constitution.errors import UserError
    from preceptor.constitution.files import load
    from preceptor.label import trials

    rules = load(source)
    if not trials.cases(rules):
        raise UserError(f"{rules.identity} has no examples; a test wants `examples` under its principles")
    asking.require([judge.needed], settings.effort)
    asked = asking.open_judge(judge.needed)
    dialogues = list(trials.trying(rules, asked, settings))
    if plan:
        show_plan(dialogues, asking, as_json)
        return
    labels, cost_usd = trials.try_examples(dialogues, asked, asking, console.progress)
    found = trials.results(rules, labels)
    counts = trials.summary(found)
    against = trials.example_clashes(rules)
    if as_json:
        console.result(
            {"constitution": rules.identity, "judge": judge.needed, "cost_usd": cost_usd}
            | counts
            | {"clashes": [one._asdict() for one in against]}
        )
    else:
        for one in found:
            reason = f"  {' '.join(one.reason.split())[:120]}" if one.came != "passed" else ""
            console.show(f"{one.principle}[{one.number}] {one.came.upper()}{reason}")
        for clash in against:
            console.show(
                f"{clash.principle}[{clash.number}] clashes: the check of {clash.other} prefers the worse reply"
            )
        said = ", ".join(f"{counts[came]} {came}" for came in ("passed", "failed", "flipped", "no verdict"))
        console.show(f"{rules.identity} by {judge.needed}: {said}")
    if counts["passed"] < counts["cases"]:
        raise typer.Exit(1)


def ablate(
    source: SourceArgument,
    pairs: Annotated[str, typer.Argument(help="Pairs, best with gold.")],
    judge: Annotated[OneJudge, Flags("Judging")],
    settings: Annotated[LabelSettings, Flags("Judging", omit=JUDGING, defaults={"principles": "each"})],
    asking: Asking,
    form: options.FormatOption = "rows",
    columns: options.ColumnsOption = None,
    truncated: options.TruncatedOption = "keep",
    limit: options.Limit = None,
    plan: options.PlanOption = False,
    as_json: PrintJsonOption = False,
) -> None:
    """Leave out one principle at a time: which labels flip, and what it does to the agreement with gold."""
    from preceptor.asking import stages
    from preceptor.constitution.files import load
    from preceptor.label.trials import ablate_labels, ablated_constitutions
    from preceptor.prompts.columns import mapping_of

    rules = load(source)
    asking.require([judge.needed], settings.effort)
    mapped = mapping_of(columns or [])
    rows = list(islice(stages.pairs_from(pairs, form, mapped, truncated), limit))
    if plan:
        rounds = ablated_constitutions(rules, judge.needed, settings)
        asked = asking.open_judge(judge.needed)
        every = [one for each in rounds.values() for one in stages.labelling(rows, each, asked, settings)]
        show_plan(every, asking, as_json)
        return
    tell_of_batches(asking)
    done = ablate_labels(rules, rows, judge.needed, settings, asking, console.progress)
    if as_json:
        ablations = [one._asdict() | done.spent.get(one.principle, {}) for one in done.rows]
        base = {"constitution": rules.identity, "accuracy": done.accuracy, **done.total}
        console.result(base | {"ablations": ablations, "clashes": done.clashes})
        return
    table = [
        [
            one.principle,
            *(str(len(ids)) for ids in (one.flipped, one.undecided, one.decided)),
            "–" if one.accuracy is None else f"{one.accuracy:.3f}",
            "–" if one.change is None else f"{one.change:+.3f}",
            f"${done.spent.get(one.principle, {}).get('cost_usd', 0.0):.2f}",
        ]
        for one in done.rows
    ]
    columns = ["without", "flipped", "lose their winner", "gain one", "agreement with gold", "change", "cost"]
    console.table(f"{rules.identity} on {len(rows)} pairs, one principle left out", columns, table)
    if done.clashes:
        _show_clashes(done.clashes)
    total = done.total
    console.say(
        f"{total['calls']:.0f} calls asked, {total['in_ledger']:.0f} from the ledger, ${total['cost_usd']:.2f}"
    )


def _show_clashes(found: Sequence[ClashFigures]) -> None:
    """Which principles choose different replies, and who prevails."""
    rows = [
        [
            f"{one['one']} / {one['other']}",
            *(str(one[name]) for name in ("both", "against", "one_wins", "other_wins")),
        ]
        for one in map(dict, found)
    ]
    heads = ["principles", "both decide", "differently", "first wins", "second wins"]
    console.table("principles that clash; `over` in the file says which is to prevail", heads, rows)
