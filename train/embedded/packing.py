"""Lessons laid end to end in rows of one length, with a mask that keeps lessons and branches apart."""

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from preceptor.train.embedded.lessons import Lesson


class PackedBatch(NamedTuple):
    """One batch. B rows of T tokens."""

    tokens: Tensor  # (B, T) int64
    positions: Tensor  # (B, T) int64, restarting with each lesson, and after the trunk with each branch
    mask: Tensor  # (B, 1, T, T) bool: may the query (dim 2) see the key (dim 3)
    source: Tensor  # (N,) places in the flattened batch whose next token is taught
    target: Tensor  # (N,) the token taught there
    weight: Tensor  # (N,) its weight in the loss


class _Row(NamedTuple):
    tokens: list[int]
    positions: list[int]
    lesson: list[int]  # which lesson of the row; 0 is padding
    branch: list[int]  # which branch of the lesson; 0 is the trunk
    taught: list[tuple[int, int, float]]  # source place, target token, weight


def _append(row: _Row, lesson: Lesson, number: int) -> None:
    """Rows are built here and nowhere else, so this one function writes into its argument."""
    start, depth = len(row.tokens), len(lesson.trunk)
    row.tokens.extend(lesson.trunk)
    row.positions.extend(range(depth))
    row.lesson.extend([number] * lesson.size)
    row.branch.extend([0] * depth)
    for index, (tokens, weights) in enumerate(lesson.branches, start=1):
        place = len(row.tokens)
        for offset, (token, weight) in enumerate(zip(tokens, weights, strict=True)):
            if weight:
                source = place + offset - 1 if offset else start + depth - 1
                row.taught.append((source, token, weight))
        row.tokens.extend(tokens)
        row.positions.extend(range(depth, depth + len(tokens)))
        row.branch.extend([index] * len(tokens))


def _to_rows(rows: list[_Row], length: int, pad: int) -> PackedBatch:
    def table(field: Callable[[_Row], list[int]], fill: int) -> Tensor:
        return torch.tensor([field(r) + [fill] * (length - len(r.tokens)) for r in rows])

    lesson, branch = table(lambda r: r.lesson, 0), table(lambda r: r.branch, 0)
    same_lesson = lesson[:, :, None] == lesson[:, None, :]  # (B, T, T)
    trunk_or_own = (branch[:, None, :] == 0) | (branch[:, :, None] == branch[:, None, :])
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    taught = [(i * length + s, t, w) for i, row in enumerate(rows) for s, t, w in row.taught]
    source, target, weight = zip(*taught, strict=True)
    return PackedBatch(
        tokens=table(lambda r: r.tokens, pad),
        positions=table(lambda r: r.positions, 0),
        mask=(same_lesson & trunk_or_own & causal)[:, None],
        source=torch.tensor(source),
        target=torch.tensor(target),
        weight=torch.tensor(weight),
    )


def batches(
    draw: Callable[[random.Random], Lesson], rng: random.Random, *, rows: int, length: int, pad: int
) -> Iterator[PackedBatch]:
    """Endless batches; a lesson goes to the first row with room, and a full batch leaves."""
    while True:
        batch = [_Row([], [], [], [], []) for _ in range(rows)]
        number = 0
        while True:
            lesson, number = draw(rng), number + 1
            if lesson.size > length:
                continue
            place = next((r for r in batch if len(r.tokens) + lesson.size <= length), None)
            if place is None:
                break
            _append(place, lesson, number)
        yield _to_rows(batch, length, pad)
