"""What a training will take, told before any weights are loaded: steps, memory, disk and time.

steps      counted, from the rows and their tokens
memory     the heaviest pass of all steps is run dry, with tensors that have no values (`train.estimate.dry_run`);
           beside it stand the weights, the adapter, and AdamW's two moments. Tensors are counted: what the
           process takes beside them (Python, libraries, kernels' own scratch) is not
disk       of the output folder with its checkpoints, as many as there are for a moment while one is written
time       from when the weights are loaded to when the result is written, in parts: the steps, measuring on
           held-out rows, checkpoints, and what is read without gradients before and after. Passes of the
           training's own are timed on this very machine for it, with random weights (`train.estimate.timing`); where
           even the least of them would be long, the speed of a matrix product must do (`train.estimate.matmul_speed`),
           and the time is right to a factor of about three

Gradient checkpointing, where nothing was said about it, is switched on where the memory would not do without.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from preceptor.constitution.errors import UserError
from preceptor.train.data.batching import EVALUATED, evenly
from preceptor.train.data.pairs import PairTokens
from preceptor.train.estimate.dry_run import (
    DryRun,
    PassInputs,
    Prepare,
    adapted_skeleton,
    dry_run_passes,
    skeleton_of,
)
from preceptor.train.estimate.matmul_speed import measured_speed
from preceptor.train.estimate.memory import available_bytes, held_bytes
from preceptor.train.estimate.plan_figures import TrainingPlanFigures
from preceptor.train.estimate.random_weights import fill_with_random_weights, with_layers
from preceptor.train.estimate.schedule import HeavyPass, StepSchedule, pair_schedule, read_weight, saved_steps
from preceptor.train.estimate.timing import NOTHING, Form, Spread, Timing, sum_of, timed
from preceptor.train.forward.layout_check import choose_layout
from preceptor.train.models.devices import load_dtype, pass_tokens, training_device
from preceptor.train.settings import LoopSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from preceptor.train.models.base import Base

# What files hold beside their numbers: read off the folders of trainings on 2026-11-21, with torch 2.13.0, transformers
# 5.23.0, peft 0.21.2, trl 1.16.0 and safetensors 0.8.0. tests/train/estimate/test_plan.py holds the disk that is
# planned with them to within 15 % of the disk that is taken, so that versions which write much more are noticed there.
TENSOR_BYTES = 128
"""Of a tensor's name and place in a safetensors file: 124 on a model of two layers, more where names are longer."""
OPTIMIZER_TENSOR_BYTES = 824
"""Of a parameter in optimizer.pt beside its two moments."""
CHECKPOINT_BYTES = 28_000
"""Of a checkpoint's other files: random states, schedule, PEFT's card and config."""
RESULT_BYTES = 12_000
"""Of the result's other files: PEFT's card and config, manifest, settings."""
CARD_BYTES = 55_000
"""Of a reward model's report card with its page, which is larger the more tags and principles there are."""
STARTED_S, CARD_S = 0.4, 0.6
"""What does not depend on model or rows: the library's trainer, the result's files; a report card with its plots.
Measured on one machine. They are small on any machine, next to a training worth planning."""
METHOD_SHARE = 0.15
"""How far off the time was by the method's own fault, on a quiet machine (`benchmarks/plan.py`)."""
TRIED_LAYERS = 2
"""On which the layout is tried."""
STATE_STEP_BYTES, METRICS_STEP_BYTES = 400, 280
"""Of a step in a checkpoint's state, and in metrics.jsonl."""


class TrainingPlan(NamedTuple):
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
    """From when the weights are loaded to when the result is written; in one process."""
    time_range_s: tuple[float, float] | None
    """From the quickest to the slowest of what was timed for it, and METHOD_SHARE wider; None where nothing was."""
    time: dict[str, float]
    """The same by part, in seconds: `steps`, `held_out`, `checkpoints` and `around`."""
    gradient_checkpointing: bool
    heaviest_step: int | None
    """Number of the step that takes most memory, from 0."""
    two_rows: str
    """Why each reply is planned in a row of its own; empty where the prompt of a pair is shared."""
    notes: tuple[str, ...]
    """What was decided, and what will not do."""

    def figures(self) -> TrainingPlanFigures:
        """For the manifest, and for --json."""
        return {
            "stage": self.stage,
            "steps": self.steps,
            "rows": self.rows,
            "tokens": self.tokens,
            "memory_bytes": self.memory_bytes,
            "memory": self.memory,
            "available_bytes": self.available_bytes,
            "disk_bytes": self.disk_bytes,
            "kept_bytes": self.kept_bytes,
            "time_s": self.time_s,
            "time_range_s": None if self.time_range_s is None else list(self.time_range_s),
            "time": self.time,
            "gradient_checkpointing": self.gradient_checkpointing,
            "heaviest_step": self.heaviest_step,
            "two_rows": self.two_rows,
            "notes": list(self.notes),
        }


class _Planned(NamedTuple):
    schedule: StepSchedule
    dry_run: DryRun | None
    """None for a model that cannot be run without values."""
    heavy: HeavyPass | None
    reason: str
    """Why the prompt of a pair is not shared, or there is no dry run."""

    @property
    def memory_bytes(self) -> int | None:
        return None if self.dry_run is None else sum(_memory(self.dry_run).values())


class TrainingJob(NamedTuple):
    """A stage, as its planner sees it."""

    stage: str
    settings: LoopSettings
    prepare: Prepare
    frozen_reference: bool = False
    stacked: bool = False
    on_cpu: bool = False
    """Its loss can only be run without values on a CPU: TRL's kernels for GPUs cannot."""
    checkpoints_tokenizer: bool = False
    """TRL writes the tokenizer into every checkpoint."""
    adapters_saved: int = 1
    """Adapters that a checkpoint holds."""


def plan_pairs(
    job: TrainingJob,
    base: Base,
    pairs: Sequence[PairTokens],
    held_out: Sequence[PairTokens],
    read: Sequence[PairTokens],
) -> TrainingPlan:
    """What a training on pairs takes, measured on some of `held_out` and with `read` read once without gradients;
    else as `plan_training`."""
    settings = job.settings
    budget = pass_tokens(settings.pass_tokens, training_device())

    def schedule(shared: bool) -> StepSchedule:
        made = pair_schedule(
            pairs,
            base.model.config,
            budget,
            shared,
            batch_size=settings.batch_size,
            epochs=settings.epochs,
            seed=settings.seed,
        )
        weigh = partial(read_weight, config=base.model.config, budget=budget, shared=shared)
        return made._replace(held_out=weigh(evenly(held_out, EVALUATED)), around=weigh(read) + made.around)

    return plan_training(job, base, schedule, _why_apart(job, base, pairs))


def _why_apart(job: TrainingJob, base: Base, pairs: Sequence[PairTokens]) -> str:
    """What the self-test says against a shared prompt, of a few layers with random weights; empty where nothing."""
    bare = skeleton_of(base, torch.float32, with_layers(base.model.config, TRIED_LAYERS))
    shortest = min(pairs, key=lambda pair: pair.tokens)
    try:
        fill_with_random_weights(bare.model, torch.device("cpu"))
        layout = choose_layout(bare.model, [shortest], base.pad_id, with_logits=job.stage == "dpo")
    except Exception:  # too large, or it needs values: the dry run reports that itself
        return ""
    return "" if layout.shared else layout.reasons[0].partition(": ")[2]


def plan_training(
    job: TrainingJob, base: Base, schedule: Callable[[bool], StepSchedule], apart: str = ""
) -> TrainingPlan:
    """What a training takes.

    `base` is a skeleton or a loaded model, of which config and tokenizer alone are used; `schedule` gives the
    passes where the prompt of a pair is shared, and where not; `apart` says why it cannot be. A model that
    cannot be gone through without values has no figure but its steps, and a note that says why.
    """
    settings = job.settings
    device = training_device()
    available = available_bytes(device)
    if available is not None and device.type == "cpu":
        available += held_bytes(tensor for tensor in base.model.parameters() if not tensor.is_meta)
    wanted = settings.gradient_checkpointing
    found = _planned(job, base, schedule, bool(wanted), apart)
    notes: tuple[str, ...] = ()
    peak = found.memory_bytes
    if wanted is None and peak is not None and available is not None and peak > available:
        wanted = True
        found = _planned(job, base, schedule, True, apart)
        notes = (
            f"gradient checkpointing is on: without it {_mib(peak)} would be needed, and {_mib(available)} "
            "is free",
        )
        peak = found.memory_bytes
    if peak is not None and available is not None and peak > available:
        notes += (
            f"{_mib(peak)} are needed and {_mib(available)} is free: a smaller --max-length, --pass-tokens "
            "or --batch-size takes less",
        )
    if found.dry_run is None:
        notes += (f"memory, disk and time cannot be predicted for this model: {found.reason}",)
    time, limits = _time(job, base, found, bool(wanted))
    disk = _disk(job, found, tokenizer_bytes(base.tokenizer))
    return TrainingPlan(
        stage=job.stage,
        steps=found.schedule.steps,
        rows=found.schedule.rows,
        tokens=found.schedule.tokens,
        memory_bytes=peak,
        memory={} if found.dry_run is None else _memory(found.dry_run),
        available_bytes=available,
        disk_bytes=disk and disk[0],
        kept_bytes=disk and disk[1],
        time_s=sum(time.values()) if time else None,
        time_range_s=limits,
        time=time,
        gradient_checkpointing=bool(wanted),
        heaviest_step=found.heavy and found.heavy.step,
        two_rows=found.reason if found.dry_run is not None else "",
        notes=notes,
    )


def _planned(
    job: TrainingJob, base: Base, schedule: Callable[[bool], StepSchedule], checkpointing: bool, apart: str
) -> _Planned:
    """The schedule, its heaviest pass and what that takes; pairs in two rows where the model takes no mask of
    ours, or for what `apart` says."""
    dtype = load_dtype(job.settings.precision)
    where = torch.device("cpu") if job.on_cpu else training_device()
    reason = apart
    for shared in (True,) if job.on_cpu else (False,) if apart else (True, False):
        chosen = schedule(shared)
        given = [PassInputs(heavy.inputs, heavy.later) for heavy in chosen.heavy]
        half = dtype == torch.bfloat16
        try:
            bare = skeleton_of(base, dtype)
            adapted = adapted_skeleton(bare, job.settings, job.frozen_reference, job.stacked)
            found = dry_run_passes(adapted, job.prepare, given, where, bf16=half, checkpointing=checkpointing)
        except UserError:
            raise
        except Exception as error:  # whatever an architecture asks of values: then no figure, and the reason
            reason = reason or (str(error).strip() or type(error).__name__).splitlines()[0]
            continue
        most = max(range(len(found)), key=lambda number: found[number].pass_bytes)
        return _Planned(chosen, found[most], chosen.heavy[most], reason)
    return _Planned(chosen, None, None, reason)


def settled(settings: Any, plan: TrainingPlan) -> Any:
    """The settings, with what the plan decided where nothing was said."""
    if settings.gradient_checkpointing is not None:
        return settings
    return settings.model_copy(update={"gradient_checkpointing": plan.gradient_checkpointing})


def _memory(dry_run: DryRun) -> dict[str, int]:
    return {
        "weights": dry_run.frozen_bytes,
        "adapter": dry_run.trained_bytes,
        "optimizer": 2 * 4 * dry_run.trained_numbers + 4 * dry_run.trained_tensors,
        "pass": dry_run.pass_bytes,
    }


def _disk(job: TrainingJob, found: _Planned, tokenizer_bytes: int) -> tuple[int, int] | None:
    """Bytes of the output folder at its fullest, and of what stays.

    A new checkpoint is written before the oldest is removed, and the result while the last ones are there.
    """
    dry_run, steps = found.dry_run, found.schedule.steps
    if dry_run is None:
        return None
    every = job.settings.checkpoint_every
    adapter = 4 * dry_run.trained_numbers + TENSOR_BYTES * dry_run.trained_tensors
    optimizer = 8 * dry_run.trained_numbers + OPTIMIZER_TENSOR_BYTES * dry_run.trained_tensors
    one = job.adapters_saved * adapter + optimizer + CHECKPOINT_BYTES
    one += tokenizer_bytes if job.checkpoints_tokenizer else 0
    sizes = [one + STATE_STEP_BYTES * step for step in saved_steps(steps, every)]
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


def _time(
    job: TrainingJob, base: Base, found: _Planned, checkpointing: bool
) -> tuple[dict[str, float], tuple[float, float] | None]:
    """Seconds by part, and their limits; empty where they cannot be predicted."""
    dry_run, heavy, schedule = found.dry_run, found.heavy, found.schedule
    if dry_run is None or heavy is None:
        return {}, None
    dtype, device = load_dtype(job.settings.precision), training_device()
    speed = measured_speed(device, base.model.config.get_text_config().hidden_size, dtype)
    both, forward = speed.seconds(dry_run.both) / heavy.weight, speed.seconds(dry_run.forward) / heavy.weight
    timing: Timing | None = None
    reads = schedule.around + schedule.held_out > 0
    saves = len(saved_steps(schedule.steps, job.settings.checkpoint_every))
    fixed_s = STARTED_S + (CARD_S if job.stage == "reward" else 0.0)
    form = Form(
        dtype, device, job.frozen_reference, job.stacked, checkpointing, reads, lambda weight: both * weight
    )
    with (
        torch.random.fork_rng(),
        suppress(Exception),
    ):  # what an architecture asks for, or its size: then the rough one
        timing = timed(base, job.settings, job.prepare, schedule.strata, form)
    if timing is None:
        flat = [Spread(one, one, one) for one in (both, forward)]
        rough = Timing((flat[0],) * len(schedule.strata), flat[1], NOTHING, NOTHING)
        return {part: some.middle for part, some in parts_of(schedule, rough, saves, fixed_s).items()}, None
    parts = parts_of(schedule, timing, saves, fixed_s)
    total = sum_of(parts.values())
    return {part: some.middle for part, some in parts.items()}, (
        (1 - METHOD_SHARE) * total.low,
        (1 + METHOD_SHARE) * total.high,
    )


def parts_of(schedule: StepSchedule, timing: Timing, saves: int, fixed_s: float) -> dict[str, Spread]:
    """What each part of a training takes: what was timed, as many times as it comes, and what is always the same."""
    passes = (rate.times(one.total) for one, rate in zip(schedule.strata, timing.rates, strict=True))
    return {
        "steps": sum_of([*passes, timing.step.times(schedule.steps)]),
        "held_out": timing.read.times(saves * schedule.held_out),
        "checkpoints": timing.checkpoint.times(saves),
        "around": sum_of([timing.read.times(schedule.around), Spread(fixed_s, fixed_s, fixed_s)]),
    }


def _mib(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"
