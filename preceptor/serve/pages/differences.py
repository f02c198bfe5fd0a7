"""Two texts -> their parts, those marked that differ."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher, unified_diff
from typing import NamedTuple

MOST_WORDS = 1500
"""Words of a reply that are compared; of a longer one nothing is marked, for the comparison grows with their square."""
_PARTS = re.compile(r"\w+|\s+|[^\w\s]")


class Part(NamedTuple):
    """A piece of a text."""

    text: str
    differs: bool


def marked(one: str, other: str) -> tuple[list[Part], list[Part]] | None:
    """Both texts in parts that the other has or has not; None where they are too long, or have too little in
    common for marks to say anything."""
    words = _PARTS.findall(one), _PARTS.findall(other)
    if max(map(len, words)) > MOST_WORDS:
        return None
    matcher = SequenceMatcher(None, *words, autojunk=True)
    if matcher.ratio() < 0.3:
        return None
    found: tuple[list[Part], list[Part]] = [], []
    for kind, *places in matcher.get_opcodes():
        for side, (start, end) in enumerate((places[:2], places[2:])):
            if start < end:
                found[side].append(Part("".join(words[side][start:end]), kind != "equal"))
    return found


class DiffLine(NamedTuple):
    """A line of a difference."""

    text: str
    kind: str
    """`in`, `out`, or nothing for one that is in both."""


def diff_lines(old: str, new: str) -> list[DiffLine]:
    """What differs between two texts, with some lines around."""
    return list(_lines(list(unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=2))[2:]))


def _lines(lines: Sequence[str]) -> Iterator[DiffLine]:
    for line in lines:
        yield DiffLine(line, {"+": "in", "-": "out"}.get(line[:1], ""))
