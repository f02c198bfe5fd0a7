"""What a server has shown of itself: remembered for the life of its model, so that it is not shown twice."""

from __future__ import annotations

from typing import NamedTuple


class Learned(NamedTuple):
    """What requests to one server must leave out, whatever its provider's protocol says."""

    refused: frozenset[str] = frozenset()
    """Optional parameters that it turned away."""

    def without(self, parameter: str) -> Lesson:
        """The same, and this parameter is refused."""
        now = self._replace(refused=self.refused | {parameter})
        return Lesson(now, f"{parameter}, which is left out")


class Lesson(NamedTuple):
    """What one refusal taught."""

    learned: Learned
    """All that is known now."""
    change: str
    """What was refused, and what becomes of it from now on, in words."""


NOTHING = Learned()
