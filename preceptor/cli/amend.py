"""`preceptor constitution edit | test | ablate | diff`: changing a constitution with care."""

from __future__ import annotations

import asyncio
import difflib
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from preceptor.cli import console, options
from preceptor.cli.asking import asking_of, label_settings, show_plan
from preceptor.cli.constitution import File, Json, Source
from preceptor.cli.options import CONCURRENCY, LEDGER

if TYPE_CHECKING:
    from preceptor.asking.stages import Asked, Asking
    from preceptor.constitution.diff import Change
    from preceptor.constitution.principle import Constitution
    from preceptor.judge.models.protocol import Dialogue, Model
    from preceptor.judge.records import Label
    from preceptor.label.editing import Trouble

ON = Annotated[
    Path | None,
    typer.Option(
        "--on", help="A folder that `preceptor label` wrote: what of it would have to be asked again?"
    ),
]
SHOWN = 72
"""Letters of a value in a table of changes."""


def edit(file: File, on: ON = None, ledger: options.Ledger = LEDGER) -> None:
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
    typer.echo("\n".join(lines))
    _show_changes(before, after)
    if on is not None:
        _asked_again(on, after, asking_of(ledger, CONCURRENCY, None, None), as_json=False)


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
    old: Source,
    new: Source,
    on: ON = None,
    ledger: options.Ledger = LEDGER,
    as_json: Json = False,
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
        result["on"] = _asked_again(on, other, asking_of(ledger, CONCURRENCY, None, None), as_json)
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


def _rows(change: Change) -> list[list[str]]:
    name = change.principle or "(constitution)"
    if not change.fields:
        return [[name, change.kind, "", "", _stages(change)]]
    return [
        [name, field, _short(was), _short(now), _stages(change._replace(fields={field: (was, now)}))]
        for field, (was, now) in change.fields.items()
    ]


def _stages(change: Change) -> str:
    """Which stages may have to ask again after a change."""
    stages = [("label", change.asks_again), ("revise", change.revises_again)]
    return ", ".join(stage for stage, asks in stages if asks) or "no"


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _asked_again(on: Path, constitution: Constitution, asking: Asking, as_json: bool) -> dict[str, Any]:
    """The plan of labelling the folder's pairs anew: what the ledger does not answer would be asked."""
    from preceptor import folder
    from preceptor.asking import stages
    from preceptor.constitution.errors import UserError
    from preceptor.judge.dataset.publish import LABELS, read_labels
    from preceptor.label.run import job_of_folder, opened, pair_of

    if not (on / "manifest.json").is_file():
        raise UserError(f"{on} has no manifest.json; wanted a folder that `preceptor label` has finished")
    manifest = folder.read_json(on / "manifest.json")
    labels = list(read_labels(on / LABELS))
    job = job_of_folder(manifest, constitution)
    steps = opened(job)
    pairs = [pair_of(label) for label in labels]
    dialogues = list(stages.judging(pairs, constitution, steps, job.settings, job.rule))
    planned = asyncio.run(stages.price(dialogues, asking))
    if not as_json:
        show_plan(list(stages.judging(pairs, constitution, steps, job.settings, job.rule)), asking, False)
    return {
        "labels": len(labels),
        "calls": sum(line.to_ask for line in planned.lines),
        "in_ledger": sum(line.in_ledger for line in planned.lines),
        "cost_usd": None
        if any(line.cost_usd is None for line in planned.lines)
        else sum(line.cost_usd or 0.0 for line in planned.lines),
    }


def try_examples(
    source: Source,
    judge: options.Judge = "checks",
    reasoning: options.Reasoning = False,
    template: options.Template = None,
    max_tokens: Annotated[int, typer.Option(min=3, help="Longest answer of the judge.")] = 512,
    seed: options.Seed = 0,
    base_url: options.BaseUrl = None,
    ledger: options.Ledger = LEDGER,
    concurrency: options.Concurrency = CONCURRENCY,
    max_cost: options.MaxCost = None,
    price: options.Price = None,
    rpm: options.Rpm = None,
    tpm: options.Tpm = None,
    plan: options.Plan = False,
    as_json: Json = False,
) -> None:
    """Does a judge apply every principle as its examples say? Exit code 1 where it does not."""
    from preceptor.asking import stages
    from preceptor.constitution.errors import UserError
    from preceptor.constitution.files import load
    from preceptor.label.trials import cases, results, summary, trying

    rules = load(source)
    if not cases(rules):
        raise UserError(f"{rules.identity} has no examples; a test wants `examples` under its principles")
    settings = label_settings(
        template=template, principles="each", reasoning=reasoning, max_tokens=max_tokens, seed=seed
    )
    asking = asking_of(ledger, concurrency, max_cost, base_url, price, rpm=rpm, tpm=tpm)
    asked = stages.open_judge(judge, base_url)
    dialogues = list(trying(rules, asked, settings))
    if plan:
        show_plan(dialogues, asking, as_json)
        return
    labels, work = _ask(dialogues, asked, asking, "test")
    if work.stopped is not None:
        raise work.stopped
    found = results(rules, labels)
    counts = summary(found)
    if as_json:
        console.result(
            {"constitution": rules.identity, "judge": judge, "cost_usd": work.progress.cost_usd} | counts
        )
    else:
        for one in found:
            reason = f"  {' '.join(one.reason.split())[:120]}" if one.came != "passed" else ""
            typer.echo(f"{one.principle}[{one.number}] {one.came.upper()}{reason}")
        said = ", ".join(f"{counts[came]} {came}" for came in ("passed", "failed", "flipped", "no verdict"))
        typer.echo(f"{rules.identity} by {judge}: {said}")
    if counts["passed"] < counts["cases"]:
        raise typer.Exit(1)


def ablate(
    source: Source,
    pairs: Annotated[str, typer.Argument(help="Pairs, best with gold.")],
    judge: options.Judge,
    principles: options.Principles = "each",
    reasoning: options.Reasoning = False,
    template: options.Template = None,
    max_tokens: Annotated[int, typer.Option(min=3, help="Longest answer of the judge.")] = 512,
    form: options.Format = "rows",
    limit: options.Limit = None,
    seed: options.Seed = 0,
    base_url: options.BaseUrl = None,
    ledger: options.Ledger = LEDGER,
    concurrency: options.Concurrency = CONCURRENCY,
    max_cost: options.MaxCost = None,
    price: options.Price = None,
    rpm: options.Rpm = None,
    tpm: options.Tpm = None,
    plan: options.Plan = False,
    as_json: Json = False,
) -> None:
    """Leave out one principle at a time: which labels flip, and what it does to the agreement with gold."""
    from preceptor.asking import stages
    from preceptor.constitution.files import load
    from preceptor.label.trials import ablated, accuracy, can_judge, resummed, without

    rules = load(source)
    settings = label_settings(
        template=template, principles=principles, reasoning=reasoning, max_tokens=max_tokens, seed=seed
    )
    asking = asking_of(ledger, concurrency, max_cost, base_url, price, rpm=rpm, tpm=tpm)
    rows = list(islice(stages.pairs_from(pairs, form), limit))
    # judged each by itself, a label without a principle is the sum of the others; else every label is a new ask
    each = principles == "each"
    anew = [] if each else [one.id for one in rules.principles if can_judge(rules, one.id, judge)]
    rounds = {"": rules, **{principle: without(rules, principle) for principle in anew}}

    def dialogues_under(constitution: Constitution, asked: Model | None) -> list[Dialogue[Label]]:
        return list(stages.labelling(rows, constitution, asked, settings))

    if plan:
        asked = stages.open_judge(judge, base_url)
        show_plan([one for each in rounds.values() for one in dialogues_under(each, asked)], asking, as_json)
        return
    labels: dict[str, list[Label]] = {}
    spent: dict[str, dict[str, float]] = {}
    for principle, constitution in rounds.items():
        asked = stages.open_judge(judge, base_url)
        so_far = sum(one["cost_usd"] for one in spent.values())
        left = asking.model_copy(
            update={"max_cost_usd": None if max_cost is None else max(0.0, max_cost - so_far)}
        )
        labels[principle], work = _ask(
            dialogues_under(constitution, asked), asked, left, principle or "label"
        )
        if work.stopped is not None:
            raise work.stopped
        now = work.progress
        spent[principle] = {"calls": now.asked, "in_ledger": now.from_ledger, "cost_usd": now.cost_usd}
    by_id = {(principle, label.id): label for principle, made in labels.items() for label in made}
    again = resummed(rules) if each else (lambda principle, label: by_id.get((principle, label.id)))
    found = ablated(rules, labels[""], again)
    total = {name: sum(one[name] for one in spent.values()) for name in ("calls", "in_ledger", "cost_usd")}
    if as_json:
        ablations = [one._asdict() | spent.get(one.principle, {}) for one in found]
        base = {"constitution": rules.identity, "accuracy": accuracy(labels[""]), **total}
        console.result(base | {"ablations": ablations})
        return
    table = [
        [
            one.principle,
            *(str(len(ids)) for ids in (one.flipped, one.undecided, one.decided)),
            "–" if one.accuracy is None else f"{one.accuracy:.3f}",
            "–" if one.change is None else f"{one.change:+.3f}",
            f"${spent.get(one.principle, {}).get('cost_usd', 0.0):.2f}",
        ]
        for one in found
    ]
    columns = ["without", "flipped", "lose their winner", "gain one", "agreement with gold", "change", "cost"]
    console.table(f"{rules.identity} on {len(rows)} pairs, one principle left out", columns, table)
    console.say(
        f"{total['calls']:.0f} calls asked, {total['in_ledger']:.0f} from the ledger, ${total['cost_usd']:.2f}"
    )


def _ask(
    dialogues: Sequence[Dialogue[Label]], asked: Model | None, asking: Asking, what: str
) -> tuple[list[Label], Asked]:
    from preceptor.asking import stages

    made: list[Label] = []
    with console.progress(what) as watch:
        work = asyncio.run(stages.carry_out(dialogues, [asked], asking, made.append, watch))
    return made, work
