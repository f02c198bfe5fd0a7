"""The plots of a guard's page, in the one style of all pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from preceptor.train.evaluation.plots import AFTER, BEFORE, FAINT, INK, at_edge, blank, picture, svg
from preceptor.train.guard.rules import GuardReply, Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PROXY, BAD, OLD = "#c2741a", "#b3372f", "#8d97a5"
COLOURS = (AFTER, PROXY, "#6b7686")
PlotLine = tuple[str, Callable[[Look], float | None]]


@picture
def over_kl(looks: Sequence[Look], returned: int) -> str:
    """Gold with its 95 % interval and proxy over √KL, as Gao et al. 2022 (arXiv 2210.10760) draw them.

    The dots are looks, joined in the order of steps; ringed is the policy of step `returned`.
    """
    figure, axes = blank(7.4, 3.5)
    known = [look for look in looks if look.gold is not None]
    roots = [_root(look) for look in known]
    gold = [look.gold or 0.0 for look in known]
    low, high = ([look.gold_ci95[side] for look in known] for side in (0, 1))
    axes.vlines(roots, low, high, color=AFTER, alpha=0.25, linewidth=2.2)
    axes.plot(roots, gold, "o-", color=AFTER, linewidth=1.3, markersize=3.5)
    for look in known:
        if look.step == returned:
            axes.plot(
                [_root(look)], [look.gold or 0.0], "o", markersize=11, markerfacecolor="none", color=AFTER
            )
    axes.set_xlabel("√KL from the reference, nats a reply")
    axes.set_ylabel("gold", color=AFTER)
    axes.set_ylim(0, min(1.0, max([*high, 0.05]) * 1.1))
    rewarded = [look for look in looks if look.proxy is not None]
    if rewarded:
        other = axes.twinx()
        other.plot(
            [_root(look) for look in rewarded],
            [at_edge(look.proxy) for look in rewarded],
            "s--",
            color=PROXY,
            linewidth=1.1,
            markersize=3,
        )
        _bare(other)
        other.set_ylabel("proxy", color=PROXY, fontsize=8)
    return svg(figure)


@picture
def over_steps(looks: Sequence[Look], lines: Sequence[PlotLine], returned: int, stopped: int | None) -> str:
    """Figures over steps; a grey upright where the policy handed back stood, a red one where training stopped."""
    figure, axes = blank(3.5, 2.3)
    axes.axvline(returned, color=BEFORE, linewidth=1.2)
    if stopped is not None:
        axes.axvline(stopped, color=BAD, linewidth=1.2, linestyle=":")
    for colour, (name, get) in zip(COLOURS, lines, strict=False):
        points = [(look.step, value) for look in looks if (value := get(look)) is not None]
        axes.plot(
            [x for x, _ in points],
            [at_edge(y) for _, y in points],
            "o-",
            color=colour,
            linewidth=1.3,
            markersize=2.5,
            label=name,
        )
    axes.set_ylim(bottom=0)
    axes.set_xlabel("step")
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=7.5, labelcolor=INK, loc="best")
    return svg(figure)


@picture
def lengths(start: Sequence[GuardReply], last: Sequence[GuardReply]) -> str:
    """Reward over tokens, a dot a reply: grey at the start, blue at the last look."""
    figure, axes = blank(3.5, 2.3)
    for replies, colour, name in ((start, OLD, "start"), (last, AFTER, "last")):
        known = [reply for reply in replies if reply.proxy is not None]
        axes.scatter(
            [reply.tokens for reply in known],
            [at_edge(reply.proxy) for reply in known],
            s=9,
            color=colour,
            alpha=0.7,
            linewidths=0,
            label=name,
        )
    axes.set_xlabel("tokens")
    axes.set_ylabel("reward")
    axes.legend(frameon=False, fontsize=7.5, labelcolor=INK, loc="best")
    return svg(figure)


def _root(look: Look) -> float:
    return math.sqrt(max(at_edge(look.kl_nats), 0.0))


def _bare(axes: Axes) -> None:
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=8, color=FAINT)
