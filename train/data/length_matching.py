"""Pairs weighed so that, among pairs of like difference in length, the longer reply is chosen as often as the shorter.

Where judges prefer the longer reply, length alone tells the label; after weighing it tells nothing, and what is learned
has to come of something else. Matching by strata, as of confounders (Rosenbaum, Rubin 1983, Biometrika 70:41).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from preceptor.train.data.pairs import PairTokens

STRATA = 5
"""Groups of equally many pairs, by how far their lengths are apart."""
MOST = 10.0
"""Of a pair's weight, times what it had: a few pairs of the rarer kind must not be all that is learned from."""


def length_matched(pairs: Sequence[PairTokens]) -> list[PairTokens]:
    """The pairs with new weights, of the same mean.

    In a group where one kind is missing, and of replies of one length, weights stay: there is nothing to match with.
    """
    apart = sorted(
        (number for number, pair in enumerate(pairs) if _longer(pair)),
        key=lambda number: abs(_longer(pairs[number])),
    )
    groups: dict[int, list[int]] = defaultdict(list)
    for place, number in enumerate(apart):
        groups[place * STRATA // len(apart)].append(number)
    weights = [pair.weight for pair in pairs]
    for group in groups.values():
        kinds = [[at for at in group if (_longer(pairs[at]) > 0) is longer] for longer in (True, False)]
        totals = [sum(pairs[at].weight for at in kind) for kind in kinds]
        if min(totals) <= 0:
            continue
        for kind, total in zip(kinds, totals, strict=True):
            for at in kind:
                weights[at] = pairs[at].weight * min(MOST, sum(totals) / 2 / total)
    scale = sum(pair.weight for pair in pairs) / sum(weights) if sum(weights) else 1.0
    return [pair._replace(weight=weight * scale) for pair, weight in zip(pairs, weights, strict=True)]


def _longer(pair: PairTokens) -> int:
    """Tokens by which the chosen reply is the longer."""
    return len(pair.chosen) - len(pair.rejected)
