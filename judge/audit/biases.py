"""What a judge likes for reasons that are none: length, lists, its own words. Figures over verdicts."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from preceptor.judge.figures import HabitFigures
from preceptor.judge.records import Label, Letter
from preceptor.judge.statistics import logistic

FORMATTED = re.compile(r"^\s{0,3}(?:[-*+]\s+\S|\d{1,3}[.)]\s+\S|#{1,6}\s+\S|```|\|.*\|\s*$)", re.MULTILINE)
"""A line that begins a Markdown list, heading, code block or table."""


class Traits(NamedTuple):
    """What there is to like or dislike in a pair beside its content."""

    longer: Letter
    """The longer reply in characters."""
    doublings: float
    """log2 of a's length over b's."""
    formatted: Letter
    """The one reply that holds Markdown lists, headings, code or tables; `tie`: both or neither."""
    own: Letter
    """The one reply that the judge's model wrote; `tie`: both, neither, or not known."""


def traits(label: Label, judge: str) -> Traits:
    """The traits of a label's pair, in this judge's eyes."""
    a, b = len(label.response_a), len(label.response_b)
    return Traits(
        longer="tie" if a == b else "a" if a > b else "b",
        doublings=math.log2((a + 1) / (b + 1)),
        formatted=_only(*(bool(FORMATTED.search(text)) for text in (label.response_a, label.response_b))),
        own=_only(*(name == judge for name in label.models)) if label.models else "tie",
    )


def _only(a: bool, b: bool) -> Letter:
    return "tie" if a == b else "a" if a else "b"


class VerdictTraits(NamedTuple):
    """One verdict for a or b, with what could have swayed it."""

    letter: Letter
    gold: Letter | None
    traits: Traits


def habits(verdicts: Sequence[VerdictTraits]) -> HabitFigures:
    """Shares of verdicts, ties aside, for a reply with a trait that the other has not; None where no pair differs.

    `longer_share`, `list_share` and `self_share`; `length_coefficient` and `length_stderr` as `length_effect` says.
    """
    decided = [verdict for verdict in verdicts if verdict.letter != "tie"]
    coefficient, error = length_effect(decided) or (None, None)
    return {
        "longer_share": _share(
            [one.letter == one.traits.longer for one in decided if one.traits.longer != "tie"]
        ),
        "list_share": _share(
            [one.letter == one.traits.formatted for one in decided if one.traits.formatted != "tie"]
        ),
        "self_share": _share([one.letter == one.traits.own for one in decided if one.traits.own != "tie"]),
        "length_coefficient": coefficient,
        "length_stderr": error,
    }


def length_effect(decided: Sequence[VerdictTraits]) -> tuple[float, float] | None:
    """Log-odds of a verdict for a with each doubling of a's length over b's, gold held fixed, and its standard error.

    The logistic model of length-controlled win rates (Dubois et al. 2024, arXiv 2404.04475, eq. 2) with the gold
    verdict in the place of the two models' strengths, and log length in that of its squashed difference:
    logit P(a) = beta_length * log2(len a / len b) + beta_gold * (1, -1 or 0) + beta_0. Gold is left out where no row
    has it. None where there are fewer than 20 verdicts, where they are all the same, or where length or gold alone
    tells them all, for which there is no finite answer.
    """
    import numpy as np

    if len(decided) < 20 or len({one.letter for one in decided}) < 2:
        return None
    sign = {"a": 1.0, "b": -1.0, "tie": 0.0, None: 0.0}
    columns = [[one.traits.doublings for one in decided], [1.0] * len(decided)]
    if len({one.gold for one in decided}) > 1:
        columns.append([sign[one.gold] for one in decided])
    y = np.array([one.letter == "a" for one in decided], float)
    effects = logistic(np.array(columns).T, y)  # (N, 2 or 3)
    return (effects[0].coefficient, effects[0].stderr) if effects else None


def _share(hits: Sequence[bool]) -> float | None:
    return sum(hits) / len(hits) if hits else None
