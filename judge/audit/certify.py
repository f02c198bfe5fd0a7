"""Confidence and gold -> the largest set of labels whose agreement with gold is certain enough, or why there is none.

Pure arithmetic over arrays. Labels are ordered by confidence, and thresholds are tested from the surest labels down,
each at the whole level, until one fails (fixed-sequence testing; Angelopoulos et al. 2021, "Learn then Test", arXiv
2110.01052, section 4.1; for judges Jung et al. 2024, "Trust or Escalate", arXiv 2407.18370, algorithm 1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

LEVEL = 0.05
"""Of the test: a set of lesser agreement is certified in at most this share of gold sets."""
SHIFT_LEVEL = 0.01
"""Of the test whether gold and labels are alike, over all features together."""
STEPS = 20
"""Sizes that are tested, about."""
FIRST = 2
"""The first set tested has this many times the fewest gold rows that could be enough: fewer forgive no error."""


class Found(NamedTuple):
    """The largest set that passed."""

    threshold: float
    """The labels of at least this confidence are in the set."""
    n: int
    """Gold rows in the set."""
    right: int
    """Those whose label is the gold one."""
    low: float
    """Lower end of the agreement, by the exact one-sided binomial bound."""
    coverage: float
    """The set's share of all gold rows, those without a winner among them."""


class Refused(NamedTuple):
    """Why no set passed."""

    total: int
    """Gold rows."""
    n: int
    """Those in the first set tested; with too few to test any, those whose label has a winner."""
    right: int
    target: float
    level: float

    @property
    def needed(self) -> int | None:
        """Gold rows that would be about enough at the agreement found; None: no number would."""
        least = fewest(self.target, self.level)
        if self.n < least:
            return math.ceil(least * self.total / self.n) if self.n else least
        rows = needed(self.target, self.right / self.n, self.level)
        return None if rows is None else math.ceil(rows * self.total / self.n)

    @property
    def reason(self) -> str:
        """In words."""
        least = fewest(self.target, self.level)
        if self.n < least:
            return (
                f"{self.n} of {self.total} gold rows have a label with a winner, and {least} are the fewest that "
                f"certify {self.target:g}"
            )
        said = f"of the {self.n} surest labels with gold {self.right / self.n:.3f} agree with it"
        if self.needed is None:
            return f"{said}, which does not pass {self.target:g}; no number of gold rows would be enough"
        return (
            f"{said}, which is too few to certify {self.target:g}; about {self.needed} gold rows would be enough if "
            "it stays so"
        )


def fewest(target: float, level: float = LEVEL) -> int:
    """The fewest gold rows that certify anything: with all of them right, target**n <= level."""
    return math.ceil(round(math.log(level) / math.log(target), 9))


@lru_cache(maxsize=64)
def forgiven(most: int, target: float, level: float) -> Any:
    """(most + 1,) ints: by how many rows were looked at, the most errors that still certify the target; -1: none does.

    e errors in n rows reject "agreement is less than target" where P(Binomial(n, 1 - target) <= e) <= level, which is
    where Clopper and Pearson's lower bound at that level is at least the target.
    """
    import numpy as np
    from scipy.stats import binom

    n = np.arange(most + 1)
    errors = binom.ppf(level, n, 1 - target).astype(int)  # the least e with P(<= e) >= level
    return errors - (binom.cdf(errors, n, 1 - target) > level)


def lower_bound(right: int, n: int, level: float = LEVEL) -> float:
    """Clopper & Pearson 1934: the agreement at which so many right ones, or more, have just the probability `level`."""
    from scipy.stats import beta

    return float(beta.ppf(level, right, n - right + 1)) if right else 0.0


def needed(target: float, agreement: float, level: float = LEVEL) -> int | None:
    """The number of rows at which a set of this agreement is certified, to a few rows; None where it does not pass the
    target."""
    from scipy.stats import binom

    if agreement <= target + 1e-4:  # a hair above it would take millions
        return None

    def passes(n: int) -> bool:
        return bool(binom.cdf(math.floor(n * (1 - agreement) + 1e-9), n, 1 - target) <= level)

    high = fewest(target, level)
    while not passes(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return max(high, fewest(target, level))


def certify(confidence: Any, right: Any, target: float, level: float = LEVEL) -> Found | Refused:
    """The largest set of labels above a threshold whose agreement is at least `target`, at confidence 1 - level.

    confidence: (N,) floats, NaN for gold rows whose label has no winner. right: (N,) whether the label is the gold one.

    With L_k the confidence of the k-th surest label, the hypotheses H_k: "P(right | confidence >= L_k) < target" are
    tested for k = k_0, k_0 + d, ..., N until one is not rejected. k_0 and d depend on N alone, so that the outcomes
    choose no test; given L_k, the rows above it are independent draws of those above it, and their errors are
    binomial.
    """
    import numpy as np

    sure, correct = np.asarray(confidence, float), np.asarray(right, bool)
    total, named = len(sure), np.flatnonzero(~np.isnan(sure))
    least = fewest(target, level)
    order = named[np.argsort(-sure[named], kind="stable")]
    sure, correct = sure[order], correct[order]
    if len(sure) < least:
        return Refused(total, len(sure), int(correct.sum()), target, level)
    marks = np.arange(min(FIRST * least, len(sure)), len(sure) + 1, max(1, len(sure) // STEPS))
    # labels of one confidence are in the set together
    n = np.searchsorted(-sure, -sure[marks - 1], side="right")
    agreeing = np.cumsum(correct)[n - 1]
    passed = n - agreeing <= forgiven(total, target, level)[n]
    last = len(n) if passed.all() else int(np.argmin(passed))
    if not last:
        return Refused(total, int(n[0]), int(agreeing[0]), target, level)
    at = last - 1
    return Found(
        threshold=float(sure[marks[at] - 1]),
        n=int(n[at]),
        right=int(agreeing[at]),
        low=lower_bound(int(agreeing[at]), int(n[at]), level),
        coverage=float(n[at]) / total,
    )


class Shift(NamedTuple):
    """Whether the labelled rows are like the gold ones."""

    p: float
    """The least of the p-values, times their number (Bonferroni)."""
    feature: str
    """Whose it is."""
    level: float

    @property
    def unlike(self) -> bool:
        """Whether likeness is rejected."""
        return self.p <= self.level


def shift(gold: Mapping[str, Any], rows: Mapping[str, Any], level: float = SHIFT_LEVEL) -> Shift:
    """Test whether two samples are of one distribution, feature by feature: (N,) values by name, NaN left out.

    Kolmogorov and Smirnov's two-sample test, and Fisher's exact one for features that are 0 or 1, each at level over
    the number of features. It finds what differs in the features named, and with few rows only great differences.
    """
    import numpy as np
    from scipy.stats import fisher_exact, ks_2samp

    found: dict[str, float] = {}
    for name in gold.keys() & rows.keys():
        one, other = (np.asarray(side[name], float) for side in (gold, rows))
        one, other = one[~np.isnan(one)], other[~np.isnan(other)]
        if not len(one) or not len(other):
            continue
        if np.isin(np.concatenate([one, other]), (0.0, 1.0)).all():
            table = [[side.sum(), len(side) - side.sum()] for side in (one, other)]
            found[name] = float(fisher_exact(table)[1])
        else:
            found[name] = float(ks_2samp(one, other, method="asymp").pvalue)
    if not found:
        return Shift(1.0, "", level)
    feature = min(sorted(found), key=found.__getitem__)
    return Shift(min(1.0, found[feature] * len(found)), feature, level)
