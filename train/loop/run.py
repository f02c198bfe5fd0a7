"""What all trainings share: watching, metrics as JSON lines, checkpoints that are whole.

The loop itself is transformers' Trainer. Its own printing, progress bar and reports are off.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors import SafetensorError
from transformers import (
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations import TensorBoardCallback  # type: ignore[attr-defined]

from preceptor.constitution.foreign import json_of
from preceptor.train import distributed
from preceptor.train.errors import MemoryShortError, RunFolderError
from preceptor.train.estimate.memory import is_out_of_memory
from preceptor.train.loop.manifest import Measured
from preceptor.train.loop.meter import Meter
from preceptor.train.loop.output_folder import (
    CHECKPOINTS,
    METRICS,
    TENSORBOARD,
    Opened,
    checkpoint_step,
    keep_metrics,
    mark_whole,
)
from preceptor.train.models.devices import accelerator, use_bf16
from preceptor.train.settings import LoopSettings

if TYPE_CHECKING:
    from preceptor.train.estimate.plan import TrainingPlan

BEST_BY = "held_out_loss"
"""The best checkpoint is the one at which this figure is least."""
HIDDEN_FIGURES = frozenset({"total_flos", "num_tokens", "num_input_tokens_seen"})
"""Figures of the libraries that begin again at zero in a resumed run, or say nothing."""


TORCH_WRITES = ("inline_container", "PytorchStreamWriter")
"""Words of torch's RuntimeError where a file could not be written: it has no type of its own for that."""


class TrainingProgress(NamedTuple):
    """Where a training stands, told after every step."""

    stage: str
    step: int
    steps: int
    metrics: dict[str, float]
    pairs_per_s: float
    left_s: float
    notes: tuple[str, ...] = ()
    """What a person should know by now."""


class Ran(NamedTuple):
    """What running the loop came to."""

    metrics: dict[str, Any]
    """The last step's figures."""
    measured: Measured
    notes: tuple[str, ...]
    """What a person should know of it."""
    steps: int
    """Done in all, those before a checkpoint too."""

    def measured_since(self, began_s: float) -> Measured:
        """`measured`, with the time that was planned for: from `began_s` of the monotonic clock to now."""
        return {**self.measured, "time_s": round(time.monotonic() - began_s, 3)}


OnTrainingProgress = Callable[[TrainingProgress], None]
"""Is told of every step; what it raises ends the training, which the same command then resumes."""


class Watcher(TrainerCallback):
    """Writes metrics, tells of progress, and marks checkpoints as whole."""

    def __init__(
        self,
        stage: str,
        metrics: Path,
        batch_size: int,
        watch: OnTrainingProgress | None,
        notes: Sequence[str],
    ) -> None:
        self.stage = stage
        self.notes = notes
        self.metrics = metrics
        self.batch_size = batch_size
        self.watch = watch
        self.began_s = 0.0
        self.first_step = 0
        self.last: dict[str, float] = {}

    # The library calls with these names, whether a callback needs them or not: noqa ARG002.
    def on_train_begin(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Start the clock: a resumed run's speed is that of its own steps."""
        self.began_s = time.monotonic()
        self.first_step = state.global_step

    def on_log(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        logs: Mapping[str, float] | None = None,
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """One row for each step, and one for each measurement on held-out rows; not the libraries' closing summary."""
        if not logs or "train_runtime" in logs:
            return
        row = {key: value for key, value in logs.items() if key not in HIDDEN_FIGURES}
        if not distributed.first():
            self.last = row
            return
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": state.global_step, **row}) + "\n")
        if "loss" not in row:
            return  # of held-out rows, beside the step's own
        self.last = row
        if self.watch is None:
            return
        done = state.global_step - self.first_step
        step_s = (time.monotonic() - self.began_s) / max(done, 1)
        left_s = step_s * (state.max_steps - state.global_step)
        speed = self.batch_size / step_s if step_s else 0.0
        self.watch(
            TrainingProgress(
                self.stage, state.global_step, state.max_steps, self.last, speed, left_s, tuple(self.notes)
            )
        )

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Only now, when every process has written its part, is the checkpoint one to resume from."""
        distributed.wait()
        if not distributed.first():
            return
        mark_whole(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")


def trainer_options(settings: LoopSettings, folder: Path, held_out: bool = False) -> dict[str, Any]:
    """Arguments for transformers' TrainingArguments, or for those of TRL, which extend them.

    held_out: whether checkpoints are measured on held-out rows, and the best one is kept beside the last.
    Raises RunFolderError for a place to report to whose package is not installed.
    """
    if absent := [name for name in settings.report_to if find_spec(name) is None]:
        raise RunFolderError(f"cannot report to {absent[0]}: it is not installed; pip install {absent[0]}")
    measured = {
        "eval_strategy": "steps",
        "eval_steps": settings.checkpoint_every,
        "metric_for_best_model": BEST_BY,
        "greater_is_better": False,
        "save_total_limit": settings.keep_checkpoints + 1,
    }
    return {
        "output_dir": str(folder / CHECKPOINTS),
        "num_train_epochs": settings.epochs,
        "per_device_train_batch_size": settings.batch_size,
        "ddp_find_unused_parameters": False,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": settings.warmup,
        "seed": settings.seed,
        "bf16": use_bf16(settings.precision),
        "use_cpu": not accelerator(),  # or bf16 is refused where there is no GPU
        "activation_checkpointing": False,  # our own, in `train.models.adapters`
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": settings.checkpoint_every,
        "save_total_limit": settings.keep_checkpoints,
        "torch_compile": settings.compile,
        "report_to": list(settings.report_to) or "none",
        "disable_tqdm": True,
        "log_level": "error",
        "remove_unused_columns": False,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "skip_memory_metrics": True,
        **(measured if held_out else {}),
    }


def run_loop(
    trainer: Any, opened: Opened, settings: LoopSettings, watch: OnTrainingProgress | None, plan: TrainingPlan
) -> Ran:
    """Train to the end from the folder's last checkpoint, if it has one, and measure what was planned.

    The trainer cuts steps that do not fit in memory, and tells of it in `notes`.
    Raises RunFolderError where the folder cannot be written to any more, MemoryShortError where memory runs out
    however a step is cut.
    """
    metrics = opened.path / METRICS
    watcher = Watcher(plan.stage, metrics, settings.batch_size, watch, trainer.notes)
    meter = Meter(trainer, opened.path, plan.heaviest_step)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(watcher)
    trainer.add_callback(meter)
    if settings.tensorboard:
        callback: Any = TensorBoardCallback
        trainer.add_callback(callback(summary_writer(opened.path / TENSORBOARD)))
    try:
        if distributed.first():
            keep_metrics(metrics, checkpoint_step(opened.checkpoint) if opened.checkpoint else 0)
        with meter:
            trainer.train(resume_from_checkpoint=str(opened.checkpoint) if opened.checkpoint else None)
    except (OSError, SafetensorError) as error:
        raise _cannot_write(opened.path, error) from error
    except (RuntimeError, MemoryError) as error:
        if any(word in str(error) for word in TORCH_WRITES):
            raise _cannot_write(opened.path, error) from error
        if not is_out_of_memory(error):
            raise
        raise MemoryShortError(
            "memory ran out outside of the model's passes: give a smaller --rank, or a smaller model"
        ) from error
    last = watcher.last or last_row(metrics)
    return Ran(last, meter.figures(), (*plan.notes, *trainer.notes), int(trainer.state.global_step))


def _cannot_write(path: Path, error: BaseException) -> RunFolderError:
    return RunFolderError(
        f"cannot write to {path}: {error}. Mend it and run the command again: it goes on from the last checkpoint"
    )


def summary_writer(folder: Path) -> Any:
    """Writes for TensorBoard, beside the result: the library's own place is among the checkpoints, which do not
    last."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RunFolderError(
            "no tensorboard to write for; pip install tensorboard, or leave the flag out"
        ) from error
    writer: Any = SummaryWriter  # the library does not type it
    return writer(log_dir=str(folder))


def last_row(metrics: Path) -> dict[str, float]:
    """The last step's figures, where a resumed run had no step left to do."""
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
    steps = [row for row in map(json_of, lines) if BEST_BY not in row]
    row = steps[-1] if steps else {}
    return {key: value for key, value in row.items() if key != "step"}
