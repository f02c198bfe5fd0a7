"""Regular expressions that a constitution brings along, searched with a limit on the time.

The `regex` library is used because it can be told to give up; the standard library's `re` cannot, and one
nested quantifier would hold a run for ever.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import regex

from preceptor.constitution.errors import UserError

SEARCH_LIMIT_S = 2.0
LONGEST = 1000
"""Characters of a pattern; the compiler of a longer one may nest deeper than a process has room."""


@cache
def _compiled(pattern: str) -> regex.Pattern[str]:
    return regex.compile(pattern)


def occurs(pattern: str, text: str) -> bool:
    """Whether the pattern matches anywhere. UserError where the search does not end in `SEARCH_LIMIT_S`."""
    try:
        return _compiled(pattern).search(text, timeout=SEARCH_LIMIT_S) is not None
    except TimeoutError:
        raise UserError(
            f"the pattern {pattern!r} took more than {SEARCH_LIMIT_S:g} s on a reply of {len(text)} "
            "characters; wanted a pattern without nested repetition: write it without a quantifier inside a "
            "quantified group"
        ) from None


def fault(argument: Any) -> str:
    """What is wrong with a list of patterns; empty where nothing is."""
    wanted = "a list of regular expressions"
    if not isinstance(argument, list | tuple) or not argument:
        return f"{argument!r}; wanted {wanted}"
    for pattern in argument:
        if not isinstance(pattern, str) or not pattern:
            return f"{pattern!r}; wanted {wanted}"
        if len(pattern) > LONGEST:
            return f"a pattern of {len(pattern)} characters; wanted {wanted} of at most {LONGEST}"
        try:
            _compiled(pattern)
        except (regex.error, RecursionError, OverflowError, MemoryError) as error:
            said = str(error) or "it is nested too deep"
            return f"{pattern!r} ({said}); wanted a regular expression that compiles"
    return ""
