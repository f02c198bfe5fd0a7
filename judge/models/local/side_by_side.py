"""Two replies read side by side: neither comes first, and neither sees the other.

    row         conversation | reply x | reply y | name of x | name of y | question
    positions   0 1 ... n      n+1 ...   n+1 ...   behind the longer       behind the names
    sees                       n         n         x           y           everything

Both replies begin at the same position. The name by which a reply is called stands behind it at the same position as
the other's, so that a question which sees everything meets nothing that says which of the two lies first in memory.
Each question is asked twice: x is called A and y B, then the other way round. What a model thinks of the letters
themselves cancels out (`evened`). Conversation and replies are read once for both ways and for all questions about the
pair; asked in both orders they are read twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from preceptor.judge.models.local.branch_mask import TRUNK, WIDEST, RowPart

X, Y = 1, 2
"""Parts of a row: the two replies."""

Tokens = tuple[int, ...]


class SidePrompt(NamedTuple):
    """A question about two replies, with one way of calling them."""

    before: Tokens
    """The conversation, and what the judge is told of its task."""
    replies: tuple[Tokens, Tokens]
    names: tuple[Tokens, Tokens]
    """What stands behind each reply to say how it is called."""
    after: Tokens
    """The question, at least one token."""

    @property
    def depth(self) -> int:
        """Positions."""
        longest = max(map(len, self.replies)) + max(map(len, self.names))
        return len(self.before) + longest + len(self.after)


class SideRow(NamedTuple):
    """Questions about one pair."""

    parts: tuple[RowPart, ...]
    ways: tuple[tuple[int, tuple[int, ...]], ...]
    """(prompt, the part that holds its question)."""

    @property
    def size(self) -> int:
        """Tokens."""
        return sum(len(part.tokens) for part in self.parts)


def side_rows(prompts: Sequence[SidePrompt]) -> list[SideRow]:
    """Prompts -> rows, longest first; those about one pair lie together, up to `WIDEST` times the longest of them.

    The reply whose tokens are smaller is x, and questions lie in the order of their tokens: a pair whose replies are
    exchanged is the same row, to the bit.
    """
    about: dict[tuple[Tokens, Tokens, Tokens], list[int]] = {}
    turned = [_sorted(prompt) for prompt in prompts]
    for number, prompt in enumerate(turned):
        about.setdefault((prompt.before, *prompt.replies), []).append(number)
    rows: list[SideRow] = []
    for (before, x, y), numbers in about.items():
        numbers.sort(key=lambda number: (turned[number].after, turned[number].names, number))
        room = WIDEST * max(turned[number].depth for number in numbers)
        some: list[int] = []
        size = shared = len(before) + len(x) + len(y)
        for number in numbers:
            more = len(turned[number].after) + sum(map(len, turned[number].names))
            if some and size + more > room:
                rows.append(_row(turned, some))
                some, size = [], shared
            some.append(number)
            size += more
        rows.append(_row(turned, some))
    return sorted(rows, key=lambda row: -row.size)


def _sorted(prompt: SidePrompt) -> SidePrompt:
    """With the reply of smaller tokens first."""
    if prompt.replies[0] <= prompt.replies[1]:
        return prompt
    return prompt._replace(replies=prompt.replies[::-1], names=prompt.names[::-1])


def _row(prompts: Sequence[SidePrompt], numbers: Sequence[int]) -> SideRow:
    before, replies, _, _ = prompts[numbers[0]]
    behind = len(before) + max(map(len, replies))
    parts = [RowPart(before, 0, ()), *(RowPart(reply, len(before), (TRUNK,)) for reply in replies)]
    named: dict[tuple[int, Tokens], int] = {}
    ways = []
    for number in numbers:
        names, after = prompts[number].names, prompts[number].after
        for reply, name in zip((X, Y), names, strict=True):
            if (reply, name) not in named:
                named[reply, name] = len(parts)
                parts.append(RowPart(name, behind, (TRUNK, reply)))
        own = tuple(named[reply, name] for reply, name in zip((X, Y), names, strict=True))
        ways.append((number, (len(parts),)))
        parts.append(RowPart(after, behind + max(map(len, names)), (TRUNK, X, Y, *own)))
    return SideRow(tuple(parts), tuple(ways))


def evened(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """Letter -> probability, from what is said where the first reply is called A, and where it is called B.

    one, other: letter -> logit or log-probability, each up to a constant of its own. The log-odds of the two ways are
    averaged with the letters of the second exchanged: a leaning towards a letter is in both with opposite signs. What
    comes out speaks of the first reply as `a`, and of the second as `b`.
    """
    exchanged = {"a": "b", "b": "a"}
    scores = {letter: (score + other[exchanged.get(letter, letter)]) / 2 for letter, score in one.items()}
    most = max(scores.values())
    parts = {letter: math.exp(score - most) for letter, score in scores.items()}
    total = math.fsum(parts.values())  # in any order of the letters the same
    return {letter: part / total for letter, part in parts.items()}
