"""What a training will take, told before any weights are loaded: steps, memory, disk and time.

steps      counted, from the rows and their tokens
memory     the heaviest pass of all steps is gone through with tensors that have no values (`train.sketch`);
           beside it stand the weights, the adapter, and AdamW's two moments. Tensors are counted: what the
           process takes beside them (Python, libraries, kernels' own scratch) is not
disk       of the output folder with its checkpoints, as many as there are for a moment while one is written
time       of the steps and of reading rows without gradients, from three short measurements on this very
           machine: a matrix product, a sum of two tensors, and tiny operations that cost their call alone
           (`train.speed`). No more than an estimate: right to a factor of about three

Gradient checkpointing, where nothing was said about it, is switched on where the memory would not do without.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from constitution.errors import UserError
from train.batches import grouped_batches, passes
from train.layout import batch_fields, collate_pairs
from train.logprobs import row_tokens
from train.loop import load_dtype, pass_tokens
from train.memory import available_bytes, held_bytes
from train.pairs import PairTokens
from train.roles import training_device
from train.settings import LoopSettings
from train.sketch import Given, Prepare, Sketch, Work, adapted_skeleton, skeleton_of, sketch_passes
from train.speed import Speed, measured_speed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from train.roles import Base

TENSOR_BYTES = 128
"""Of a tensor's name and place in a safetensors file."""
OPTIMIZER_TENSOR_BYTES = 824
"""Of a parameter in an optimizer's file beside its two moments."""
CHECKPOINT_BYTES = 28_000
"""Of a checkpoint's other files: random states, schedule, PEFT's card and config."""
RESULT_BYTES = 12_000
"""Of the result's other files: PEFT's card and config, manifest, settings."""
CARD_BYTES = 55_000
"""Of a reward model's report card with its page, which is larger the more tags and principles there are."""
STATE_STEP_BYTES, METRICS_STEP_BYTES = 400, 280
"""Of a step in a checkpoint's state, and in metrics.jsonl."""
SCORE_BYTES = 16
"""Rough bytes of the mask and what it is made of, for each pair of places in a row."""
KEPT_FLOATS = 25
"""Rough numbers a layer keeps of a token for the backward pass, in widths of the model: to choose a pass by."""


class Heavy(NamedTuple):
    """A pass that may be the one that takes most."""

    step: int
    """Number of its step, from 0."""
    inputs: Mapping[str, Tensor]
    later: bool
    """Not the first of its step: gradients are there already."""
    places: int
    """Tokens, padding included."""


class Course(NamedTuple):
    """Which passes a training consists of."""

    steps: int
    rows: int
    tokens: int
    """Of the rows, once."""
    passes: int
    places: int
    """Tokens that go through the model in all passes, padding included."""
    heavy: tuple[Heavy, ...]
    read_places: int = 0
    """The same of what is read without gradients: by the reference, for the report card."""
    read_passes: int = 0


class Plan(NamedTuple):
    """What a training is predicted to take; None where it cannot be told."""

    stage: str
    steps: int
    rows: int
    tokens: int
    """Of the rows that are trained on, once."""
    memory_bytes: int | None
    """Most that is alive in tensors at a time."""
    memory: dict[str, int]
    """The same by part, in bytes."""
    available_bytes: int | None
    """What could be had when the plan was made; None where the system does not say."""
    disk_bytes: int | None
    """Most that the output folder holds at a time."""
    kept_bytes: int | None
    """What stays of it."""
    time_s: float | None
    """Of the steps, and of what is read without gradients around them."""
    gradient_checkpointing: bool
    heaviest_step: int | None
    """Number of the step that takes most memory, from 0."""
    two_rows: str
    """Why each reply is planned in a row of its own; empty where the prompt of a pair is shared."""
    notes: tuple[str, ...]
    """What was decided, and what will not do."""

    def figures(self) -> dict[str, Any]:
        """For the manifest, and for --json."""
        return {**self._asdict(), "notes": list(self.notes)}


class _Sketched(NamedTuple):
    course: Course
    sketch: Sketch | None
    """None for a model that cannot be gone through without values."""
    heavy: Heavy | None
    reason: str
    """Why the prompt of a pair is not shared, or there is no sketch."""

    @property
    def memory_bytes(self) -> int | None:
        return None if self.sketch is None else sum(_memory(self.sketch).values())


class Job(NamedTuple):
    """A stage, as its planner sees it."""

    stage: str
    settings: LoopSettings
    prepare: Prepare
    frozen_reference: bool = False
    on_top: bool = False
    on_cpu: bool = False
    """Its loss can only be gone through without values on a CPU: TRL's kernels for GPUs cannot."""
    checkpoints_tokenizer: bool = False
    """TRL writes the tokenizer into every checkpoint."""
    adapters_saved: int = 1
    """Adapters that a checkpoint holds."""


def plan_pairs(job: Job, base: Base, pairs: Sequence[PairTokens], read: Sequence[PairTokens] = ()) -> Plan:
    """What a training on pairs takes, `read` read once without gradients; else as `plan_training`."""
    budget = pass_tokens(job.settings, training_device())

    def course(shared: bool) -> Course:
        return pair_course(pairs, job.settings, base.model.config, budget, shared, read)

    return plan_training(job, base, course)


def plan_training(job: Job, base: Base, course: Callable[[bool], Course]) -> Plan:
    """What a training takes.

    `base` is a skeleton or a loaded model, of which config and tokenizer alone are used; `course` gives the
    passes where the prompt of a pair is shared, and where not. A model that cannot be gone through without
    values has no figure but its steps, and a note that says why.
    """
    settings = job.settings
    dtype, device = load_dtype(settings.precision), training_device()
    available = available_bytes(device)
    if available is not None and device.type == "cpu":
        available += held_bytes(tensor for tensor in base.model.parameters() if not tensor.is_meta)
    wanted = settings.gradient_checkpointing
    found = _sketched(job, base, course, bool(wanted))
    notes: tuple[str, ...] = ()
    peak = found.memory_bytes
    if wanted is None and peak is not None and available is not None and peak > available:
        wanted = True
        found = _sketched(job, base, course, True)
        notes = (
            f"gradient checkpointing is on: without it {_mib(peak)} would be needed, and {_mib(available)} "
            "can be had",
        )
        peak = found.memory_bytes
    if peak is not None and available is not None and peak > available:
        notes += (
            f"{_mib(peak)} are needed and {_mib(available)} can be had: a smaller --max-length, --pass-tokens "
            "or --batch-size takes less",
        )
    if found.sketch is None:
        notes += (f"memory, disk and time cannot be foretold of this model: {found.reason}",)
    speed = measured_speed(device, base.model.config.get_text_config().hidden_size, dtype)
    disk = _disk(job, found, tokenizer_bytes(base.tokenizer))
    return Plan(
        stage=job.stage,
        steps=found.course.steps,
        rows=found.course.rows,
        tokens=found.course.tokens,
        memory_bytes=peak,
        memory={} if found.sketch is None else _memory(found.sketch),
        available_bytes=available,
        disk_bytes=disk and disk[0],
        kept_bytes=disk and disk[1],
        time_s=_time_s(found, speed),
        gradient_checkpointing=bool(wanted),
        heaviest_step=found.heavy and found.heavy.step,
        two_rows=found.reason if found.sketch is not None else "",
        notes=notes,
    )


def _sketched(job: Job, base: Base, course: Callable[[bool], Course], checkpointing: bool) -> _Sketched:
    """The course, its heaviest pass and what that takes; pairs in two rows where the model takes no mask of
    ours."""
    dtype = load_dtype(job.settings.precision)
    where = torch.device("cpu") if job.on_cpu else training_device()
    reason = ""
    for shared in (True,) if job.on_cpu else (True, False):
        chosen = course(shared)
        given = [Given(heavy.inputs, heavy.later) for heavy in chosen.heavy]
        half = dtype == torch.bfloat16
        try:
            bare = skeleton_of(base, dtype)
            adapted = adapted_skeleton(bare, job.settings, job.frozen_reference, job.on_top)
            found = sketch_passes(adapted, job.prepare, given, where, bf16=half, checkpointing=checkpointing)
        except UserError:
            raise
        except Exception as error:  # whatever an architecture asks of values: then no figure, and the reason
            reason = reason or (str(error).strip() or type(error).__name__).splitlines()[0]
            continue
        most = max(range(len(found)), key=lambda number: found[number].pass_bytes)
        return _Sketched(chosen, found[most], chosen.heavy[most], reason)
    return _Sketched(chosen, None, None, reason)


def settled(settings: Any, plan: Plan) -> Any:
    """The settings, with what the plan decided where nothing was said."""
    if settings.gradient_checkpointing is not None:
        return settings
    return settings.model_copy(update={"gradient_checkpointing": plan.gradient_checkpointing})


def total_steps(batches: int, epochs: float) -> int:
    """Steps of a training, as transformers' Trainer counts them."""
    return math.ceil(epochs * max(batches, 1))


def pair_course(
    pairs: Sequence[PairTokens],
    settings: LoopSettings,
    config: Any,
    pass_tokens: int,
    shared: bool,
    read: Sequence[PairTokens] = (),
) -> Course:
    """The course of a training on pairs; `read` are those that are read once without gradients.

    The steps and their passes are those that `PairTrainer` will make.
    """
    tokens = [pair.tokens for pair in pairs]
    lengths = row_tokens(pairs, shared)
    batches = -(-len(pairs) // settings.batch_size)
    steps = total_steps(batches, settings.epochs)
    text = config.get_text_config()
    kept = 4 * KEPT_FLOATS * text.hidden_size * text.num_hidden_layers
    seen = [0, 0]
    heaviest: dict[bool, tuple[float, int, list[int]]] = {}
    for step in range(steps):
        if step % batches == 0:
            epoch = grouped_batches(tokens, settings.batch_size, settings.seed, step // batches)
        batch = epoch[step % batches]
        for number, part in enumerate(passes([lengths[at] for at in batch], pass_tokens)):
            rows = [batch[at] for at in part]
            width = lengths[rows[0]]
            width_of_row = width if shared else width // 2
            places = width * len(rows)
            weight = places * (kept + SCORE_BYTES * width_of_row)
            if weight > heaviest.get(number > 0, (0.0,))[0]:
                heaviest[number > 0] = (weight, step, rows)
            seen = [seen[0] + 1, seen[1] + places]
    read_parts = passes(row_tokens(read, shared), pass_tokens)
    read_lengths = row_tokens(read, shared)
    return Course(
        steps=steps,
        rows=len(pairs),
        tokens=sum(tokens),
        passes=seen[0],
        places=seen[1],
        heavy=tuple(
            _heavy_pairs(step, [pairs[at] for at in rows], shared, later)
            for later, (_, step, rows) in sorted(heaviest.items())
        ),
        read_places=sum(read_lengths[part[0]] * len(part) for part in read_parts),
        read_passes=len(read_parts),
    )


def _heavy_pairs(step: int, rows: Sequence[PairTokens], shared: bool, later: bool) -> Heavy:
    batch = collate_pairs(rows, range(len(rows)), 0, shared)
    return Heavy(step, batch_fields(batch), later, batch.input_ids.numel())


def row_course(
    lengths: Sequence[int],
    settings: LoopSettings,
    batches: Sequence[Sequence[int]],
    shapes: Callable[[Sequence[int]], Mapping[str, Tensor]],
) -> Course:
    """The course of a training that puts a whole step through the model at once.

    `lengths` of the rows, `batches` of row numbers in the order of their steps; `shapes` makes tensors as
    TRL's batch of some rows has them.
    """
    steps = total_steps(len(batches), settings.epochs)
    places = [max(lengths[at] for at in batch) * len(batch) for batch in batches]
    heaviest = max(range(len(batches)), key=lambda number: places[number])
    inputs = shapes(batches[heaviest])
    total = sum(places[step % len(batches)] for step in range(steps))
    return Course(
        steps=steps,
        rows=len(lengths),
        tokens=sum(lengths),
        passes=steps,
        places=total,
        heavy=(Heavy(heaviest, inputs, False, places[heaviest]),),
    )


def _memory(sketch: Sketch) -> dict[str, int]:
    return {
        "weights": sketch.frozen_bytes,
        "adapter": sketch.trained_bytes,
        "optimizer": 2 * 4 * sketch.trained_numbers + 4 * sketch.trained_tensors,
        "pass": sketch.pass_bytes,
    }


def _disk(job: Job, found: _Sketched, tokenizer_bytes: int) -> tuple[int, int] | None:
    """Bytes of the output folder at its fullest, and of what stays.

    A new checkpoint is written before the oldest is removed, and the result while the last ones are there.
    """
    sketch, steps = found.sketch, found.course.steps
    if sketch is None:
        return None
    every = job.settings.checkpoint_every
    adapter = 4 * sketch.trained_numbers + TENSOR_BYTES * sketch.trained_tensors
    optimizer = 8 * sketch.trained_numbers + OPTIMIZER_TENSOR_BYTES * sketch.trained_tensors
    one = job.adapters_saved * adapter + optimizer + CHECKPOINT_BYTES
    one += tokenizer_bytes if job.checkpoints_tokenizer else 0
    at_steps = sorted({*range(every, steps + 1, every), steps})
    sizes = [one + STATE_STEP_BYTES * step for step in at_steps]
    metrics = METRICS_STEP_BYTES * steps
    kept = adapter + tokenizer_bytes + RESULT_BYTES + metrics
    kept += CARD_BYTES if job.stage == "reward" else 0
    beside = job.settings.keep_checkpoints + bool(getattr(job.settings, "held_out", 0.0))
    fullest = max(sum(sizes[-beside - 1 :]) + metrics, sum(sizes[-beside:]) + kept)
    return fullest, kept


def tokenizer_bytes(tokenizer: PreTrainedTokenizerBase) -> int:
    """Of its files, which are written to a folder of the system's and removed: no config says it."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def _time_s(found: _Sketched, speed: Speed) -> float | None:
    """Work that grows with the places is taken from the sketched pass; operations are the same in every pass."""
    course, sketch, heavy = found.course, found.sketch, found.heavy
    if sketch is None or heavy is None:
        return None

    def of(work: Work, places: int, passes: int) -> float:
        share = places / heavy.places
        return speed.seconds(Work(work.flops * share, work.moved_bytes * share, work.operations * passes))

    both = of(sketch.both, course.places, course.passes)
    return both + of(sketch.forward, course.read_places, course.read_passes)


def _mib(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"
