"""The one screen at the end of a run: before and after, how sure, at what price, and three replies side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from preceptor.figures import PpoFigures, RoundFigures, RunSummary
    from preceptor.report.report import FinishedRun


def show(run: FinishedRun, path: Path) -> None:
    """Print the screen on stdout: it is what the command was asked for."""
    from preceptor.cli import console
    from preceptor.report.report import begins_at_dpo
    from preceptor.run.files import REPORT

    out = console.screen()
    out.print(_satisfied(run.summary))
    for name, value in _figures(run.summary, begins_at_dpo(run.settings)):
        out.print(f"{name:<22} {value}")
    if "rounds" in run.summary:
        out.print(_rounds(run.summary["rounds"]))
    _samples(out, run)
    times = ", ".join(f"{stage.stage} {stage.wall_s:.0f}" for stage in run.stages)
    out.print(f"seconds: {times}; in all {run.summary['wall_s']:.0f}", style="dim")
    out.print(f"report: {path / REPORT}", style="bold")


def _satisfied(summary: RunSummary) -> Table:
    from rich.table import Table

    table = Table(title=f"{summary['n']} held-out prompts: replies that satisfy", title_justify="left")
    for column in ("principle", "before", "after", "labels agree with the oracle"):
        table.add_column(column, justify="left" if column == "principle" else "right")
    for name, after in summary["after"].items():
        agrees = summary["label_agreement"].get(name)
        row = (
            name,
            f"{summary['before'][name]:.0%}",
            f"{after:.0%}",
            "" if agrees is None else f"{agrees:.0%}",
        )
        table.add_row(*row, style="bold" if name == "overall" else None)
    return table


def _rounds(rows: Sequence[RoundFigures]) -> Table:
    from rich.table import Table

    from preceptor.report.report import percent, with_interval

    table = Table(title="round by round; 0 is the first reference", title_justify="left")
    for column in ("round", "satisfied", "win rate", "KL to round 0", "distinct-2", "labels ok", "DPO"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            str(row["round"]),
            with_interval(row.get("satisfied"), row.get("satisfied_ci95")),
            percent(row.get("win_rate")),
            f"{row['kl_nats']:.2f}",
            f"{row['distinct_2']:.3f}",
            percent(row.get("labels_ok")),
            f"{row['dpo_wall_s']:.0f} s" if "dpo_wall_s" in row else "–",
        )
    return table


def _figures(summary: RunSummary, further: bool) -> list[tuple[str, str]]:
    from preceptor.report.probe_table import in_one_line
    from preceptor.report.report import percent

    low, high = summary["win_rate_ci95"]
    distinct = summary["distinct_2"]
    rows = [
        (
            "win rate",
            f"{percent(summary['win_rate'])}  (95 %: {low:.0%} to {high:.0%}) against the start, by the judge",
        ),
        ("KL to the start", f"{summary['kl_nats']:.1f} nats a reply"),
        *_ppo(summary.get("ppo"), further),
        ("distinct-2", f"{distinct['after']:.3f}, was {distinct['before']:.3f}"),
        ("labels", ", ".join(f"{count} {status}" for status, count in summary["labels"].items())),
        ("cost", f"${summary['cost_usd']:.2f}"),
    ]
    if "reward_model" in summary:
        card = summary["reward_model"]
        low, high = card["ci95"]
        shown = f"{card['accuracy']:.0%}  (95 %: {low:.0%} to {high:.0%}) on {card['n']} held-out pairs"
        rows.insert(1, ("reward model", shown))
    if "probes" in summary:
        rows.insert(-2, ("failure modes", in_one_line(summary["probes"])))
    return rows


def _ppo(figures: PpoFigures | None, further: bool) -> list[tuple[str, str]]:
    from preceptor.report.report import percent

    if figures is None:
        return []
    low, high = figures["ci95"].get("overall", (0.0, 1.0))
    every = f"every principle {percent(figures['after'].get('overall'))}  (95 %: {low:.0%} to {high:.0%})"
    rows = [
        (
            "PPO after it" if further else "PPO beside it",
            f"{every}, KL {figures['kl_nats']:.1f} nats, {figures['wall_s']:.0f} s",
        )
    ]
    if stopped := figures.get("stopped"):
        said = (
            f"after step {stopped['step']}, step {stopped['returned_step']} handed back: {stopped['reason']}"
        )
        rows.append(("PPO was stopped", said))
    return rows


def _samples(out: Console, run: FinishedRun) -> None:
    from rich.table import Table

    from preceptor.report.report import pick

    for row in pick(run.held_out):
        asked = " / ".join(message.content for message in row.prompt.messages)
        table = Table(title=asked, title_justify="left", title_style="italic", expand=True, show_lines=False)
        for side in ("before", "after"):
            table.add_column(side, ratio=1)
        table.add_row(row.before, row.after)
        marks = (row.satisfied_before, row.satisfied_after)
        table.add_row(
            *(", ".join(f"not {name}" for name, held in mark.items() if not held) or "all" for mark in marks)
        )
        out.print(table)
