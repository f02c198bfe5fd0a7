"""Plots as SVG texts that stand by themselves inside a page; those of the report card, and what all are drawn on."""

from __future__ import annotations

import io
import logging
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from preceptor.prompts.shown import one_line
from preceptor.train.evaluation.reward_figures import CalibrationBin

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

CSS = Path(__file__).with_name("page.css")
"""The one style of all pages."""
P = ParamSpec("P")
log = logging.getLogger(__name__)
UNDRAWN = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="320" height="40"><text x="4" y="24" font-family="sans-serif" '
    'font-size="12">These figures cannot be drawn.</text></svg>'
)
BEFORE, AFTER, SECOND, INK, FAINT = "#b8c0cc", "#2457c5", "#c2731a", "#1c2430", "#d9dee5"


FURTHEST = 1e30
"""The greatest figure that is drawn where it lies; beyond it, sums of figures soon pass what a float can hold."""


def picture(draw: Callable[P, str]) -> Callable[P, str]:
    """A function that draws a plot, as one that never fails: what it draws comes after work that took hours.

    What cannot be drawn is a sentence in the plot's place.
    """

    @wraps(draw)
    def drawn(*args: P.args, **named: P.kwargs) -> str:
        try:
            return draw(*args, **named)
        except Exception as error:
            log.warning("a plot cannot be drawn: %s: %s", type(error).__name__, error)
            return UNDRAWN

    return drawn


def at_edge(value: float | None) -> float:
    """Where a figure is drawn: where it lies, at the edge where that is too far off, nowhere (NaN) where it is none."""
    return math.nan if value is None or math.isnan(value) else min(max(value, -FURTHEST), FURTHEST)


@picture
def calibration(bins: Sequence[CalibrationBin]) -> str:
    """Reliability: how sure the reward model is against how far the judge agrees; a dot a bin, its area the pairs.

    bins: rows with `confidence` and `agreement` (means in 0..1) and `n`, as in a report card.
    """
    figure, axes = blank(3.6, 3.2)
    axes.plot([0.5, 1], [0.5, 1], color=FAINT, linewidth=1.2)
    most = max(row["n"] for row in bins)
    confidence, agreement = [row["confidence"] for row in bins], [row["agreement"] for row in bins]
    axes.plot(confidence, agreement, color=AFTER, linewidth=1)
    sizes = [16 + 120 * row["n"] / most for row in bins]
    axes.scatter(confidence, agreement, s=sizes, color=AFTER, alpha=0.75, linewidths=0)
    axes.set_xlim(0.48, 1.02)
    axes.set_ylim(min(0.48, *agreement), 1.02)
    axes.set_xlabel("probability by the reward model")
    axes.set_ylabel("probability by the judge")
    return svg(figure)


@picture
def shares(rows: Sequence[tuple[str, Mapping[str, Any]]], label: str) -> str:
    """Accuracies with their 95 % intervals, a point a row from top to bottom; the number of pairs at the right.

    rows: (name, figures with `accuracy`, `ci95` and `n`).
    """
    figure, axes = blank(3.7, 0.3 * len(rows) + 0.9)
    axes.axvline(0.5, color=BEFORE, linewidth=1)
    for row, (_, figures) in enumerate(reversed(rows)):
        low, high = figures["ci95"]
        axes.plot([low, high], [row, row], color=AFTER, linewidth=1.6, solid_capstyle="butt", alpha=0.55)
        axes.plot([figures["accuracy"]], [row], "o", color=AFTER, markersize=5)
        axes.text(1.03, row, f"{figures['n']}", va="center", fontsize=8, color=INK)
    axes.set_yticks(range(len(rows)), [name for name, _ in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlim(0, 1.16)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_xlabel(label)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    return svg(figure)


def blank(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty plot of this size in inches, in the one style."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=8, color=FAINT)
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.label.set_fontsize(8)
    axes.yaxis.label.set_fontsize(8)
    return figure, axes


def _say_plainly(axis: Axis) -> None:
    """Names of ticks are written anew at each drawing: so it is what writes them that has to make them plain."""
    from matplotlib.ticker import FuncFormatter

    named = axis.get_major_formatter()
    if isinstance(named, FuncFormatter):
        axis.set_major_formatter(FuncFormatter(lambda value, place: one_line(named(value, place))))


def _tell_edges(figure: Figure) -> None:
    """A line above a plot some of whose figures are further off than it can show."""
    import numpy as np

    for axes in figure.axes:
        points = [np.asarray(line.get_ydata(), float) for line in axes.lines]
        points += [np.asarray(dots.get_offsets(), float) for dots in axes.collections]
        if any((np.abs(some) >= FURTHEST).any() for some in points):
            axes.set_title(f"drawn at the edge: figures beyond ±{FURTHEST:.0e}", fontsize=8, color=INK)


def svg(figure: Figure) -> str:
    """The figure as SVG, the same bytes for the same figures."""
    import matplotlib as mpl
    from matplotlib.text import Text

    _tell_edges(figure)
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        _say_plainly(axis)
    for text_in in figure.findobj(Text):
        # names of principles and tags are words, never formulas
        text_in.set_parse_math(False)
        text_in.set_text(one_line(text_in.get_text()))
    text = io.StringIO()
    # a fixed salt and no date: the same figures give the same bytes
    with (
        mpl.rc_context({"svg.hashsalt": "preceptor", "svg.fonttype": "none", "font.family": "sans-serif"}),
        warnings.catch_warnings(),
    ):
        # the reader's browser brings the letters; a name too long for its plot is cut off there
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        warnings.filterwarnings("ignore", message="constrained_layout not applied")
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    return text.getvalue()[text.getvalue().index("<svg") :]
