"""Texts that are nearly equal: MinHash finds candidates, and each is checked by the exact Jaccard share of shingles.

Nothing is asked of a model and nothing is fetched: near means near in letters, not in meaning.
"""

from __future__ import annotations

import tempfile
import unicodedata
from array import array
from collections.abc import Iterator
from types import TracebackType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from preceptor.prompts.errors import RowsError
from preceptor.prompts.records import Prompt

Shingles = NDArray[np.uint64]
"""Sorted hashes of a text's shingles, each once."""
WIDTH = 5
"""Characters of a shingle, and not words: so prompts of a few words, and scripts without spaces, have some."""
PERMUTATIONS = 128
MISSED = 0.02
"""Of pairs that lie at the threshold itself, at most this share is no candidate; of those above it, less."""
BATCH = 4096
"""Shingles permuted at a time: half a million numbers, however long a text is."""


class Sketch(NamedTuple):
    """What of a text is compared."""

    shingles: Shingles
    buckets: tuple[int, ...]
    """One for each band; two texts that share one are candidates."""


class Near(NamedTuple):
    """A text of the index that is near."""

    number: int
    """Of the text, in the order in which they were added, from 0."""
    jaccard: float


def said(prompt: Prompt) -> str:
    """What of a conversation is compared: all but its system messages, which many prompts share."""
    return plain("\n".join(one.content for one in prompt.messages if one.role != "system"))


def system_of(prompt: Prompt) -> str:
    """Its system messages, as `plain` text."""
    return plain("\n".join(one.content for one in prompt.messages if one.role == "system"))


def plain(text: str) -> str:
    """The text without what readers overlook: case, width of letters, runs of white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def shingles(text: str) -> Shingles:
    """Of `WIDTH` characters; a shorter text is one shingle. Two shingles share a hash once in 10^19 pairs."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    width = min(WIDTH, len(points))
    hashes = np.full(len(points) - width + 1, width + 1, dtype=np.uint64)
    for place in range(width):
        hashes = _mixed(hashes ^ points[place : place + len(hashes)])
    return np.unique(hashes)


def _mixed(numbers: Shingles) -> Shingles:
    """Splitmix64, whose multiplication wraps around."""
    numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def jaccard(one: Shingles, other: Shingles) -> float:
    """Shared shingles as a share of all."""
    shared = int(np.intersect1d(one, other, assume_unique=True).size)
    return shared / (one.size + other.size - shared)


def rows_of_a_band(threshold: float) -> int:
    """The most values that a band can hold so that no more than `MISSED` are missed: fewer candidates, less memory."""

    def missed(rows: int) -> float:
        return (1 - threshold**rows) ** (PERMUTATIONS // rows)

    return max((rows for rows in range(1, PERMUTATIONS + 1) if missed(rows) <= MISSED), default=1)


class NearIndex:
    """Texts by their likeness. In memory each takes the same, however long it is: shingles are in a temporary file."""

    def __init__(self, threshold: float) -> None:
        """threshold: the Jaccard share from which on two texts are near. Raises RowsError where it is none."""
        from datasketch import MinHash

        if not 0 < threshold <= 1:
            raise RowsError(f"threshold is {threshold}; wanted a number above 0 and up to 1")
        self.threshold = threshold
        self._rows = rows_of_a_band(threshold)
        self._bands = PERMUTATIONS // self._rows
        self._blank = MinHash(num_perm=PERMUTATIONS, hashfunc=int)
        self._last: dict[int, int] = {}  # bucket -> its last entry; an entry is number * bands + band
        self._before = array("q")  # entry -> the one before it in its bucket, or -1
        self._ends = array("Q", [0])  # of each text's shingles in the file
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - `__exit__` closes it

    def __enter__(self) -> NearIndex:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def sketch(self, text: str) -> Sketch:
        """Of a text that is `plain`."""
        found = shingles(text)
        minima = self._blank.copy()
        for start in range(0, len(found), BATCH):
            minima.update_batch((found[start : start + BATCH] >> np.uint64(32)).tolist())
        values, rows = minima.hashvalues, self._rows
        return Sketch(
            found,
            tuple(
                hash((band, values[band * rows : (band + 1) * rows].tobytes())) for band in range(self._bands)
            ),
        )

    def near(self, sketch: Sketch) -> Iterator[Near]:
        """The texts that are near, those that were added first before others."""
        for number in sorted(self._candidates(sketch)):
            size, other = sketch.shingles.size, self._ends[number + 1] - self._ends[number]
            if min(size, other) < self.threshold * max(size, other):
                continue  # even if one held all of the other
            share = jaccard(sketch.shingles, self._shingles(number))
            if share >= self.threshold:
                yield Near(number, share)

    def add(self, sketch: Sketch) -> int:
        """Its number."""
        number = len(self)
        for band, bucket in enumerate(sketch.buckets):
            self._before.append(self._last.get(bucket, -1))
            self._last[bucket] = number * self._bands + band
        self._file.seek(0, 2)
        self._file.write(sketch.shingles.tobytes())
        self._ends.append(self._ends[-1] + sketch.shingles.size)
        return number

    def _candidates(self, sketch: Sketch) -> set[int]:
        found = set()
        for bucket in sketch.buckets:
            entry = self._last.get(bucket, -1)
            while entry >= 0:
                found.add(entry // self._bands)
                entry = self._before[entry]
        return found

    def _shingles(self, number: int) -> Shingles:
        start, end = self._ends[number], self._ends[number + 1]
        self._file.seek(8 * start)
        return np.frombuffer(self._file.read(8 * (end - start)), dtype=np.uint64)
