"""Before and after on the same prompts: two figures, their difference, and how sure each is.

Figures have 95 % intervals, the difference one of 99 %, which is what "beyond the interval" means: some twenty
differences are looked at together, and at 95 % one report in three would accuse a policy of a change by chance.

Everything is counted by prompt, since replies to one prompt are alike; and both sides answer the same prompts, so a
difference is surer than its two figures are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from preceptor.judge.statistics import newcombe, phi, wilson

Z99 = 2.5758293035489004
RESAMPLES = 4000
SEED = 20261121

ToldT = TypeVar("ToldT")


class Estimate(NamedTuple):
    """A figure with its 95 % interval; NaN where nothing bears on it, and for the interval where none can be told."""

    value: float
    low: float
    high: float
    n: int
    """Prompts that it rests on."""


class BeforeAfter(NamedTuple):
    """A figure before and after."""

    before: Estimate
    after: Estimate
    by: float
    """after - before"""
    low: float
    high: float
    """99 % interval of `by`."""


class RatioPart(NamedTuple):
    """What one prompt adds to a ratio of sums."""

    over: float
    under: float


def shares(before: Sequence[bool | None], after: Sequence[bool | None]) -> BeforeAfter:
    """Share of prompts of which something is true; None: the prompt says nothing about it on that side.

    Wilson's intervals; that of the difference is Newcombe's for paired shares (Newcombe 1998, Statistics in Medicine
    17:2635, method 10), and without the correlation, which makes it wider, where a prompt speaks on one side only.
    """
    sides = [[told for told in side if told is not None] for side in (before, after)]
    old, new = (wilson(sum(side), len(side)) for side in sides)
    if not (old.n and new.n):
        return BeforeAfter(Estimate(*old), Estimate(*new), math.nan, math.nan, math.nan)
    wide_old, wide_new = (wilson(sum(side), len(side), Z99) for side in sides)
    paired = len(sides[0]) == len(before) and len(sides[1]) == len(after)
    change = newcombe(wide_old, wide_new, phi(sides[0], sides[1]) if paired else 0.0)
    return BeforeAfter(Estimate(*old), Estimate(*new), *change)


def _same(value: Any) -> Any:
    return value


def ratios(
    before: Sequence[RatioPart], after: Sequence[RatioPart], shown: Callable[[Any], Any] = _same
) -> BeforeAfter:
    """Sum over sum, as words over replies; intervals by the bootstrap over prompts (Efron 1979), by percentiles that
    are moved outwards for few prompts (Hesterberg 2015, arXiv 1411.5279, section 5.3: the expanded interval).

    Both sides are drawn with the same prompts. `shown` turns the ratio into the figure, as exp does nats a token into
    perplexity; it takes arrays. Equal calls give equal intervals.
    """
    import numpy as np

    tables = [np.array(side, dtype=float).reshape(-1, 2) for side in (before, after)]  # (P, 2) each
    drawn = np.random.default_rng(SEED).integers(len(before), size=(RESAMPLES, len(before)))  # (R, P)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = [shown(table[:, 0].sum() / table[:, 1].sum()) for table in tables]
        resampled = [shown(table[drawn, 0].sum(1) / table[drawn, 1].sum(1)) for table in tables]  # (R,) each
    # of what never occurred resamples know nothing: no interval is more honest than one of no width
    ends = [
        _percentiles(each, _expanded(0.025, len(before))) if table[:, 0].any() else (math.nan, math.nan)
        for each, table in zip(resampled, tables, strict=True)
    ]
    counted = [int((table[:, 1] > 0).sum()) for table in tables]
    old, new = (Estimate(float(figure), *end, n) for figure, end, n in zip(value, ends, counted, strict=True))
    return BeforeAfter(
        old,
        new,
        new.value - old.value,
        *_percentiles(resampled[1] - resampled[0], _expanded(0.005, len(before))),
    )


def _expanded(tail: float, n: int) -> float:
    """What is to be left out at either end of n prompts' resamples so that `tail` is."""
    return 0.5 * math.erfc(_t(tail, n) * math.sqrt(n / (n - 1)) / math.sqrt(2)) if n > 1 else 0.0


def _t(tail: float, n: int) -> float:
    """How many standard errors of n prompts' mean leave out `tail` at either end, by Student's t."""
    from scipy.special import stdtrit

    return float(-stdtrit(n - 1, tail))


def _percentiles(values: Any, tail: float) -> tuple[float, float]:
    import numpy as np

    told = values[np.isfinite(values)]
    if not len(told):
        return math.nan, math.nan
    low, high = np.quantile(told, [tail, 1 - tail])
    return float(low), float(high)


def left_out(
    before: Sequence[ToldT], after: Sequence[ToldT], statistic: Callable[[Sequence[ToldT]], float]
) -> BeforeAfter:
    """A statistic of all prompts together, in 0..1; intervals by the jackknife (Efron and Stein 1981) and Student's t.

    For figures that count what stands in several replies: the bootstrap draws prompts twice, and their replies would
    count as repeated.
    """
    n = len(before)
    old, new = statistic(before), statistic(after)
    if n < 2:
        one, other = (Estimate(value, math.nan, math.nan, n) for value in (old, new))
        return BeforeAfter(one, other, new - old, math.nan, math.nan)
    lacking = [
        (statistic([*before[:at], *before[at + 1 :]]), statistic([*after[:at], *after[at + 1 :]]))
        for at in range(n)
    ]
    halves = [_t(0.025, n) * _jackknife(values) for values in zip(*lacking, strict=True)]
    one, other = (
        Estimate(value, max(0.0, value - half), min(1.0, value + half), n)
        for value, half in zip((old, new), halves, strict=True)
    )
    half = _t(0.005, n) * _jackknife([b - a for a, b in lacking])
    return BeforeAfter(one, other, new - old, new - old - half, new - old + half)


def _jackknife(values: Sequence[float]) -> float:
    """Standard error of a statistic from its values with one prompt left out each."""
    n = len(values)
    mean = math.fsum(values) / n
    return math.sqrt((n - 1) / n * math.fsum((value - mean) ** 2 for value in values))
