"""How long passes take on this machine: a few of the training's own passes are run, with random weights.

The model is built from its config, so that no weights are read: with all its layers where that is quick, else
with one layer and with two, and what the second adds is taken for every further one. The passes of all steps
are put in order of what they weigh (`train.estimate.schedule.pass_weight`) and cut into strata; the middle pass of each
stands for it, seconds a unit of weight. Beside the passes an optimizer's step and the writing of a checkpoint
are timed. Of every figure there is a least, a middle and a largest: of its trials, which is how much the
machine's own unsteadiness, and not the method's fault, makes it vary.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from preceptor.train.estimate.dry_run import ComputeLoss, Prepare, adapted_skeleton, prepared, skeleton_of
from preceptor.train.estimate.random_weights import fill_with_random_weights, layers_of, with_layers
from preceptor.train.models.adapters import save_part
from preceptor.train.models.base import Base

if TYPE_CHECKING:
    from preceptor.train.settings import LoopSettings

BUDGET_S = 1.5
"""Of timing passes in all; what was begun is ended, and one pass of a stratum at least is timed."""
TRIALS = 3
LONGEST_S = 1.0
"""Of a pass of one row through two layers, as predicted by a product of matrices: nothing longer is tried."""
CLIPPED = 1.0
"""Norm that gradients are clipped to, as transformers' Trainer does where nothing is said."""


class Spread(NamedTuple):
    """A figure by its trials."""

    low: float
    middle: float
    high: float

    def times(self, factor: float) -> Spread:
        """This, so many times over; never below 0."""
        return Spread(*(max(factor * value, 0.0) for value in self))


NOTHING = Spread(0.0, 0.0, 0.0)


def sum_of(some: Iterable[Spread]) -> Spread:
    """The sum, as if all were low or high at once."""
    return Spread(*(sum(column) for column in zip(NOTHING, *some, strict=True)))


class Sample(NamedTuple):
    """A pass of the training, of which the first rows can be taken alone."""

    rows: int
    inputs: Callable[[int], Mapping[str, Tensor]]
    weight: Callable[[int], float]
    """Both of so many rows."""


class Stratum(NamedTuple):
    """Passes of about the same weight, and the one that stands for them."""

    total: float
    """What all of them weigh."""
    sample: Sample


class Timing(NamedTuple):
    """What was timed; seconds."""

    rates: tuple[Spread, ...]
    """Of a unit of weight, forward and backward, in each stratum."""
    read: Spread
    """The same of a pass without gradients."""
    step: Spread
    """Of the optimizer."""
    checkpoint: Spread
    """Of writing one."""


class Clocked(NamedTuple):
    """What was timed with so many layers: of each sample its trials, None where there was no time left."""

    passes: list[list[float]]
    read: list[float]
    step: list[float]
    checkpoint: list[float]


def strata_of(weights: Sequence[float], sample: Callable[[int], Sample], count: int) -> tuple[Stratum, ...]:
    """Passes by their weights in at most `count` strata; `sample` makes that of a pass by its number."""
    order = sorted(range(len(weights)), key=lambda number: -weights[number])
    size = -(-len(order) // count)
    cut = [order[at : at + size] for at in range(0, len(order), size)]
    return tuple(
        Stratum(sum(weights[number] for number in part), sample(part[len(part) // 2])) for part in cut
    )


def timed(
    base: Base,
    settings: LoopSettings,
    prepare: Prepare,
    strata: Sequence[Stratum],
    form: Form,
) -> Timing | None:
    """Time the strata's samples; None where not even a pass of one row through two layers would be short."""
    middle = strata[len(strata) // 2].sample
    whole_s = form.seconds(middle.weight(middle.rows))
    layers = layers_of(base.model.config)
    depths = [layers] if 2 * whole_s <= BUDGET_S or layers <= 2 else [1, 2]
    share = max(depths) / layers
    if share * form.seconds(middle.weight(1)) > LONGEST_S:
        return None
    rows = [
        max(1, min(one.sample.rows, int(one.sample.rows * BUDGET_S / (share * whole_s)))) for one in strata
    ]
    found = [
        _clocked(_built(base, settings, prepare, depth, form), strata, rows, form, BUDGET_S / len(depths))
        for depth in depths
    ]
    weights = [one.sample.weight(count) for one, count in zip(strata, rows, strict=True)]
    return _timing([_spreads(one, weights) for one in found], depths, layers)


class Form(NamedTuple):
    """How the model is run."""

    dtype: torch.dtype
    device: torch.device
    frozen_reference: bool
    stacked: bool
    checkpointing: bool
    reads: bool
    """Whether anything is read without gradients."""
    seconds: Callable[[float], float]
    """Roughly, of a pass through all layers by its weight: to choose how much is timed."""

    @property
    def half(self) -> bool:
        """Whether to compute in bfloat16."""
        return self.dtype == torch.bfloat16


def _built(
    base: Base, settings: LoopSettings, prepare: Prepare, layers: int, form: Form
) -> tuple[nn.Module, ComputeLoss, Any]:
    """The adapted model with so many layers and random weights, as `prepare` has it run."""
    bare = skeleton_of(base, form.dtype, with_layers(base.model.config, layers))
    adapted = adapted_skeleton(bare, settings, form.frozen_reference, form.stacked)
    module, run = prepared(adapted, prepare, form.checkpointing)
    fill_with_random_weights(module, form.device)
    return module.train(), run, adapted


def _clocked(
    built: tuple[nn.Module, ComputeLoss, Any],
    strata: Sequence[Stratum],
    rows: Sequence[int],
    form: Form,
    budget_s: float,
) -> Clocked:
    """Time passes, the middle stratum's first, until the budget is spent; then a step and a checkpoint."""
    module, run, adapted = built
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6)

    def go(number: int, rows: int, with_gradients: bool = True) -> float:
        def work() -> None:
            given = strata[number].sample.inputs(rows)
            fields = {key: value.to(form.device) for key, value in given.items()}
            with (
                torch.autocast(form.device.type, dtype=torch.bfloat16, enabled=form.half),
                torch.set_grad_enabled(with_gradients),
            ):
                loss = run(fields)
            if with_gradients:
                loss.backward()  # type: ignore[no-untyped-call]

        return _seconds(work, form.device)

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(trained, CLIPPED)
        optimizer.step()

    middle = len(strata) // 2
    order = [middle, *(number for number in range(len(strata)) if number != middle)]
    go(middle, 1)  # the first one makes plans, and finds room, and is not like the others
    passes: list[list[float]] = [[] for _ in strata]
    read: list[float] = []
    began_s = time.perf_counter()
    for trial in range(TRIALS):
        for number in order:
            if time.perf_counter() - began_s < budget_s or not passes[middle]:
                passes[number].append(go(number, rows[number]))
        if form.reads and (time.perf_counter() - began_s < budget_s or trial == 0):
            read.append(go(middle, rows[middle], with_gradients=False))
    _seconds(update, form.device)
    steps = [_seconds(update, form.device) for _ in range(TRIALS)]
    with tempfile.TemporaryDirectory() as folder:

        def write() -> None:
            save_part(adapted, Path(folder))
            torch.save(optimizer.state_dict(), Path(folder) / "optimizer.pt")

        written = [_seconds(write, form.device) for _ in range(2)]
    return Clocked(passes, read, steps, written)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    began_s = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began_s


def _spread(trials: Sequence[float], by: float = 1.0) -> Spread:
    return Spread(min(trials) / by, statistics.mean(trials) / by, max(trials) / by)


def _spreads(found: Clocked, weights: Sequence[float]) -> Timing:
    """Seconds a unit of weight; a stratum that there was no time for takes after the middle one."""
    middle = len(weights) // 2
    trials = [some or found.passes[middle] for some in found.passes]
    of = [weights[number if some else middle] for number, some in enumerate(found.passes)]
    rates = tuple(_spread(some, weight) for some, weight in zip(trials, of, strict=True))
    return Timing(
        rates, _spread(found.read or [0.0], weights[middle]), _spread(found.step), _spread(found.checkpoint)
    )


def _timing(found: Sequence[Timing], depths: Sequence[int], layers: int) -> Timing:
    """That of all layers, out of those of one and of two where they are not all."""
    if len(found) == 1:
        return found[0]

    def further(one: Spread, two: Spread) -> Spread:
        if not two.middle:
            return two
        middle = one.middle + (layers - depths[0]) * (two.middle - one.middle) / (depths[1] - depths[0])
        middle = max(middle, two.middle)
        share = max(one.high / one.middle, two.high / two.middle)
        least = min(one.low / one.middle, two.low / two.middle)
        return Spread(middle * least, middle, middle * share)

    one, two = found
    return Timing(
        tuple(further(a, b) for a, b in zip(one.rates, two.rates, strict=True)),
        *(further(a, b) for a, b in zip(one[1:], two[1:], strict=True)),
    )
