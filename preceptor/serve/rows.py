"""The rows of a request, read as a file's rows are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from preceptor.judge.pairs import groups_in, pairs_of
from preceptor.judge.records import Group, Pair
from preceptor.judge.score import ReplyToScore
from preceptor.judge.singles import singles_of
from preceptor.prompts.rows import RawRow
from preceptor.serve.config import ServeLimits
from preceptor.serve.problems import Problem

ITEMS = "items"
"""What faults call the rows of a request."""
Item = Mapping[str, Any]


def replies_in(items: Sequence[Item], limits: ServeLimits) -> list[ReplyToScore]:
    """Rows with `prompt` or `messages`, `response`, and where they have them `id` and `tags`.

    Raises RowsError, Problem.
    """
    rows = list(singles_of(_raw(items, limits), ITEMS))
    for row in rows:
        bounded([row.text, *(turn.content for turn in row.prompt.messages)], limits)
    return rows


def pairs_in_request(items: Sequence[Item], limits: ServeLimits) -> list[Pair]:
    """Rows as `preceptor label` reads them, in its own columns. Raises RowsError, Problem."""
    rows = list(pairs_of(_raw(items, limits), ITEMS))
    for row in rows:
        bounded([row.response_a, row.response_b, *(turn.content for turn in row.prompt.messages)], limits)
    return rows


def groups_in_request(items: Sequence[Item], limits: ServeLimits) -> list[Group]:
    """Rows with `responses`, as `preceptor label --groups` reads them. Raises RowsError, Problem."""
    rows = list(groups_in(_raw(items, limits), ITEMS))
    for row in rows:
        counted(row.responses, limits)
        bounded([*row.responses, *(turn.content for turn in row.prompt.messages)], limits)
    return rows


def counted(items: Sequence[Any], limits: ServeLimits) -> None:
    """Raises Problem where one request has more rows than it may."""
    if len(items) > limits.max_items:
        raise Problem(
            422,
            "too_many_items",
            f"{len(items)} rows came; at most {limits.max_items} a request: send several",
        )


def bounded(texts: Sequence[str], limits: ServeLimits) -> None:
    """Raises Problem where a text is longer than it may be."""
    longest = max(map(len, texts), default=0)
    if longest > limits.max_chars:
        raise Problem(
            422, "too_long", f"a text has {longest} characters; at most {limits.max_chars} are judged here"
        )


def _raw(items: Sequence[Item], limits: ServeLimits) -> Iterator[RawRow]:
    counted(items, limits)
    return (RawRow(ITEMS, number, dict(fields)) for number, fields in enumerate(items, 1))
