"""Prompts to learn from and prompts held out, of which none is near another on the other side."""

from __future__ import annotations

import random
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import Any, Literal, NamedTuple

from preceptor.prompts.errors import RowsError
from preceptor.prompts.near import NearIndex, plain, said
from preceptor.prompts.records import Prompt
from preceptor.prompts.seen import SeenIds

SplitBy = Literal["group", "tag", "time"]
"""What decides which groups are held out: chance; chance, with the same share of every set of tags; or the latest."""


class SplitColumns(NamedTuple):
    """Columns of the file that say more than the prompts themselves."""

    conversation: str | None = None
    """Prompts with one value of it stay together."""
    time: str | None = None
    """When the prompt was written: ISO 8601, or a number that grows."""


class GroupSplit(NamedTuple):
    """Which prompts are held out, and how they hang together."""

    held_out: tuple[bool, ...]
    """Of each prompt, in the order of the file."""
    groups: int
    largest: int
    """Prompts in the largest group."""


def sides(
    prompts: Iterable[Prompt], share: float, by: SplitBy, threshold: float, seed: int, columns: SplitColumns
) -> GroupSplit:
    """Divide by whole groups. Of one group are prompts that are near, that begin with the same message of the user, or
    that have one value of the conversation's column; and those that hang together through others.

    share: of the prompts, to be held out; a group that would go beyond it stays with the training prompts. Raises
    RowsError where one of the sides would be empty, or a row lacks a column that is named.
    """
    if not 0 < share < 1:
        raise RowsError(f"held-out share is {share}; wanted a number between 0 and 1")
    if by == "time" and columns.time is None:
        raise RowsError("a split by time needs the column that holds it; name it with --time COLUMN")
    roots, strata, times = array("L"), list[tuple[str, ...]](), array("d")
    with NearIndex(threshold) as index:
        texts, ties, added = SeenIds(), SeenIds(), array("L")
        for number, prompt in enumerate(prompts):
            roots.append(number)
            strata.append(tuple(sorted(prompt.tags)) if by == "tag" else ())
            times.append(_time(prompt, str(columns.time)) if by == "time" else 0.0)
            for tie in _ties(prompt, columns.conversation):
                _join(roots, number, ties.add(tie, number))
            text = said(prompt)
            twin = texts.add(text, number)
            _join(roots, number, twin)
            if twin is None:  # of equal texts one is enough
                sketch = index.sketch(text)
                for near in index.near(sketch):
                    _join(roots, number, added[near.number])
                index.add(sketch)
                added.append(number)
    return _divided([_root(roots, number) for number in range(len(roots))], strata, times, share, by, seed)


def _ties(prompt: Prompt, conversation: str | None) -> tuple[str, ...]:
    """What ties a prompt to others beside its likeness."""
    first = next(one.content for one in prompt.messages if one.role == "user")
    begins = f"begins {plain(first)}"
    if conversation is None:
        return (begins,)
    return begins, f"column {_column(prompt, conversation)!r}"


def _column(prompt: Prompt, name: str) -> Any:
    value = prompt.meta.get(name)
    if value is None:
        raise RowsError(f"prompt {prompt.id!r} has no {name!r}; wanted that column in every row")
    return value


def _time(prompt: Prompt, name: str) -> float:
    value = _column(prompt, name)
    wanted = "wanted a time such as 2026-01-31T12:00:00Z, or a number"
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise RowsError(f"prompt {prompt.id!r}: {name} is {value[:60]!r}; {wanted}") from None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value):
        return float(value)
    raise RowsError(f"prompt {prompt.id!r}: {name} is {value!r:.60}; {wanted}")


def _root(roots: array[int], number: int) -> int:
    while roots[number] != number:
        roots[number] = roots[roots[number]]
        number = roots[number]
    return number


def _join(roots: array[int], one: int, other: int | None) -> None:
    if other is not None:
        low, high = sorted((_root(roots, one), _root(roots, other)))
        roots[high] = low


def _divided(
    groups: Sequence[int],
    strata: Sequence[tuple[str, ...]],
    times: Sequence[float],
    share: float,
    by: SplitBy,
    seed: int,
) -> GroupSplit:
    """groups: of each prompt the number of its group's first prompt, whose tags are the group's."""
    sizes = Counter(groups)
    latest: dict[int, float] = {}
    for group, time in zip(groups, times, strict=True):
        latest[group] = max(time, latest.get(group, time))
    chosen: set[int] = set()
    for members in _by_stratum(sizes, strata).values():
        room = round(share * sum(sizes[group] for group in members))
        random.Random(f"{seed}:{strata[members[0]]}").shuffle(members)
        members.sort(key=lambda group: -latest[group])  # all alike, but by time
        for group in members:
            if sizes[group] <= room:
                chosen.add(group)
                room -= sizes[group]
            elif by == "time":
                break  # what is held out begins at one moment
    held_out = tuple(group in chosen for group in groups)
    if not any(held_out):
        raise RowsError(
            f"no group of {len(groups)} prompts in {len(sizes)} groups fits into a held-out share of {share} (the "
            f"largest has {max(sizes.values(), default=0)}); wanted a larger share, a higher threshold or more prompts"
        )
    if all(held_out):
        raise RowsError(
            f"all {len(groups)} prompts would be held out; wanted a smaller share or more prompts"
        )
    return GroupSplit(held_out, len(sizes), max(sizes.values()))


def _by_stratum(groups: Iterable[int], strata: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], list[int]]:
    found = defaultdict[tuple[str, ...], list[int]](list)
    for group in groups:
        found[strata[group]].append(group)
    return found
