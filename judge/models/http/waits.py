"""The door for times and counts that servers state: in headers, in bodies, in words. All of them are read here.

What comes out is a finite number of seconds from now, not negative, and no more than `LONGEST_S`; or None, where
nothing that makes sense was said. A server's clock and units are its own: an epoch is turned into a time from now,
and what is not a number, is negative or centuries away never reaches a sleep.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

LONGEST_S = 86400.0
"""A day: no provider's window is longer."""
EPOCH_S = 10**9
"""Numbers from here on are times since 1970, in seconds; a thousand times as much, in milliseconds."""
DEEPEST = 6
"""Levels of a body at which a wait is looked for."""

LONGEST_TEXT = 80
"""Characters of a time; a date with its zone has half of it."""
DURATION = re.compile(
    r"(\d{1,20}(?:\.\d{1,20})?)\s{0,3}"
    r"(milliseconds?|seconds?|secs?|minutes?|mins?|hours?|days?|ms|us|µs|ns|d|h|m|s)(?![a-zµ])\s{0,3}"
)
"""A part of a time as Go writes it, and as people do: 6m0s, 20ms, 2 seconds."""
UNIT_S = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
IN_WORDS = re.compile(
    r"\b(?:(?:try|retry)(?: again| your request)?|please wait|wait(?: for)?|available(?: again)?|resets?)"
    r"(?: (?:in|after))?(?: about| at least)? (?=\d)",
    re.IGNORECASE,
)
"""Where a message says how long to wait: before the time."""
MOST_WORDS = 2000
"""Characters of a message in which that is looked for."""
FIELDS = frozenset({"retrydelay", "retryafter", "retryafterseconds", "retryafterms"})
"""Fields of an error's body that say it, without underscores."""

OPENAI = re.compile(r"x-ratelimit-(limit|remaining|reset)-(requests|tokens)")
ANTHROPIC = re.compile(
    r"anthropic-ratelimit-(requests|tokens|input-tokens|output-tokens)-(limit|remaining|reset)"
)


class Allowance(NamedTuple):
    """What a reply's headers say of one quantity."""

    limit: float
    """In a full window: a minute, or a day for the smallest accounts."""
    remaining: float
    """Of the limit, from 0 to all of it."""
    reset_s: float | None
    """Until it is full again, if nothing is sent; None: not said."""


def allowances(headers: Mapping[str, str], now: datetime) -> dict[str, Allowance]:
    """requests, tokens, input-tokens, output-tokens -> what the headers say of it, where they say all there is to
    know. Header names are lower case.
    """
    said: dict[str, dict[str, str]] = {}
    for name, value in headers.items():
        if match := OPENAI.fullmatch(name):
            said.setdefault(match[2], {})[match[1]] = value
        elif match := ANTHROPIC.fullmatch(name):
            said.setdefault(match[1], {})[match[2]] = value
    found = {}
    for what, parts in said.items():
        limit, remaining = _number(parts.get("limit", "")), _number(parts.get("remaining", ""))
        if limit is not None and remaining is not None and limit > 0:
            left = min(max(remaining, 0.0), limit)
            found[what] = Allowance(limit, left, stated_s(parts.get("reset", ""), now))
    return found


def wait_s(headers: Mapping[str, str], body: object, message: str, now: datetime) -> float | None:
    """The wait that a refusal asks for: by header (`retry-after-ms`, `Retry-After`), by a field of its body, or in its
    words. None: it asks for none."""
    ms = _number(headers.get("retry-after-ms", ""))
    if ms is not None and ms < EPOCH_S:
        return _bounded(ms / 1000)
    if (asked := stated_s(headers.get("retry-after", ""), now)) is not None:
        return asked
    for name, value in _fields(body, DEEPEST):
        asked = stated_s(str(value), now)
        if asked is not None:
            return asked / 1000 if name == "retryafterms" else asked
    if found := IN_WORDS.search(message[:MOST_WORDS]):
        asked, _ = _duration(message[found.end() : found.end() + LONGEST_TEXT].lower())
        return None if asked is None else _bounded(asked)
    return None


def stated_s(text: str, now: datetime) -> float | None:
    """Seconds from now of `2`, `1s`, `6m0s`, `20ms`, an epoch, an RFC 3339 or HTTP date; None: nothing of these."""
    text = text[: 2 * LONGEST_TEXT].strip()
    if len(text) > LONGEST_TEXT:
        return None
    number = _number(text)
    if number is not None:
        if number >= 1000 * EPOCH_S:
            number = number / 1000
        return _bounded(number - now.timestamp() if number >= EPOCH_S else number)
    asked, end = _duration(text)
    if asked is not None and end == len(text):
        return _bounded(asked)
    at = _date(text)
    return None if at is None else _bounded((at - now).total_seconds())


def _bounded(seconds: float) -> float | None:
    """None where it makes no sense as a wait: not a number, or longer than any window."""
    if not math.isfinite(seconds) or seconds > LONGEST_S:
        return None
    return max(0.0, seconds)


def _number(text: str) -> float | None:
    try:
        number = float(text[:40])
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _duration(text: str) -> tuple[float | None, int]:
    """(seconds, where it ends) of the parts of a time with which a text begins; None: it begins with none."""
    seconds, end = None, 0
    while part := DURATION.match(text, end):
        seconds, end = (seconds or 0.0) + float(part[1]) * _unit_s(part[2]), part.end()
    return seconds, end


def _unit_s(unit: str) -> float:
    if unit in UNIT_S:
        return UNIT_S[unit]
    return 1e-3 if unit.startswith("milli") else UNIT_S[unit[0]]


def _date(text: str) -> datetime | None:
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            at = read(text)
        except (ValueError, OverflowError):
            continue
        return at if at.tzinfo else at.replace(tzinfo=UTC)
    return None


def _fields(body: object, depth: int) -> Iterator[tuple[str, object]]:
    """Fields that say a wait, wherever they stand in an error's body."""
    if depth and isinstance(body, Mapping):
        for name, value in body.items():
            plain = str(name).replace("_", "").replace("-", "").lower()
            if plain in FIELDS and isinstance(value, str | int | float):
                yield plain, value
            else:
                yield from _fields(value, depth - 1)
    elif depth and isinstance(body, Sequence) and not isinstance(body, str):
        for one in body[:50]:
            yield from _fields(one, depth - 1)
