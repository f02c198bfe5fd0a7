"""Which ids have come, in little memory: a few bytes an id, however long the ids are."""

from __future__ import annotations

from array import array
from hashlib import blake2b

FULL = 0.6
"""Share of taken places from which on the table is doubled."""


class SeenIds:
    """The ids that were added, each with a whole number below 2^32 such as its line.

    An open-addressing table of the ids' 64-bit hashes, 12 bytes a place: a set of a million strings takes some 150 MB,
    this 25. Two ids are mistaken for one another once in 10^19 pairs of them: in a file of a million with a chance of
    3e-8.
    """

    def __init__(self) -> None:
        self._hashes = array("Q", bytes(8 * 1024))
        self._numbers = array("L" if array("L").itemsize == 4 else "I", bytes(4 * 1024))
        self._taken = 0

    def add(self, identity: str, number: int = 0) -> int | None:
        """The number under which it came before; None, and it is added, where it is new."""
        if self._taken >= FULL * len(self._hashes):
            self._double()
        mark = int.from_bytes(blake2b(identity.encode(), digest_size=8).digest()) or 1  # 0 is a free place
        place = self._place(mark)
        if self._hashes[place]:
            return self._numbers[place]
        self._hashes[place], self._numbers[place] = mark, number
        self._taken += 1
        return None

    def __len__(self) -> int:
        return self._taken

    def _place(self, mark: int) -> int:
        """Where a hash stands, or would."""
        last = len(self._hashes) - 1
        place = mark & last
        while self._hashes[place] not in (0, mark):
            place = (place + 1) & last
        return place

    def _double(self) -> None:
        hashes, numbers = self._hashes, self._numbers
        self._hashes = array("Q", bytes(16 * len(hashes)))
        self._numbers = array(numbers.typecode, bytes(8 * len(numbers)))
        for mark, number in zip(hashes, numbers, strict=True):
            if mark:
                place = self._place(mark)
                self._hashes[place], self._numbers[place] = mark, number
