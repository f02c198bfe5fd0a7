"""Counting words, sentences and word runs. Pure text, the same on every machine.

A word is a run of characters without white space that holds a letter or a digit, so that "7:30", "well-kept"
and "don't" are one word each, and dashes and bullets are none. Text in scripts without spaces counts as few
words.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache

_BREAK = re.compile(r"(?<=[.!?…])[\"'”’)\]*_]*(?:\s+|$)|(?<=[。！？])|\n+")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:mr|mrs|ms|dr|prof|st|vs|etc|e\.g|i\.e|cf|approx|fig|jr|sr|[a-hj-z])\.$", re.IGNORECASE
)
TAIL = 16
"""Characters before a full stop that can tell that it ends nothing."""
_LIST_MARK = re.compile(r"^\s*(?:[-*+•]|\d{1,3}[.)])$")


def words(text: str) -> tuple[str, ...]:
    """The words as they stand, punctuation at their edges included."""
    return tuple(run for run in text.split() if run[0].isalnum() or any(map(str.isalnum, run)))


def folded(text: str) -> tuple[str, ...]:
    """The words without case and without punctuation at their edges, for comparing runs of them."""
    return tuple(word for word in map(_folded, text.split()) if word)


@lru_cache(maxsize=8192)
def _folded(run: str) -> str:
    """Empty for a run that is no word. Kept, because a text's words come again and again."""
    first = next((index for index, mark in enumerate(run) if mark.isalnum()), None)
    if first is None:
        return ""
    last = next(index for index in range(len(run) - 1, -1, -1) if run[index].isalnum())
    return run[first : last + 1].casefold()


def sentences(text: str) -> tuple[str, ...]:
    """Sentences, list items and lines that hold at least one word, in their order.

    A full stop after a title, a single letter ("i.e.", "J. Smith") or a list's number ends nothing.
    """
    found: list[str] = []
    start = 0
    for brk in [*_BREAK.finditer(text), None]:
        end = len(text) if brk is None else brk.end()
        if brk is not None and "\n" not in brk.group() and _continues(text[max(start, end - TAIL) : end]):
            continue
        piece = text[start:end]
        start = end
        if words(piece):
            found.append(piece.strip())
    return tuple(found)


def _continues(tail: str) -> bool:
    stripped = tail.rstrip()
    return bool(_ABBREVIATION.search(stripped) or _LIST_MARK.match(stripped))


def runs(text: str, length: int) -> tuple[tuple[str, ...], ...]:
    """All runs of so many neighbouring words, folded."""
    folded_words = folded(text)
    return tuple(zip(*(folded_words[i:] for i in range(length)), strict=False))


def repeated_share(text: str, length: int = 3) -> float:
    """Share of the word runs that stand in the text more than once; 0 where the text has no run."""
    found = runs(text, length)
    if len(set(found)) == len(found):
        return 0.0
    return sum(count for count in Counter(found).values() if count > 1) / len(found)


def copied_share(text: str, source: str, length: int = 5) -> float:
    """Share of the text's word runs that also stand in the source; 0 where the text has no run."""
    mine = runs(text, length)
    theirs = set(runs(source, length))
    return sum(run in theirs for run in mine) / len(mine) if mine else 0.0
