"""The report's plots, each a function from figures to an SVG text that stands by itself inside a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from train.plots import AFTER, BEFORE, INK, blank, svg


def before_and_after(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """Horizontal bars: for each principle the share of held-out replies that satisfy it, before and after."""
    names = [name for name in after if name != "overall"] + ["overall"]
    figure, axes = blank(7.2, 0.62 * len(names) + 0.7)
    for row, name in enumerate(reversed(names)):
        old, new = before.get(name, 0.0), after[name]
        axes.barh(row + 0.19, old, height=0.34, color=BEFORE)
        axes.barh(row - 0.19, new, height=0.34, color=AFTER)
        axes.text(old + 0.012, row + 0.19, f"{old:.0%}", va="center", fontsize=8, color=INK)
        axes.text(new + 0.012, row - 0.19, f"{new:.0%}", va="center", fontsize=8, color=INK)
    axes.set_yticks(range(len(names)), list(reversed(names)))
    axes.set_xlim(0, 1.1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    return svg(figure)


def curve(rows: Sequence[Mapping[str, Any]], key: str, label: str) -> str:
    """One training curve over steps; rows without the key are passed over."""
    points = [(row["step"], row[key]) for row in rows if key in row and "step" in row]
    figure, axes = blank(3.4, 2.2)
    axes.plot([x for x, _ in points], [y for _, y in points], color=AFTER, linewidth=1.3)
    axes.set_xlabel("step")
    axes.set_title(label, fontsize=9, loc="left", color=INK)
    return svg(figure)
