"""The numbers of a text, in a form in which "1,200" is 1200, "7:00 am" is "7am" and "$25.00" is 25.

Only digits are read: "twenty-five" is a word here.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

_LIST_MARK = re.compile(r"^[ \t]*\d{1,3}[.)](?=\s)", re.MULTILINE)
_HALF = r"(?:\s?(?P<{0}>[ap](?:m\b|\.m\.)))"
_NUMBER = re.compile(
    r"(?P<hour>\d{1,2}):(?P<minute>\d\d)(?!\d)" + _HALF.format("half_of_clock") + "?"
    r"|(?P<whole>\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.(?P<part>\d+))?" + _HALF.format("half_of_hour") + "?",
    re.IGNORECASE,
)


class WrittenNumber(NamedTuple):
    """One number as it stands and as it compares."""

    shown: str
    digits: str
    """Without thousands separators, leading zeros, and zeros after the point."""
    half: str
    """`a` or `p` for a time of day with am or pm; empty where it says neither."""


def figures(text: str) -> tuple[WrittenNumber, ...]:
    """Every number of the text in its order, without the marks of a numbered list."""
    plain = _LIST_MARK.sub(" ", unicodedata.normalize("NFKC", text))
    return tuple(_figure(match) for match in _NUMBER.finditer(plain))


def _figure(match: re.Match[str]) -> WrittenNumber:
    half = (match["half_of_clock"] or match["half_of_hour"] or "")[:1].lower()
    if match["hour"] is not None:
        hour, minute = match["hour"].lstrip("0") or "0", match["minute"]
        return WrittenNumber(match.group(), hour if minute == "00" else f"{hour}:{minute}", half)
    whole = match["whole"].replace(",", "").lstrip("0") or "0"
    part = (match["part"] or "").rstrip("0")
    return WrittenNumber(match.group(), f"{whole}.{part}" if part else whole, half)


def foreign_figures(text: str, source: str) -> tuple[str, ...]:
    """The numbers of the text, as they stand there, that the source does not have.

    A time with am or pm equals the same time with the same half of the day, or one that names no half.
    """
    known: dict[str, set[str]] = {}
    for figure in figures(source):
        known.setdefault(figure.digits, set()).add(figure.half)
    return tuple(
        figure.shown for figure in figures(text) if not _stands(figure, known.get(figure.digits, set()))
    )


def _stands(figure: WrittenNumber, halves: set[str]) -> bool:
    return bool(halves) and (not figure.half or figure.half in halves or "" in halves)
