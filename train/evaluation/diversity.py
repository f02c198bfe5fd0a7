"""How alike the texts of a set are, beyond `train.evaluation.compare.distinct_n`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

ORDERS = 4
ALMOST_NOTHING = 1e-9
"""In the place of no match at all, whose logarithm there is not: the first smoothing of Chen and Cherry 2014."""

Grams = Counter[tuple[str, ...]]


def self_bleu(texts: Sequence[str]) -> list[float]:
    """For each text its BLEU-4 with all the others as references, 0..1: high where texts are alike.

    Zhu et al. 2018 (Texygen, arXiv 1802.01886), section 3.2; BLEU by Papineni et al. 2002, sections 2.1 to 2.3, over
    words without case. A text of fewer than four words is compared as far as it goes; one without words, or without
    another text beside it, has 0. Only texts with words are references.
    """
    words = [text.lower().split() for text in texts]
    precisions = [_precisions(words, order) for order in range(1, ORDERS + 1)]
    lengths = [len(each) for each in words]
    return [
        _brevity(lengths, at) * math.exp(sum(map(math.log, known)) / len(known))
        if (known := [own for order in precisions if (own := order[at]) is not None])
        and sum(map(bool, lengths)) > 1
        else 0.0
        for at in range(len(texts))
    ]


def mean_self_bleu(texts: Sequence[str]) -> float:
    """Mean of `self_bleu` over the texts; 0 where there are none."""
    return sum(self_bleu(texts)) / len(texts) if texts else 0.0


def _precisions(words: Sequence[Sequence[str]], order: int) -> list[float | None]:
    """Each text's clipped precision against all others; None for a text too short for such n-grams.

    What stands most often in one of the others is the most of all texts, or the second most for the text that has
    it: no text need be compared with each other one.
    """
    counted: list[Grams] = [
        Counter(zip(*(text[start:] for start in range(order)), strict=False)) for text in words
    ]
    most: dict[tuple[str, ...], tuple[int, int]] = {}
    for grams in counted:
        for gram, count in grams.items():
            first, second = most.get(gram, (0, 0))
            most[gram] = (count, first) if count > first else (first, max(second, count))
    shares: list[float | None] = []
    for grams in counted:
        matched = 0
        for gram, count in grams.items():
            first, second = most[gram]
            matched += min(count, second if count == first else first)
        total = grams.total()
        shares.append(max(matched / total, ALMOST_NOTHING) if total else None)
    return shares


def _brevity(lengths: Sequence[int], at: int) -> float:
    """BLEU's penalty for being shorter than the reference of the nearest length."""
    own = lengths[at]
    others = [length for place, length in enumerate(lengths) if place != at and length]
    nearest = min(others, key=lambda length: (abs(length - own), length), default=own)
    return 1.0 if own >= nearest or not own else math.exp(1 - nearest / own)
