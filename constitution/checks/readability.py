"""Flesch reading ease of English text (Flesch 1948, "A new readability yardstick", J. Appl. Psychol. 32).

    206.835 - 1.015 words / sentences - 84.6 syllables / words

Syllables are a word's places of hyphenation plus one. On running English that makes 0.96 of the syllables of
a pronouncing dictionary, so that the score lies about five points high; it is meant for a floor, not for a
ranking.
"""

from __future__ import annotations

import re
from functools import cache

import pyphen  # type: ignore[import-untyped]  # has no stubs

from preceptor.constitution.checks.wording import sentences, words

_LETTERS = re.compile(r"[^\W\d_]+")


@cache
def _hyphenation() -> pyphen.Pyphen:
    return pyphen.Pyphen(lang="en_US")


def syllables(word: str) -> int:
    """At least 1; each part of a hyphenated word counts for itself."""
    parts = _LETTERS.findall(word.lower().replace("'", "").replace("’", ""))
    return sum(len(_hyphenation().positions(part)) + 1 for part in parts) or 1


def reading_ease(text: str) -> float | None:
    """About 100 for a child's book, 60 for plain prose, below 30 for a paper; None without words."""
    counted = words(text)
    if not counted:
        return None
    per_word = sum(map(syllables, counted)) / len(counted)
    return 206.835 - 1.015 * len(counted) / len(sentences(text)) - 84.6 * per_word
