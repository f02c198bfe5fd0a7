"""The ways of asking a judge about several principles, as a table: what stands together in one ask."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

from preceptor.constitution.principle import Principle

ScoreGrouping = Literal["joint", "each"]
"""Those by which single replies are graded."""
PairGrouping = Literal[ScoreGrouping, "sample"]
"""Those by which pairs are compared."""

Asks = tuple[tuple[Principle, ...], ...]
"""The principles of each ask; no ask is without any."""


class Drawing(NamedTuple):
    """What chance depends on where not all principles are asked about."""

    seed: int
    identity: str
    """Of the pair; a canary's is that of the pair in which it was planted, so that the two can be compared."""
    draws: int


class Grouping(NamedTuple):
    """One way of asking."""

    asks: Callable[[Sequence[Principle], Drawing], Asks]
    """The applicable principles that no machine check decides -> what is asked about them."""
    options: frozenset[str] = frozenset()
    """Fields of the settings that have an effect with this way alone."""
    resums: bool = False
    """Whether every principle has its judgement, so that a label without one is the sum of the others."""


def _joint(principles: Sequence[Principle], _: Drawing) -> Asks:
    return (tuple(principles),) if principles else ()


def _each(principles: Sequence[Principle], _: Drawing) -> Asks:
    return tuple((principle,) for principle in principles)


def _sample(principles: Sequence[Principle], by: Drawing) -> Asks:
    """By each principle's own hash: one more principle in the constitution changes few pairs' draws."""

    def place(one: Principle) -> str:
        return hashlib.sha256(f"{by.seed}:{by.identity}:{one.id}".encode()).hexdigest()

    return _each(sorted(principles, key=place)[: by.draws], by)


GROUPINGS: Mapping[PairGrouping, Grouping] = MappingProxyType(
    {
        "joint": Grouping(_joint),
        "each": Grouping(_each, resums=True),
        "sample": Grouping(_sample, options=frozenset({"draws"})),
    }
)
