"""What is read from a foreign form before it is a principle: its words, and where they stand."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from preceptor.constitution.principle import Example

WORDS_OF_AN_ID = 5
_NO_SLUG = re.compile(r"[^a-z0-9]+")
_PASSING = frozenset(
    {
        "a",
        "an",
        "and",
        "be",
        "choose",
        "of",
        "or",
        "please",
        "reply",
        "response",
        "should",
        "that",
        "the",
        "to",
        "which",
    }
)
"""Words that tell no principle from another."""


class DraftPrinciple(NamedTuple):
    """A principle as it was found."""

    text: str
    id: str = ""
    """As its own form names it; empty: it has no name there."""
    critique: str = ""
    revision: str = ""
    weight: float = 1.0
    tags: tuple[str, ...] = ()
    origin: str = ""
    """The words from which it was made; empty: its own text."""
    line: int = 0
    """1-based, of those words; 0: not known."""
    examples: tuple[Example, ...] = ()


class FoundPrinciples(NamedTuple):
    """What a form holds."""

    drafts: tuple[DraftPrinciple, ...]
    set_aside: dict[str, int]
    """Why something was left out -> how often."""


def one_line(text: str) -> str:
    """The text without line breaks and runs of white space."""
    return " ".join(text.split())


def slug(text: str) -> str:
    """`[a-z0-9-]+` of a text's telling words; `principle` where it has none."""
    words = _NO_SLUG.sub(" ", text.lower()).split()
    telling = [word for word in words if word not in _PASSING] or words
    return "-".join(telling[:WORDS_OF_AN_ID]) or "principle"


def named(drafts: Iterable[DraftPrinciple]) -> list[tuple[str, DraftPrinciple]]:
    """Each with an id of its own: its name in its form, else its telling words, and a number where that is taken."""
    taken: set[str] = set()
    found = []
    for draft in drafts:
        wanted = _NO_SLUG.sub("-", draft.id.lower()).strip("-") or slug(draft.text)
        name, number = wanted, 2
        while name in taken:
            name, number = f"{wanted}-{number}", number + 1
        taken.add(name)
        found.append((name, draft))
    return found


def fields(name: str, draft: DraftPrinciple) -> dict[str, Any]:
    """As a constitution file has them, without what is empty."""
    values = {
        "id": name,
        "text": draft.text.strip(),
        "critique": draft.critique.strip(),
        "revision": draft.revision.strip(),
        "weight": draft.weight if draft.weight != 1 else None,
        "tags": list(draft.tags),
        "examples": [one.model_dump(exclude_defaults=True) for one in draft.examples],
    }
    return {key: value for key, value in values.items() if value not in ("", None, [])}
