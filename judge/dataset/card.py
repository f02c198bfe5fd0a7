"""The dataset card: what the labels are, who made them and how far the judge is to be trusted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

from preceptor.constitution.principle import Constitution
from preceptor.judge.figures import AttackFigures, AuditFigures, ChangedFigures, FurtherFigures
from preceptor.judge.records import Certificate, Status
from preceptor.prompts.shown import markdown, markdown_code

RELIABILITY = "reliability.svg"
"""The picture beside the card."""
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))

MEANINGS: Mapping[str, str] = {
    "ok": "became preferences",
    "tie": "neither reply is the better",
    "inconsistent": "the two orders name different winners",
    "refused": "the judge declined",
    "unparsed": "the judge gave no verdict that could be read",
    "failed": "the judge could not be asked, or no principle applied",
    "abstained": "there is a winner, and no certificate stands behind it",
}

AUDIT = (
    ("flip_rate", "comparisons whose winner changes with the order"),
    ("first_share", "verdicts for the reply shown first"),
    ("longer_share", "verdicts for the longer reply"),
    ("length_coefficient", "log-odds of a verdict with each doubling of length, gold held fixed"),
    ("list_share", "verdicts for the one reply that holds lists, headings, code or tables"),
    ("self_share", "verdicts for the one reply that the judge's own model wrote"),
    ("accuracy", "verdicts that agree with the gold labels"),
    ("kappa", "Cohen's kappa against the gold labels"),
    ("ece", "expected calibration error"),
    ("alpha", "Krippendorff's alpha between the judges"),
    ("attack_rate", "planted attacks that won the judge over"),
    ("attack_excess", "by how much that is more than harmless edits in their place"),
)
INTERVALS = {"accuracy": "ci95", "kappa": "kappa_ci95", "ece": "ece_ci95"}
"""Figure -> where its interval stands."""

ATTACKS = (
    "kind",
    "verdicts",
    "won over",
    "",
    "by a harmless edit",
    "difference",
    "",
    "labels won",
    "no verdict",
)
"""The columns of the table of attacks."""

CARD = """---
pretty_name: Preferences by {name}
tags: [preceptor, rlaif, constitutional-ai, preference, dpo]
task_categories: [text-generation]
size_categories: [{size}]
configs:
  - config_name: default
    data_files: preferences.jsonl
---

# Preferences by the constitution {name}

AI preference labels: no person has judged these pairs. The judge {judge} compared them by the constitution
{identity}.

| came of it | rows | |
|---|---:|---|
{counts}

`labels.jsonl` holds every comparison with all judgements; `preferences.jsonl` and `.parquet` hold the `ok`
ones as `prompt`, `chosen`, `rejected` with `probability` (that the chosen reply is the better) and `margin`.

## The judge

| figure | | |
|---|---:|---|
{figures}
| cost | {cost} | US dollars |

A figure stands at – where the rows do not give it: agreement needs gold labels, flips need both orders. Brackets
hold 95 % intervals.
{certificate}{sections}
## Principles

`decided` counts the labels that would have another winner, or none, without the principle.

| principle | weight | judged | flip rate | decided | |
|---|---:|---:|---:|---:|---|
{principles}

## Settings

{settings}
"""


def card(
    constitution: Constitution,
    judge: str,
    settings: Mapping[str, Any],
    counts: Mapping[str, int],
    figures: AuditFigures | FurtherFigures,
    certificate: Certificate | None = None,
) -> str:
    """The card in Markdown, with the header that dataset hubs read."""
    total = counts.get("ok", 0)
    known: Mapping[str, Any] = figures
    cost = known.get("cost_usd")
    return CARD.format(
        name=constitution.name,
        identity=markdown_code(constitution.identity),
        judge=markdown_code(judge),
        size=next((name for limit, name in SIZES if total < limit), "n>1M"),
        counts="\n".join(
            f"| {name} | {counts.get(name, 0)} | {MEANINGS[name]} |" for name in statuses_of(certificate)
        ),
        figures="\n".join(
            f"| {key} | {_number(known.get(key))}{_interval(known.get(INTERVALS.get(key, '')))} | {words} |"
            for key, words in AUDIT
        ),
        certificate="" if certificate is None else certified(certificate),
        sections="".join(_sections(known)),
        cost="–" if cost is None else f"{cost:.4f}",
        principles="\n".join(_principle_rows(constitution, known.get("by_principle", {}))),
        settings="\n".join(
            f"- {markdown(key)}: {markdown_code(value)}" for key, value in sorted(settings.items())
        )
        or "- none",
    )


def statuses_of(certificate: Certificate | None) -> list[str]:
    """Those that labels can have: `abstained` only where one was asked for."""
    return [name for name in get_args(Status) if certificate is not None or name != "abstained"]


def certified(one: Certificate) -> str:
    """The certificate in words and a table, or why there is none."""
    share = one.kept / one.labels if one.labels else 0.0
    if one.granted:
        said = (
            f"{one.kept} of {one.labels} labels ({share:.1%}) are kept, which agree with gold like these in at least "
            f"{one.target:.1%}, at {1 - one.level:.0%} confidence. It is about rows like the gold ones, about this "
            "constitution and these judges; with others it is void."
        )
    else:
        said = f"**Not granted**: {markdown(one.reason)}. No label of a judge is kept."
    rows = [
        (step.judge, step.threshold, step.seen, step.n, step.right / step.n, step.low) for step in one.steps
    ]
    table = _table(
        "What is kept",
        ("judge", "confidence from", "gold rows seen", "of them kept", "agreement", "at least"),
        rows,
    )
    refused = "".join(
        f"- not used: {markdown(step.judge)}: {markdown(step.reason)}\n" for step in one.refused
    )
    floating = (
        f" Names without a date, behind which the provider can put another model: {markdown(', '.join(one.floating))}; "
        "`preceptor drift` looks."
        if one.floating
        else ""
    )
    people = f" People decided {one.people} of the rows." if one.people else ""
    agreement = (
        f"Agreement of all labels with a winner, kept or not: {_number(one.agreement_naive)} by the judge's own "
        f"confidence, {_number(one.agreement)}{_interval(one.agreement_ci95)} as gold corrects it.\n"
    )
    return (
        f"\n## Certificate\n\n{said}{people}{floating}\n\nDated {one.date}; {one.gold} gold rows; test of likeness "
        f"p = {one.shift_p:.3g} ({markdown(one.shift_feature)}), refused from {one.shift_level:g} down.\n{table}\n"
        f"{refused}\n{agreement}"
    )


def drifted(found: ChangedFigures, certified: bool) -> str:
    """What later looks at the judges say, in words and a table."""
    if found["since"] is None:
        said = "Nothing shows that the judges have changed."
    elif certified:
        said = (
            f"**The judges are not those of these labels any more**, found on {found['since']}. The certificate has "
            "ended: these labels were made before, and what the same names label now is not certified."
        )
    else:
        said = (
            f"**The judges are not those of these labels any more**, found on {found['since']}. The figures above are "
            "of the past."
        )
    rows = []
    for name, one in {"all": found, **found["by_principle"]}.items():
        alarm = "–" if one["alarm"] is None else f"look {one['alarm']}"
        shares = (one["changed"], one["last_changed"], one["at_least"], one["evidence"])
        rows.append((name, one["n"], *shares, alarm))
    columns = ("", "rows", "changed", "at the last look", "surely more than", "evidence", "alarm")
    table = _table("Asked again, past the ledger", columns, rows)
    return (
        f"{said}\n\n{found['looks']} looks; up to {found['tolerance']:.1%} of other outcomes are the judges' own "
        f"unsteadiness. The alarm comes from evidence {found['threshold']:g} up, which at most {found['level']:.0%} of "
        f"unchanged judges ever reach.\n{table}"
    )


def _sections(figures: Mapping[str, Any]) -> Iterator[str]:
    """What only some runs have: a reliability diagram, tags, faults, panels, steps, canaries, drift."""
    if audited := figures.get("audited"):
        yield f"\nThe figures rest on {audited:.1%} of the labels, drawn by their ids.\n"
    if figures.get("reliability"):
        yield f"\n![Confidence against the share that agrees with gold]({RELIABILITY})\n"
    if faults := figures.get("faults"):
        yield _table("Answers without a verdict", ("why", "answers"), faults.items())
    if by_tag := figures.get("by_tag"):
        keys = ("n", "accuracy", "flip_rate", "first_share", "longer_share")
        rows = [(tag, *(own[key] for key in keys)) for tag, own in by_tag.items()]
        yield _table("By tag", ("tag", *keys), rows)
    if votes := figures.get("votes"):
        matrix = votes["matrix"]
        rows = [
            (judge, *("" if other == judge else _met(row.get(other)) for other in matrix))
            for judge, row in matrix.items()
        ]
        yield _table(
            "Agreement between the judges: share of equal verdicts (pairs)", ("judge", *matrix), rows
        )
        if votes.get("effective_votes") is not None:
            yield (
                f"\nThe judges of the first step are worth {votes['effective_votes']:.1f} independent votes: their "
                f"errors correlate by {votes['error_correlation']:.2f}.\n"
            )
    if (saved := figures.get("saved")) and saved["share"] is not None:
        yield f"\nOf {saved['share']:.1%} of the pairs no judge was asked but those of the first step.\n"
    if steps := figures.get("steps"):
        keys = ("pairs", "accuracy", "added", "cost_usd", "added_per_usd")
        rows = [(one["step"] + 1, *(one[key] for key in keys)) for one in steps]
        columns = (
            "step",
            "pairs that it saw",
            "accuracy had it ended there",
            "added",
            "USD",
            "added for a dollar",
        )
        yield _table("Escalation: accuracy against cost", columns, rows)
    if canaries := figures.get("canaries"):
        yield _table(
            "Canaries: attacks planted in the worse reply",
            ATTACKS,
            map(attack_row, canaries, canaries.values()),
        )
        yield (
            "\nEach attack has a harmless edit of its kind and size as its control: what that wins, an unsteady judge "
            "gives away by itself.\n"
        )
    if drift := figures.get("drift"):
        names = ("asked again", "winner changed", "", "mean shift of the probability")
        row = (drift["n"], drift["changed"], _interval(drift["ci95"]), drift["mean_shift"])
        yield _table("Drift: the same asked again, past the ledger", names, [row])


def attack_row(kind: str, own: AttackFigures) -> tuple[Any, ...]:
    """One line of the table of attacks, as `ATTACKS` names its columns. Verdicts that are missing say why."""
    why = [f"{count} {fault}" for fault, count in own["faults"].items()]
    why += [f"{own['unmatched']} without one before"] if own["unmatched"] else []
    return (
        *(kind, own["n"], own["rate"], _interval(own["ci95"]), own["control"]["rate"], own["difference"]),
        *(_interval(own["difference_ci95"]), own["labels"], ", ".join(why)),
    )


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [
        "| " + " | ".join(markdown(cell) if isinstance(cell, str) else _number(cell) for cell in row) + " |"
        for row in rows
    ]
    head = ["| " + " | ".join(map(markdown, columns)) + " |", "|---|" + "---:|" * (len(columns) - 1)]
    return "\n".join(["", f"### {title}", "", *head, *lines, ""])


def _met(cell: Mapping[str, Any] | None) -> str:
    return "–" if cell is None or cell["share"] is None else f"{cell['share']:.3f} ({cell['n']})"


def _interval(bounds: Sequence[float] | None) -> str:
    return "" if not bounds else f" [{bounds[0]:.3f}, {bounds[1]:.3f}]"


def _principle_rows(constitution: Constitution, by_principle: Mapping[str, Any]) -> list[str]:
    rows = []
    if joint := by_principle.get("joint"):
        cells = " | ".join(_number(joint.get(key)) for key in ("verdicts", "flip_rate", "decided"))
        rows.append(f"| joint | | {cells} | all in one ask |")
    for principle in constitution.principles:
        own = by_principle.get(principle.id, {})
        how = "machine check" if principle.check else "judge"
        cells = " | ".join(_number(own.get(key)) for key in ("verdicts", "flip_rate", "decided"))
        rows.append(
            f"| {principle.id} | {principle.weight:g} | {cells} | {how}: {markdown(principle.text)} |"
        )
    return rows


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.3f}"
