"""Recorded judges -> which of them should judge together, or that one judge is enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from preceptor.judge.figures import MemberFigures, PanelFigures
from preceptor.judge.records import Label
from preceptor.judge.voting.confidence import effective_votes, error_correlation

LEVEL = 0.01
"""Of the test that a panel is better than its best member, over all panels that are looked at."""
MOST_MEMBERS = 5
"""Of a panel."""


class Recordings(NamedTuple):
    """What judges said of pairs with gold."""

    judges: tuple[str, ...]
    said: Any
    """(N, K) probability of a, NaN where a judge has no verdict."""
    gold: Any
    """(N,) 1 where a is the better, 0 where b is."""


def recordings_of(labels: Sequence[Label]) -> Recordings:
    """The first step's votes on pairs whose gold is no tie."""
    import numpy as np

    known = [label for label in labels if label.preferred in ("a", "b") and label.votes]
    judges = tuple(dict.fromkeys(vote.judge for label in known for vote in label.votes if vote.step == 0))
    place = {name: number for number, name in enumerate(judges)}
    said = np.full((len(known), len(judges)), np.nan)
    for row, label in enumerate(known):
        for vote in label.votes:
            if vote.step == 0 and vote.probability is not None and vote.status in ("ok", "tie"):
                said[row, place[vote.judge]] = vote.probability
    return Recordings(judges, said, np.array([float(label.preferred == "a") for label in known]))


def effective(labels: Sequence[Label]) -> tuple[float | None, float | None]:
    """(correlation of errors, effective votes) of the first step's judges, over the rows that all of them decide. Where
    no row has gold, of their verdicts for a: what they share because it is true counts, too, so that the votes are a
    lower bound."""
    known = recordings_of(labels)
    if not len(known.gold):
        known = recordings_of([label.model_copy(update={"preferred": "b"}) for label in labels])
    correlation = _correlation(known)
    return correlation, None if correlation is None else effective_votes(len(known.judges), correlation)


def _correlation(known: Recordings) -> float | None:
    import numpy as np

    decided = ~np.isnan(known.said).any(axis=1)
    return error_correlation((known.said[decided] > 0.5) != (known.gold[decided, None] == 1))


def correctness(said: Any, gold: Any) -> Any:
    """(N,) of what a panel's mean probability is worth: 1 right, 0 wrong, 0.5 where it names neither."""
    import numpy as np

    voted = ~np.isnan(said)
    mean = np.where(voted, said, 0.0).sum(axis=1) / np.maximum(voted.sum(axis=1), 1)
    mean = np.where(voted.any(axis=1), mean, 0.5)
    return np.where(mean == 0.5, 0.5, (mean > 0.5) == (gold == 1))


def choose(known: Recordings) -> tuple[int, ...]:
    """The columns of the judges who should decide together; one column: one judge is enough.

    Every panel of up to MOST_MEMBERS is held against the best single judge of all, row by row, by the exact one-sided
    sign test on the rows where the two differ (McNemar 1947), at LEVEL over the number of panels (Bonferroni). Of those
    that pass, the one that is right most often is chosen, of equal ones the smallest.
    """
    import numpy as np
    from scipy.stats import binom

    columns = range(len(known.judges))
    right = [correctness(known.said[:, [one]], known.gold) for one in columns]
    best = max(columns, key=lambda one: right[one].mean())
    panels = [
        some
        for size in range(2, min(MOST_MEMBERS, len(known.judges)) + 1)
        for some in combinations(columns, size)
    ]
    chosen: tuple[int, ...] = (best,)
    share = right[best].mean()
    for panel in panels:
        own = correctness(known.said[:, panel], known.gold)
        better, worse = int((own > right[best]).sum()), int((own < right[best]).sum())
        p = float(binom.sf(better - 1, better + worse, 0.5)) if better + worse else 1.0
        if p <= LEVEL / len(panels) and own.mean() > share:
            chosen, share = panel, np.mean(own)
    return chosen


def worth(known: Recordings, costs: Mapping[str, float | None]) -> PanelFigures:
    """What all judges together amount to, what each adds, and who is recommended.

    costs: judge -> USD of its verdicts; absent or None: not known.
    """
    chosen = choose(known)
    correlation = _correlation(known)
    whole = float(correctness(known.said, known.gold).mean())
    members: list[MemberFigures] = []
    for at, name in enumerate(known.judges):
        others = [one for one in range(len(known.judges)) if one != at]
        left = float(correctness(known.said[:, others], known.gold).mean()) if others else None
        adds = None if left is None else whole - left
        cost = costs.get(name)
        members.append(
            {
                "judge": name,
                "accuracy": float(correctness(known.said[:, [at]], known.gold).mean()),
                "adds": adds,
                "cost_usd": cost,
                "adds_per_usd": adds / cost if adds is not None and cost else None,
            }
        )
    return {
        "n": len(known.gold),
        "judges": len(known.judges),
        "accuracy": whole,
        "error_correlation": correlation,
        "effective_votes": None if correlation is None else effective_votes(len(known.judges), correlation),
        "members": members,
        "chosen": [known.judges[at] for at in chosen],
        "chosen_accuracy": float(correctness(known.said[:, chosen], known.gold).mean()),
    }
