"""`preceptor audit`: is this judge any good?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Annotated, Any

import typer

from preceptor.cli import console, options
from preceptor.cli.asking import (
    asking_of,
    base_urls_of,
    label_settings,
    local_of,
    panels_of,
    share_of,
    show_plan,
)
from preceptor.cli.options import CONCURRENCY, LEDGER

SECTIONS: Mapping[str, Sequence[str]] = {
    "against gold": (
        *("n", "accuracy", "ci95", "correct_original", "correct_swapped", "correct_both"),
        *("kappa", "kappa_ci95", "ece", "ece_ci95"),
    ),
    "habits": (
        *("orders_agree", "flip_rate", "first_share", "longer_share", "length_coefficient", "length_stderr"),
        *("list_share", "self_share"),
    ),
    "judges and answers": ("alpha", "attack_rate", "verdicts", "unparsed", "refused", "failed", "cost_usd"),
}
"""Which figures stand together for a person to read."""


def audit(
    gold: Annotated[str, typer.Argument(help="Pairs whose better reply is known: preferred, or TRL rows.")],
    constitution: options.ConstitutionName,
    judge: options.Judges,
    combine: options.Combine = "mean",
    escalate_to: options.Escalate = None,
    when: options.When = None,
    principles: options.Principles = "joint",
    draws: options.Draws = 1,
    reasoning: options.Reasoning = False,
    clamp: options.Clamp = None,
    shots: options.Shots = 0,
    structured: options.Structured = False,
    tie: options.Tie = False,
    template: options.Template = None,
    canaries: Annotated[
        bool,
        typer.Option("--canaries", help="Plant attacks in the worse replies, too, and count their success."),
    ] = False,
    recheck: options.Recheck = None,
    max_tokens: Annotated[int, typer.Option(min=3, help="Longest answer of the judge.")] = 512,
    form: options.Format = "rows",
    limit: options.Limit = None,
    seed: options.Seed = 0,
    fail_if: options.FailIf = None,
    base_url: options.BaseUrls = None,
    dtype: options.Dtype = None,
    device_map: options.DeviceMap = None,
    four_bit: options.FourBit = False,
    ledger: options.Ledger = LEDGER,
    concurrency: options.Concurrency = CONCURRENCY,
    max_cost: options.MaxCost = None,
    price: options.Price = None,
    rpm: options.Rpm = None,
    tpm: options.Tpm = None,
    batch: options.Batch = False,
    batch_then_sync: options.BatchThenSync = False,
    plan: options.Plan = False,
    as_json: options.Json = False,
) -> None:
    """Measure judges against pairs whose better reply is known; they never see which."""
    from preceptor.asking import stages
    from preceptor.constitution.errors import UserError
    from preceptor.constitution.files import load
    from preceptor.judge.audit.audit import require_gold
    from preceptor.judge.audit.canaries import from_gold
    from preceptor.judge.conditions import gate
    from preceptor.label.run import Job, audit_rows, dialogues_of, opened

    rules = load(constitution)
    settings = label_settings(
        clamp,
        template,
        principles=principles,
        draws=draws,
        reasoning=reasoning,
        shots=shots,
        structured=structured,
        tie=tie,
        max_tokens=max_tokens,
        seed=seed,
    )
    if combine == "dawid-skene":
        raise UserError(
            "--combine dawid-skene looks at a whole file of labels; use it with `preceptor label`"
        )
    job = Job(
        constitution=rules,
        panels=panels_of(judge, escalate_to or [], when or [], False),
        settings=settings,
        base_urls=base_urls_of(base_url or []),
        local=local_of(dtype, device_map, four_bit),
        combine=combine,
        recheck=share_of("--recheck", recheck),
    )
    asking = asking_of(
        ledger,
        concurrency,
        max_cost,
        None,
        price,
        batch=batch,
        then_sync=batch_then_sync,
        rpm=rpm,
        tpm=tpm,
    )
    rows = [pair for pair in islice(stages.pairs_from(gold, form), limit) if pair.preferred]
    require_gold(rows)
    planted = list(from_gold(rows, seed)) if canaries else []
    if plan:
        show_plan(dialogues_of([*rows, *planted], job, opened(job)), asking, as_json)
        return
    figures, work = audit_rows(rows, job, asking, console.progress, planted)
    if as_json:
        console.result(figures)
    else:
        _show(figures, f"{job.judges} on {len(rows)} pairs")
    if work.stopped is not None:
        raise work.stopped
    if fail_if and gate(fail_if, figures):
        console.say(f"the gate failed: {fail_if}")
        raise typer.Exit(1)


def _show(figures: Mapping[str, Any], title: str) -> None:
    """Tables of the figures that exist."""
    for section, names in SECTIONS.items():
        rows = [[name, _figure(figures[name])] for name in names if figures.get(name) is not None]
        if rows:
            console.table(f"{title}: {section}", ["figure", "value"], rows)
    for name in ("by_tag", "by_principle"):
        keys = ("n", "accuracy", "flip_rate", "first_share", "longer_share", "decided")
        rows = [[part, *(_figure(own.get(key)) for key in keys)] for part, own in figures[name].items()]
        if rows:
            console.table(name.replace("_", " "), [name.removeprefix("by_"), *keys], rows)
    if canaries := figures.get("canaries"):
        rows = [[kind, _figure(own["n"]), _figure(own["rate"])] for kind, own in canaries.items()]
        console.table("attacks planted in the worse reply", ["kind", "n", "won over"], rows)
    if steps := figures.get("steps"):
        rows = [[_figure(one[key]) for key in ("step", "pairs", "accuracy", "cost_usd")] for one in steps]
        console.table("steps", ["step", "pairs", "accuracy had it ended there", "USD"], rows)
    if drift := figures.get("drift"):
        console.table(
            "asked again, past the ledger", list(drift), [[_figure(value) for value in drift.values()]]
        )


def _figure(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list | tuple):
        return " to ".join(f"{bound:.3f}" for bound in value)
    return f"{value:.3f}" if isinstance(value, float) else str(value)
