"""Shares, their intervals and what stands beside them, the same for judges and for trained models. Pure arithmetic."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

BINS = 10
"""Bins of equal width for a calibration error."""
RESAMPLES = 200
"""Bootstrap samples behind an interval."""
Z95 = 1.959963984540054


class Interval(NamedTuple):
    """A share and its interval, at 95 % unless something else is said."""

    share: float
    low: float
    high: float
    n: int


def wilson(successes: float, n: float, z: float = Z95) -> Interval:
    """Share of successes with Wilson's score interval (Wilson 1927), which holds for small n and near 0 and 1.

    z: how many standard errors, at 95 % unless told.

    `successes` may hold halves, for ties; the interval is then a little too wide. n = 0 gives share NaN
    within 0..1.
    """
    if n == 0:
        return Interval(math.nan, 0.0, 1.0, 0)
    share = successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n * n)) / (1 + z**2 / n)
    return Interval(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)), int(n))


class Difference(NamedTuple):
    """How much larger a share is than another, and the interval of that."""

    by: float
    low: float
    high: float


def newcombe(before: Interval, after: Interval, phi: float = 0.0) -> Difference:
    """After less before, out of their Wilson intervals at one level (Newcombe 1998, Statistics in Medicine 17:2635,
    method 10, for paired shares of correlation phi; with phi = 0 it is his method for independent ones, 17:873).
    """
    by = after.share - before.share
    down = _hypotenuse(after.share - after.low, before.high - before.share, phi)
    up = _hypotenuse(after.high - after.share, before.share - before.low, phi)
    return Difference(by, by - down, by + up)


def _hypotenuse(a: float, b: float, phi: float) -> float:
    return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))


def phi(before: Sequence[bool], after: Sequence[bool]) -> float:
    """Correlation of the two-by-two table of paired truths, with Newcombe's correction for continuity."""
    n, old, new = len(before), sum(before), sum(after)
    margins = old * (n - old) * new * (n - new)
    if not margins:
        return 0.0
    both = sum(a and b for a, b in zip(before, after, strict=True))
    excess = both * n - old * new  # ad - bc
    corrected = max(0.0, excess - n / 2) if excess > 0 else excess
    return float(corrected / math.sqrt(margins))


class Bin(NamedTuple):
    """Rows of like confidence, between `low` and `high`."""

    low: float
    high: float
    n: int
    confidence: float
    """Their mean confidence."""
    found: float
    """The mean of what was found where so much was expected: shares right, or another's probabilities."""


def reliability(rows: Sequence[tuple[float, float]], lowest: float = 0.0) -> list[Bin]:
    """(confidence in lowest..1, what was found) -> the bins that hold any, from the least confident."""
    places: list[list[tuple[float, float]]] = [[] for _ in range(BINS)]
    for confidence, found in rows:
        places[min(int((confidence - lowest) / (1 - lowest) * BINS), BINS - 1)].append((confidence, found))
    width = (1 - lowest) / BINS
    return [
        Bin(
            lowest + number * width,
            lowest + (number + 1) * width,
            len(held),
            *(math.fsum(column) / len(held) for column in zip(*held, strict=True)),
        )
        for number, held in enumerate(places)
        if held
    ]


def calibration_error(bins: Sequence[Bin]) -> float | None:
    """Mean distance of confidence from what was found (Guo et al. 2017, arXiv 1706.04599, eq. 3); None without rows."""
    n = sum(one.n for one in bins)
    return math.fsum(one.n * abs(one.confidence - one.found) for one in bins) / n if n else None


def kappa(table: Sequence[Sequence[float]]) -> float | None:
    """Cohen 1960, eq. 1, of how often each of k verdicts (columns) stands beside each truth (rows): k by k counts.

    None where it is not defined: no counts, or all of them in one class.
    """
    rows = {i for i, row in enumerate(table) if any(row)}
    columns = {j for row in table for j, count in enumerate(row) if count}
    if not rows or rows == columns == {min(rows)}:
        return None
    from sklearn.metrics import cohen_kappa_score

    cells = [(i, j, count) for i, row in enumerate(table) for j, count in enumerate(row)]
    truth, verdicts, counts = zip(*cells, strict=True)
    return float(cohen_kappa_score(truth, verdicts, sample_weight=counts))


class Corrected(NamedTuple):
    """A share as a judge has it, and as gold corrects it, with the 95 % interval of the latter."""

    naive: float
    share: float
    low: float
    high: float
    gold: int
    """Rows with gold behind the correction."""


def rogan_gladen(said: Any, found: Any) -> Corrected | None:
    """The share of wins behind a judge who is right about either side equally often.

    said: (N,) what the judge says of the rows: 1 a win, 0.5 a tie, 0 a loss. found: (M,) what it says, in the same way,
    of the replies that gold finds the better. theta = (f + g - 1) / (2 g - 1) with f, g their means (Rogan, Gladen
    1978, Am. J. Epidemiology 107:71, with sensitivity = specificity = g, as holds where a and b are names alone; for
    judges Lee et al. 2025, arXiv 2511.21140). The interval counts the gold rows' own chance by Fieller's theorem
    (1954, J. R. Stat. Soc. B 16:175): all theta in 0..1 with

        (f + g - 1 - theta (2 g - 1))^2 <= z^2 (var f / N + (1 - 2 theta)^2 var g / M).

    None without rows, or where g is not above 0.5 by its own 95 % interval: such a judge tells nothing.
    """
    import numpy as np

    if not len(said) or not len(found):
        return None
    f, g = np.asarray(said, float), np.asarray(found, float)
    spread_f, spread_g = (Z95**2 * float(one.var()) / len(one) for one in (f, g))
    gain, excess = 2 * float(g.mean()) - 1, float(f.mean() + g.mean()) - 1
    square = gain**2 - 4 * spread_g
    if gain <= 0 or square <= 0:
        return None
    middle = (gain * excess - 2 * spread_g) / square
    half = math.sqrt(max(0.0, middle**2 - (excess**2 - spread_f - spread_g) / square))
    share, low, high = (min(1.0, max(0.0, one)) for one in (excess / gain, middle - half, middle + half))
    return Corrected(float(f.mean()), share, low, high, len(g))


def prediction_powered(rows: Any, predicted: Any, found: Any) -> Corrected | None:
    """A mean over rows that have a prediction alone, corrected by rows that have the truth beside it.

    rows: (N,) predictions; predicted, found: (M,) predictions and truths of the gold rows, which must be of the same
    kind as the rows. theta = w mean(rows) + mean(found - w predicted), with the weight w that makes the interval the
    least (Angelopoulos et al. 2023, arXiv 2311.01453: PPI++ of a mean). The interval is Wilson's for as many rows as
    have the variance of theta, which is that of both samples together, so that it also holds near 0 and 1. None
    without rows, or with fewer than two gold rows.
    """
    import numpy as np

    f, g, y = (np.asarray(one, float) for one in (rows, predicted, found))
    if not len(f) or len(y) < 2:
        return None
    every = np.concatenate([f, g])
    spread = every.var()
    weight = float(np.cov(g, y)[0, 1] / spread / (1 + len(y) / len(f))) if spread else 0.0
    share = min(1.0, max(0.0, float(weight * f.mean() + (y - weight * g).mean())))
    variance = float(weight**2 * f.var() / len(f) + (y - weight * g).var(ddof=1) / len(y))
    worth = share * (1 - share) / variance if variance and 0 < share < 1 else len(y)
    interval = wilson(share * worth, worth)
    return Corrected(float(f.mean()), share, interval.low, interval.high, len(y))


def bootstrap(n: int, statistic: Callable[[Any], float | None]) -> list[float] | None:
    """The middle 95 % of a statistic over samples of n rows with replacement (Efron 1979), from a fixed seed.

    statistic: how often each row was drawn, (n,) -> the figure, None where it is not defined. None where no sample
    defines it, or where there are fewer than two rows.
    """
    if n < 2:
        return None
    import numpy as np

    drawn = np.random.default_rng(0)
    times = (np.bincount(drawn.integers(0, n, n), minlength=n) for _ in range(RESAMPLES))
    values = sorted(value for value in map(statistic, times) if value is not None)
    return [values[int(0.025 * len(values))], values[int(0.975 * len(values))]] if values else None


class Effect(NamedTuple):
    """A coefficient of a regression."""

    coefficient: float
    stderr: float


def logistic(x: Any, y: Any) -> list[Effect] | None:
    """The coefficients of logistic regression without a penalty, of every column of x; the constant is a column, too.

    x: (N, K) floats; y: (N,) of 0 and 1. Standard errors are those of the information matrix at the maximum of the
    likelihood. None where there is no finite maximum: where some columns tell all of y, or depend on one another.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(
        C=np.inf, fit_intercept=False, solver="newton-cholesky", tol=1e-12, max_iter=100
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of columns without a maximum, which are found out below
        beta = model.fit(x, y).coef_[0]
    p = 1 / (1 + np.exp(-np.clip(x @ beta, -500, 500)))
    information = (x * (p * (1 - p))[:, None]).T @ x
    if not np.isfinite(information).all() or np.linalg.cond(information) > 1e10:
        return None
    if abs(np.linalg.solve(information, x.T @ (y - p))).max() > 1e-6:  # at no maximum: it is at infinity
        return None
    errors = np.sqrt(np.diag(np.linalg.inv(information)))
    return [Effect(float(one), float(error)) for one, error in zip(beta, errors, strict=True)]
