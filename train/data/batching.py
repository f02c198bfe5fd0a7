"""Which pairs go through the model together: into a step by chance and length, into a pass by tokens.

A step of the optimiser always takes `batch_size` pairs, whatever the memory. They go through the model in one
pass or several, each filled up to a budget of tokens, and their gradients are added: how a step is cut into
passes changes nothing but rounding.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TypeVar

from torch.utils.data import Sampler

EVALUATED = 512
"""Most held-out pairs that a checkpoint is measured on."""
ItemT = TypeVar("ItemT")

GROUP_BATCHES = 8
"""Batches are cut from runs of this many batches sorted by length: less padding, and still a shuffle."""


def grouped_batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Batches of row numbers: shuffled by `seed` and `epoch`, with rows of like length together.

    Every row is in exactly one batch, and every batch but one holds `batch_size` rows, so that the number of
    batches is the same in every epoch. Depends on nothing else, which is what makes a resumed run equal to an
    unbroken one.
    """
    draw = random.Random(f"{seed}:{epoch}")
    order = list(range(len(lengths)))
    draw.shuffle(order)
    run = batch_size * GROUP_BATCHES
    batches: list[list[int]] = []
    for start in range(0, len(order), run):
        group = sorted(order[start : start + run], key=lambda row: (-lengths[row], row))
        batches += [group[at : at + batch_size] for at in range(0, len(group), batch_size)]
    draw.shuffle(batches)
    return batches


def passes(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Row numbers in passes, longest rows first, none of more than `budget` tokens with its padding.

    A row that is longer than the budget goes alone.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    found: list[list[int]] = []
    for row in order:
        if found and lengths[found[-1][0]] * (len(found[-1]) + 1) <= budget:
            found[-1].append(row)
        else:
            found.append([row])
    return found


def evenly(rows: Sequence[ItemT], most: int) -> Sequence[ItemT]:
    """At most `most` rows, evenly from all."""
    return rows[:: max(1, -(-len(rows) // most))]


class GroupedBatches(Sampler[list[int]]):
    """`grouped_batches` as torch's DataLoader and transformers' Trainer ask for them."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = tuple(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self.drop_last = False

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        return iter(grouped_batches(self.lengths, self.batch_size, self.seed, self.epoch))

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)
