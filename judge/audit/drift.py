"""Answers given again against the stored ones -> whether the judge still is the one that made the labels.

Looks come one after another for as long as somebody keeps looking, and every look is another chance to be deceived. So
the test is an e-process: where nothing has changed, the probability that it ever reaches 1 / level is at most the level
(Ville 1939; Ramdas, Gruenwald, Vovk, Shafer 2023, "Game-theoretic statistics and safe anytime-valid inference", arXiv
2210.01948).

The null hypothesis: at every look, at most a share r of all labels would have another outcome; r is what the judge's
own unsteadiness explains. With k of n rows changed, bet on every greater share evenly (Robbins 1970, Ann. Math. Stat.
41:1397):

    M(n, k) = 1 / (1 - r) * integral from r to 1 of (t / r)^k ((1 - t) / (1 - r))^(n - k) dt

Each row's factor expects at most 1, as the rows of a look are drawn anew from all. That they are drawn without return
makes M smaller still, because it is convex in k (Hoeffding 1963, J. Am. Stat. Assoc. 58:13, theorem 4). A change may
come after many quiet looks, so that bets begin at every look j, with weights that add up to 1, those of the looks to
come among them (after Shin, Ramdas, Rinaldo 2022, "E-detectors", arXiv 2203.03532):

    E_t = sum over j <= t of M(rows of looks j..t) / (j (j + 1)) + 1 / (t + 1)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from preceptor.judge.aggregate import deciding, gravest, winner
from preceptor.judge.figures import ChangedFigures, ChangeFigures
from preceptor.judge.records import DriftLook, Label

LEVEL = 0.05
"""Of a false alarm, ever, over all subjects together."""
TOLERANCE = 0.05
"""Share of other outcomes that is put down to the judge's own unsteadiness, where nothing was measured."""
MOST = 700.0
"""Natural logarithm of the most evidence that is told: a float holds no more."""


class OutcomeCount(NamedTuple):
    """Rows that had an outcome both times."""

    n: int
    changed: int


def compared(first: Iterable[Label], again: Iterable[Label]) -> tuple[OutcomeCount, dict[str, OutcomeCount]]:
    """Of all that decides a label, and of every principle that was asked about on its own.

    An outcome is the better reply or why there is none; a judge that now refuses has changed. A call that failed is no
    outcome.
    """
    later = {label.id: label for label in again}
    counts: dict[str, list[bool]] = {}
    for label in first:
        if (now := later.get(label.id)) is None:
            continue
        had, has = _outcomes(label), _outcomes(now)
        for subject in had.keys() & has.keys():
            counts.setdefault(subject, []).append(had[subject] != has[subject])
    found = {subject: OutcomeCount(len(rows), sum(rows)) for subject, rows in sorted(counts.items())}
    whole = found.pop("", OutcomeCount(0, 0))
    return whole, found if len(found) > 1 else {}


def _outcomes(label: Label) -> dict[str, str]:
    """Subject -> outcome; the whole label under the empty name."""
    found = {"": _outcome(label.status, label.probability)}
    asked = [one for one in deciding(label) if one.call is not None]
    for subject in dict.fromkeys(one.principle for one in asked):
        own = [one for one in asked if one.principle == subject]
        known = [one.probability for one in own if one.probability is not None]
        whole = len(known) == len(own)
        found[subject] = _outcome(
            gravest(one.status for one in own if one.probability is None) if not whole else "ok",
            sum(known) / len(known) if whole else None,
        )
    return {subject: outcome for subject, outcome in found.items() if outcome != "failed"}


def _outcome(status: str, probability: float | None) -> str:
    return status if probability is None else winner(probability)


def evidence(looks: Sequence[OutcomeCount], tolerance: float) -> float:
    """E_t of the looks so far; 1 where there are none. Large: more has changed than the tolerance explains.

    M is had by the incomplete beta function.
    """
    import numpy as np
    from scipy.special import betaincc, betaln

    if not looks:
        return 1.0
    # of looks j..t, for every j
    n, k = (np.cumsum([look[at] for look in reversed(looks)])[::-1] for at in (0, 1))
    with np.errstate(divide="ignore"):  # bets that are lost for good
        mixed = np.log(betaincc(k + 1, n - k + 1, tolerance)) + betaln(k + 1, n - k + 1)
    bets = mixed - k * math.log(tolerance) - (n - k + 1) * math.log1p(-tolerance)
    first = np.arange(1, len(looks) + 1)
    parts = [*(bets - np.log(first * (first + 1.0))), -math.log(len(looks) + 1)]
    return math.exp(min(MOST, float(np.logaddexp.reduce(parts))))


def at_least(looks: Sequence[OutcomeCount], threshold: float) -> float:
    """The largest tolerance at which these looks would be an alarm: the share of changed outcomes, by the last look or
    an earlier one, is above it at the confidence that the threshold stands for. 0: none."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if evidence(looks, middle) >= threshold:
            low = middle
        else:
            high = middle
    return low


def verdict(looks: Sequence[DriftLook], level: float = LEVEL) -> ChangedFigures:
    """What the looks say, in their order: of all labels, and by principle. They share one tolerance.

    The level is split evenly over the subjects (Bonferroni), so that a false alarm of any of them is as rare. An alarm
    stays, whatever later looks say.
    """
    tolerance = looks[-1].tolerance if looks else TOLERANCE
    names = sorted({name for look in looks for name in look.principles})
    threshold = (len(names) + 1) / level
    whole = _figures([OutcomeCount(look.n, look.changed) for look in looks], tolerance, threshold)
    by_principle: dict[str, ChangeFigures] = {}
    for name in names:
        counts = [OutcomeCount(*look.principles.get(name, (0, 0))) for look in looks]
        by_principle[name] = _figures(counts, tolerance, threshold)
    found = [whole["alarm"], *(own["alarm"] for own in by_principle.values())]
    first = min((number for number in found if number is not None), default=None)
    return {
        **whole,
        "looks": len(looks),
        "tolerance": tolerance,
        "level": level,
        "threshold": threshold,
        "since": None if first is None else looks[first - 1].date,
        "by_principle": by_principle,
    }


def _figures(looks: Sequence[OutcomeCount], tolerance: float, threshold: float) -> ChangeFigures:
    n = sum(look.n for look in looks)
    so_far = [evidence(looks[:number], tolerance) for number in range(1, len(looks) + 1)]
    last = looks[-1] if looks else OutcomeCount(0, 0)
    return {
        "n": n,
        "changed": sum(look.changed for look in looks) / n if n else None,
        "last_changed": last.changed / last.n if last.n else None,
        "evidence": so_far[-1] if so_far else 1.0,
        "at_least": at_least(looks, threshold),
        "alarm": next((number for number, value in enumerate(so_far, 1) if value >= threshold), None),
    }
