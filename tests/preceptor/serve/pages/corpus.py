"""Texts that would become markup, script, style or a formula where a page took them for its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from preceptor.judge.dataset.label_folder import LabelFolder
from preceptor.judge.records import DriftLook, Judgement, Label, Vote
from preceptor.prompts.records import Message, Prompt

BREAKING = (
    "<script>born()</script>",
    "<img src=x onerror=born()>",
    "<xborn xborn=1>",
    '" xborn="1" onmouseover="born()',
    "' xborn='1' autofocus onfocus='born()",
    "</textarea><xborn></textarea>",
    "</title><xborn></title>",
    "</option></select><xborn>",
    "--><xborn>",
    "]]><xborn>",
    "<svg/onload=born()>",
    "<a href=javascript:born()>x</a>",
    "javascript:born()",
    "{{ 7 * 7 }}{% raw %}<xborn>",
    "<style>@import 'http://born'</style>",
    "\u202e\u2066<xborn>\x1b[2J\x07",
    "=HYPERLINK(1)",
    "<xborn hx-get=/keys hx-trigger=load>",
    "&lt;xborn&gt;<xborn",
)
EVIL = " ".join(BREAKING)


def evil(field: str) -> str:
    """The whole corpus, told apart by the field in which it stands."""
    return f"in-{field} {EVIL}"


def hostile_label(constitution: str, calls: tuple[str, str] = ("0" * 32, "1" * 32)) -> Label:
    """A label with the corpus in every field that is free text."""
    judged = [
        Judgement(
            principle=evil("principle"),
            order=order,
            letter="a",
            probability=0.9,
            status="ok",
            reason=evil("judge-reason"),
            thoughts=evil("thoughts"),
            model=evil("judge-model"),
            call=call,
        )
        for order, call in zip(("original", "swapped"), calls, strict=True)
    ]
    return Label(
        id=evil("label-id"),
        status="ok",
        probability=0.9,
        prompt=Prompt(
            id=evil("prompt-id"),
            messages=(
                Message(role="system", content=evil("system")),
                Message(role="user", content=evil("prompt")),
            ),
            tags=(evil("tag"),),
            meta={evil("meta"): evil("meta")},
        ),
        response_a=evil("reply-a") + " more",
        response_b=evil("reply-b"),
        preferred="b",
        models=(evil("model-a"), evil("model-b")),
        judgements=tuple(judged),
        votes=(Vote(judge=evil("voter"), step=0, status="ok", probability=0.9),),
        unjudged=(evil("unjudged"),),
        constitution=constitution,
        judge=evil("judge"),
    )


def hostile_run(folder: Path) -> None:
    """A run folder whose summary and metrics hold the corpus where names stand."""
    (folder / "metrics").mkdir(parents=True)
    shares = {evil("run-principle"): 0.5, "overall": 0.5}
    summary: dict[str, Any] = {
        "before": shares,
        "after": shares,
        "win_rate": 0.5,
        "win_rate_ci95": [0.4, 0.6],
    }
    summary |= {"kl_nats": 1.0, "cost_usd": 0.0, "wall_s": 1.0}
    (folder / "summary.json").write_text(json.dumps(summary))
    rows = [{"step": step, "loss": 1 / step, evil("metric"): evil("metric")} for step in (1, 2, 3)]
    (folder / "metrics" / "policy.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "9-report.html").write_text("<!doctype html><title>report</title><p>ours</p>")


def hostile_drift(folder: Path) -> None:
    """Labels whose judges were looked at twice, and had changed by the second time."""
    folder.mkdir()
    counts = {evil("drift-principle"): (40, 30), "calm": (40, 0)}
    looks = [
        DriftLook(date=f"2026-11-{day}", look=day, tolerance=0.02, n=40, changed=changed, principles=counts)
        for day, changed in ((10, 1), (20, 30))
    ]
    LabelFolder(folder).drift.write_text("".join(f"{look.line()}\n" for look in looks), encoding="utf-8")
