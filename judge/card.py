"""The dataset card: what the labels are, who made them and how far the judge is to be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from constitution.principle import Constitution
from judge.records import Status

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))

MEANINGS: Mapping[str, str] = {
    "ok": "became preferences",
    "tie": "neither reply is the better",
    "inconsistent": "the two orders name different winners",
    "refused": "the judge declined",
    "unparsed": "the judge gave no verdict that could be read",
    "failed": "the judge could not be asked, or no principle applied",
}

AUDIT = (
    ("flip_rate", "comparisons whose winner changes with the order"),
    ("first_share", "verdicts for the reply shown first"),
    ("longer_share", "verdicts for the longer reply"),
    ("accuracy", "verdicts that agree with the gold labels"),
    ("kappa", "Cohen's kappa against the gold labels"),
    ("ece", "expected calibration error"),
)

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

AI preference labels: no person has judged these pairs. The judge `{judge}` compared them by the constitution
`{identity}`.

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

A figure stands at – where the rows do not give it: agreement needs gold labels, flips need both orders.

## Principles

| principle | weight | judged | flip rate | |
|---|---:|---:|---:|---|
{principles}

## Settings

{settings}
"""


def card(
    constitution: Constitution,
    judge: str,
    settings: Mapping[str, Any],
    counts: Mapping[str, int],
    figures: Mapping[str, Any],
) -> str:
    """The card in Markdown, with the header that dataset hubs read."""
    total = counts.get("ok", 0)
    by_principle: Mapping[str, Any] = figures.get("by_principle", {})
    cost = figures.get("cost_usd")
    return CARD.format(
        name=constitution.name,
        identity=constitution.identity,
        judge=judge,
        size=next((name for limit, name in SIZES if total < limit), "n>1M"),
        counts="\n".join(
            f"| {name} | {counts.get(name, 0)} | {MEANINGS[name]} |" for name in get_args(Status)
        ),
        figures="\n".join(f"| {key} | {_number(figures.get(key))} | {words} |" for key, words in AUDIT),
        cost="–" if cost is None else f"{cost:.4f}",
        principles="\n".join(_principle_rows(constitution, by_principle)),
        settings="\n".join(f"- {key}: `{value}`" for key, value in sorted(settings.items())) or "- none",
    )


def _principle_rows(constitution: Constitution, by_principle: Mapping[str, Any]) -> list[str]:
    rows = []
    if joint := by_principle.get("joint"):
        rows.append(
            f"| joint | | {_number(joint['verdicts'])} | {_number(joint['flip_rate'])} | all in one ask |"
        )
    for principle in constitution.principles:
        own = by_principle.get(principle.id, {})
        how = "machine check" if principle.check else "judge"
        judged, flips = (_number(own.get(key)) for key in ("verdicts", "flip_rate"))
        rows.append(
            f"| {principle.id} | {principle.weight:g} | {judged} | {flips} | {how}: {_cell(principle.text)} |"
        )
    return rows


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.3f}"
