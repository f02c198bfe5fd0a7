"""What a training takes, measured while it runs, to stand beside what was planned.

memory     on a GPU the allocator's own peak. On a CPU, which keeps no such account, tensors are counted as they
           come and go during the one step that was planned to take most (`train.estimate.memory.Alive`), and what is
           held beside it is added: weights, adapter, the optimizer's state
resident   on a CPU, what the operating system saw of the process: with Python, libraries and scratch, from
           when the weights had been loaded on
disk       the output folder after every checkpoint, with the one removed for it; and at the end
           (`train.loop.output_folder`)
time       of the loop of this very command: steps, checkpoints, and measuring on held-out rows
"""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from preceptor.train.estimate.memory import (
    Alive,
    held_bytes,
    optimizer_tensors,
    reset_resident_peak,
    resident_peak,
)
from preceptor.train.loop.manifest import Measured
from preceptor.train.loop.output_folder import CHECKPOINTS, bytes_under


class Meter(TrainerCallback):
    """Measures one run of a trainer's loop; a context manager around it."""

    def __init__(self, trainer: Any, folder: Path, heaviest_step: int | None) -> None:
        self.trainer = trainer
        self.folder = folder
        self.heaviest_step = heaviest_step
        self._alive: Alive | None = None
        self._pass_bytes: int | None = None
        self._checkpoints: dict[str, int] = {}
        self._disk_bytes = 0
        self._steps_s = 0.0
        self._own_steps = 0

    def __enter__(self) -> Meter:
        self._began_s = time.monotonic()
        self._device = torch.device(self.trainer.args.device)
        held = held_bytes(self._held())
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._foreign = torch.cuda.memory_allocated(self._device) - held
        else:
            self._resident = reset_resident_peak()
            self._foreign = (self._resident or 0) - held
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_counting()
        self._steps_s = time.monotonic() - self._began_s

    def figures(self) -> Measured:
        """What is known when the loop is over. No memory where the step to be watched had been done before."""
        self._see_disk()
        memory, resident = None, None
        if self._device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(self._device) - self._foreign
        else:
            if self._pass_bytes is not None:
                memory = held_bytes(self._held()) + self._pass_bytes
            peak = resident_peak()
            if self._resident is not None and peak is not None:
                resident = peak - self._foreign
        return {
            "memory_bytes": memory,
            "resident_bytes": resident,
            "disk_bytes": self._disk_bytes,
            "loop_s": round(self._steps_s, 3),
            "steps": self._own_steps,
        }

    def _held(self) -> list[torch.Tensor]:
        model = self.trainer.model
        return [*model.parameters(), *model.buffers(), *optimizer_tensors(self.trainer.optimizer)]

    # The library calls with these names, whether a callback needs them or not: noqa ARG002.
    def on_step_begin(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Count tensors in the one step that takes most; the gradients of the last one are gone by now."""
        self._own_steps += 1
        if self._device.type != "cuda" and state.global_step == self.heaviest_step:
            self._alive = Alive()
            self._alive.__enter__()  # type: ignore[no-untyped-call]

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,  # noqa: ARG002
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """The optimizer's state is counted by itself."""
        self._stop_counting()

    def on_save(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,  # noqa: ARG002
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """A new checkpoint is whole; an older one may have been removed after it was written."""
        self._see_disk()

    def _stop_counting(self) -> None:
        if self._alive is not None:
            self._alive.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self._pass_bytes = self._alive.peak_bytes
            self._alive = None

    def _see_disk(self) -> None:
        now = {path.name: bytes_under(path) for path in self.folder.glob(f"{CHECKPOINTS}/checkpoint-*")}
        removed = sum(size for name, size in self._checkpoints.items() if name not in now)
        self._disk_bytes = max(self._disk_bytes, bytes_under(self.folder) + removed)
        self._checkpoints = now
