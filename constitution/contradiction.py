"""Pairs of machine checks that no reply can pass together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_LEAST_MOST = (
    ("min_words", "max_words"),
    ("min_sentences", "max_sentences"),
    ("min_sentences", "max_words"),  # a sentence has a word
)
_LISTS = frozenset({"markdown-list", "numbered-list", "table", "code-block"})


def contradictions(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    """In words, each contradiction between two checks; given the same check twice, those within it."""
    for least, most in _LEAST_MOST:
        for lower, upper in ((one, other), (other, one)) if one is not other else ((one, one),):
            if least in lower and most in upper and lower[least] > upper[most]:
                yield f"{least} {lower[least]} is above {most} {upper[most]}"
    for name in ("refusal", "language"):
        if name in one and name in other and one[name] != other[name]:
            yield f"{name} {other[name]} against {name} {one[name]}"
    if "format" in one and "format" in other and _apart(one["format"], other["format"]):
        yield f"format {other['format']} against format {one['format']}"
    if "pii" in one and "pii" in other and _pii_apart(one["pii"], other["pii"]):
        yield f"pii {other['pii']} against pii {one['pii']}"
    for needing, refusing in ((one, other), (other, one)) if one is not other else ((one, one),):
        for pattern in needing.get("require", ()):
            if pattern in refusing.get("forbid", ()):
                yield f"the pattern {pattern!r} is required and forbidden"


def _apart(one: str, other: str) -> bool:
    """Whether no text has both forms: JSON is no Markdown, an object no array, a list no single line."""
    forms = {one, other}
    if forms == {"json-object", "json-array"}:
        return True
    if "one-line" in forms:
        return not forms.isdisjoint(_LISTS)
    return not forms.isdisjoint(_LISTS) and any(form.startswith("json") for form in forms)


def _pii_apart(one: Any, other: Any) -> bool:
    """`present` is passed by any kind, so only a check against all kinds shuts it out."""
    return (one == "present") != (other == "present") and "absent" in (one, other)
