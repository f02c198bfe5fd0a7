"""The report's plots, each a function from figures to an SVG text that stands by itself inside a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from preceptor.train.evaluation.plots import AFTER, BEFORE, INK, SECOND, at_edge, blank, picture, svg


@picture
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


@picture
def side_by_side(shares: Mapping[str, Mapping[str, float]]) -> str:
    """Horizontal bars: for each principle the share of replies that satisfy it, a bar for each policy, in order.

    shares: policy -> principle -> share, of at most three policies.
    """
    names = [name for name in next(iter(shares.values())) if name != "overall"] + ["overall"]
    colours = (BEFORE, AFTER, SECOND)
    figure, axes = blank(7.2, 0.3 * len(shares) * len(names) + 0.9)
    height = 0.8 / len(shares)
    for row, name in enumerate(reversed(names)):
        for at, (share, colour) in enumerate(zip(shares.values(), colours, strict=False)):
            place = row + 0.4 - (at + 0.5) * height
            axes.barh(place, share.get(name, 0.0), height=0.9 * height, color=colour)
            axes.text(
                share.get(name, 0.0) + 0.012,
                place,
                f"{share.get(name, 0.0):.0%}",
                va="center",
                fontsize=8,
                color=INK,
            )
    axes.set_yticks(range(len(names)), list(reversed(names)))
    axes.set_xlim(0, 1.1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    return svg(figure)


@picture
def by_round(rows: Sequence[Mapping[str, Any]], key: str, label: str, share: bool = False) -> str:
    """A figure over rounds, with its 95 % interval where the row has one under `key` and `_ci95`.

    share: the figure lies in 0..1 and is shown as per cent. Rows without the figure leave a gap.
    """
    known = [row for row in rows if row.get(key) is not None]
    numbers, values = [row["round"] for row in known], [at_edge(row[key]) for row in known]
    figure, axes = blank(3.6, 2.6)
    axes.plot(numbers, values, color=AFTER, linewidth=1.3)
    bounds = [tuple(map(at_edge, row.get(f"{key}_ci95") or [row[key], row[key]])) for row in known]
    spread = [
        [max(value - low, 0.0) for value, (low, _) in zip(values, bounds, strict=True)],
        [max(high - value, 0.0) for value, (_, high) in zip(values, bounds, strict=True)],
    ]
    axes.errorbar(numbers, values, yerr=spread, fmt="o", markersize=4, color=AFTER, elinewidth=1, capsize=3)
    axes.set_xticks([row["round"] for row in rows])
    axes.set_xlim(-0.3, rows[-1]["round"] + 0.3)
    axes.set_xlabel("round")
    if share:
        axes.set_ylim(-0.03, 1.03)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_title(label, fontsize=9, loc="left", color=INK)
    return svg(figure)


@picture
def curve(rows: Sequence[Mapping[str, Any]], key: str, label: str) -> str:
    """One training curve over steps; rows without the key are passed over."""
    points = [(row["step"], row[key]) for row in rows if key in row and "step" in row]
    figure, axes = blank(3.4, 2.2)
    axes.plot([x for x, _ in points], [at_edge(y) for _, y in points], color=AFTER, linewidth=1.3)
    axes.set_xlabel("step")
    axes.set_title(label, fontsize=9, loc="left", color=INK)
    return svg(figure)
