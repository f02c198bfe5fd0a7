"""Where principles clash: labels about which one, alone, would choose the other reply than another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import combinations
from typing import TypedDict

from preceptor.judge.aggregate import deciding, sum_up, winner
from preceptor.judge.compare import JOINT
from preceptor.judge.records import Label, Letter


class ClashFigures(TypedDict):
    """Two principles over some labels."""

    one: str
    other: str
    both: int
    """Labels of which each alone makes a winner."""
    against: int
    """Of those, labels of which they make different winners."""
    one_wins: int
    """Of those, labels with the winner of `one`."""
    other_wins: int


def choices(label: Label) -> dict[str, Letter]:
    """Principle -> the better reply by its own judgements alone; only those that make a winner."""
    chosen: dict[str, Letter] = {}
    judgements = deciding(label)
    for name in dict.fromkeys(one.principle for one in judgements if one.principle != JOINT):
        added = sum_up([one for one in judgements if one.principle == name], {name: 1.0})
        if added.status == "ok" and added.probability is not None:
            chosen[name] = winner(added.probability)
    return chosen


def clashes(labels: Iterable[Label]) -> list[ClashFigures]:
    """Every two principles that ever choose differently, those that do so oftenest first."""
    both: Counter[tuple[str, str]] = Counter()
    against: Counter[tuple[str, str]] = Counter()
    wins: Counter[tuple[str, str, str]] = Counter()
    for label in labels:
        chosen = choices(label)
        final = winner(label.probability) if label.status == "ok" and label.probability is not None else None
        for one, other in combinations(sorted(chosen), 2):
            both[one, other] += 1
            if chosen[one] == chosen[other]:
                continue
            against[one, other] += 1
            for name in (one, other):
                wins[one, other, name] += chosen[name] == final
    return [
        {
            "one": one,
            "other": other,
            "both": both[one, other],
            "against": count,
            "one_wins": wins[one, other, one],
            "other_wins": wins[one, other, other],
        }
        for (one, other), count in sorted(against.items(), key=lambda item: (-item[1], item[0]))
    ]
