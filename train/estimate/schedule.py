"""Which passes a training consists of: how many, what they weigh in time, and which takes most memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from preceptor.train.data.batching import grouped_batches, passes
from preceptor.train.data.collate_pairs import batch_fields, collate_pairs
from preceptor.train.estimate.timing import Sample, Stratum, strata_of
from preceptor.train.forward.reply_logprobs import PairRow, row_tokens

SCORE_BYTES = 16
"""Rough bytes of the mask and what it is made of, for each pair of places in a row."""
STRATA = 6
"""Of passes, one of each of which is timed."""
KEPT_FLOATS = 25
"""Rough numbers a layer keeps of a token for the backward pass, in widths of the model: to choose a pass by."""


class HeavyPass(NamedTuple):
    """A pass that may be the one that takes most."""

    step: int
    """Number of its step, from 0."""
    inputs: Mapping[str, Tensor]
    later: bool
    """Not the first of its step: gradients are there already."""
    weight: float
    """By `pass_weight`."""


class StepSchedule(NamedTuple):
    """Which passes a training consists of."""

    steps: int
    rows: int
    tokens: int
    """Of the rows, once."""
    heavy: tuple[HeavyPass, ...]
    strata: tuple[Stratum, ...]
    """All passes of all steps, by what they weigh."""
    around: float = 0.0
    """What the passes weigh that are gone through without gradients, before and after the steps."""
    held_out: float = 0.0
    """What one measurement on held-out rows weighs."""


def total_steps(batches: int, epochs: float) -> int:
    """Steps of a training, as transformers' Trainer counts them."""
    return math.ceil(epochs * max(batches, 1))


def saved_steps(steps: int, every: int) -> list[int]:
    """After which steps a checkpoint is written, or a guard looks: every so many, and the last."""
    return sorted({*range(every, steps + 1, every), steps})


def pair_schedule(
    pairs: Sequence[PairRow],
    config: Any,
    pass_tokens: int,
    shared: bool,
    *,
    batch_size: int,
    epochs: float,
    seed: int,
    collate: Callable[[Sequence[Any], Sequence[int], int, bool], Any] = collate_pairs,
) -> StepSchedule:
    """The schedule of a training on pairs: steps and passes are those that `PairTrainer` will make of the same
    `collate`."""
    tokens = [pair.tokens for pair in pairs]
    lengths = row_tokens(pairs, shared)
    batches = -(-len(pairs) // batch_size)
    steps = total_steps(batches, epochs)
    text = config.get_text_config()
    kept = 4 * KEPT_FLOATS * text.hidden_size * text.num_hidden_layers
    heaviest: dict[bool, tuple[float, int, list[int]]] = {}
    every: list[list[int]] = []
    for step in range(steps):
        if step % batches == 0:
            epoch = grouped_batches(tokens, batch_size, seed, step // batches)
        batch = epoch[step % batches]
        for number, part in enumerate(passes([lengths[at] for at in batch], pass_tokens)):
            rows = [batch[at] for at in part]
            places = lengths[rows[0]] * len(rows)
            taken = places * (kept + SCORE_BYTES * (lengths[rows[0]] if shared else lengths[rows[0]] // 2))
            if taken > heaviest.get(number > 0, (0.0,))[0]:
                heaviest[number > 0] = (taken, step, rows)
            every.append(rows)

    def weight(rows: Sequence[int]) -> float:
        return _pairs_weight(len(rows), lengths[rows[0]], config, shared)

    def sample(number: int) -> Sample:
        rows = every[number]
        return Sample(
            len(rows),
            lambda some: batch_fields(collate([pairs[at] for at in rows[:some]], rows[:some], 0, shared)),
            lambda some: weight(rows[:some]),
        )

    longest, shortest = max(pairs, key=lambda pair: pair.tokens), min(pairs, key=lambda pair: pair.tokens)
    asked = _pairs_weight(2, 2 * longest.length, config, False) + _pairs_weight(
        2, longest.tokens, config, True
    )
    return StepSchedule(
        steps=steps,
        rows=len(pairs),
        tokens=sum(tokens),
        heavy=tuple(
            HeavyPass(
                step,
                batch_fields(collate([pairs[at] for at in rows], range(len(rows)), 0, shared)),
                later,
                weight(rows),
            )
            for later, (_, step, rows) in sorted(heaviest.items())
        ),
        strata=strata_of([weight(rows) for rows in every], sample, STRATA),
        around=asked + _pairs_weight(1, 2 * shortest.length, config, False),  # `train.forward.layout_check`
    )


def pass_weight(rows: int, width: int, config: Any) -> float:
    """What a pass weighs in time, of rows of so many tokens: places, each by its layers and by what it attends to."""
    return float(rows * width * (6 * config.get_text_config().hidden_size + width))


def _pairs_weight(pairs: int, tokens: int, config: Any, shared: bool) -> float:
    return pass_weight(pairs, tokens, config) if shared else pass_weight(2 * pairs, tokens // 2, config)


def read_weight(pairs: Sequence[PairRow], config: Any, budget: int, shared: bool) -> float:
    """What all passes weigh in which pairs are read once."""
    lengths = row_tokens(pairs, shared)
    return sum(_pairs_weight(len(part), lengths[part[0]], config, shared) for part in passes(lengths, budget))


def row_schedule(
    lengths: Sequence[int],
    epochs: float,
    config: Any,
    batches: Sequence[Sequence[int]],
    shapes: Callable[[Sequence[int]], Mapping[str, Tensor]],
) -> StepSchedule:
    """The schedule of a training that puts a whole step through the model at once.

    `lengths` of the rows, `batches` of row numbers in the order of their steps; `shapes` makes tensors as
    TRL's batch of some rows has them.
    """
    steps = total_steps(len(batches), epochs)

    def weight(batch: Sequence[int]) -> float:
        return pass_weight(len(batch), max(lengths[at] for at in batch), config)

    def sample(step: int) -> Sample:
        batch = batches[step % len(batches)]
        return Sample(len(batch), lambda some: shapes(batch[:some]), lambda some: weight(batch[:some]))

    weights = [weight(batch) for batch in batches]
    places = [max(lengths[at] for at in batch) * len(batch) for batch in batches]
    heaviest = max(range(len(batches)), key=lambda number: places[number])
    return StepSchedule(
        steps=steps,
        rows=len(lengths),
        tokens=sum(lengths),
        heavy=(HeavyPass(heaviest, shapes(batches[heaviest]), False, weights[heaviest]),),
        strata=strata_of([weights[step % len(batches)] for step in range(steps)], sample, STRATA),
    )
