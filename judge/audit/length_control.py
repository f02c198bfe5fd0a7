"""What would be said of replies of one length: agreement and win rates as a model of the verdicts has them.

A generalised linear model with the logistic link, after the length-controlled win rates of Dubois et al. 2024 (arXiv
2404.04475, eq. 2), without the terms for models and prompts:

    logit P(hit) = b_0 + b_length log2(length of the one reply / length of the other)

A hit is a verdict for the gold reply, whose length stands above; or for the policy's. At equal lengths the second term
is 0, so that the share is sigma(b_0), and its interval follows from b_0's standard error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from preceptor.judge.figures import LengthControlled
from preceptor.judge.statistics import Z95, logistic

FEWEST = 20
"""Verdicts from which on a model is fitted."""


def doublings(one: str, other: str) -> float:
    """log2 of one reply's length over the other's, in characters."""
    return math.log2((len(one) + 1) / (len(other) + 1))


def length_controlled(hits: Sequence[bool], longer: Sequence[float]) -> LengthControlled | None:
    """hits: whether each verdict is the one that counts; longer: doublings of that reply's length over the other's.

    None with fewer verdicts than `FEWEST`, and where the model has no finite answer: verdicts all alike, or told by
    length alone.
    """
    import numpy as np

    if len(hits) < FEWEST or len(set(hits)) < 2:
        return None
    x = np.array([[1.0, more] for more in longer])
    effects = logistic(x, np.array(hits, float))
    if effects is None:
        return None
    constant, length = effects
    low, share, high = (
        1 / (1 + math.exp(-(constant.coefficient + z * constant.stderr))) for z in (-Z95, 0.0, Z95)
    )
    return {
        "n": len(hits),
        "naive": sum(hits) / len(hits),
        "share": share,
        "ci95": [low, high],
        "constant": constant.coefficient,
        "constant_stderr": constant.stderr,
        "length": length.coefficient,
        "length_stderr": length.stderr,
    }


def in_words(found: LengthControlled) -> str:
    """The coefficients, with their standard errors."""
    return (
        f"log-odds {found['constant']:+.2f} ± {found['constant_stderr']:.2f}, and {found['length']:+.2f} ± "
        f"{found['length_stderr']:.2f} for each doubling of length"
    )
