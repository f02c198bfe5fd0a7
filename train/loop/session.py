"""What the trainings on files share, from the look at the folder to the manifest. In this order:

    opened     the folder is looked at; a training that was finished there before is handed back as it is
    started    the base is loaded
    planned    the rows are known, and what training on them takes; what settings left open is decided
    begun      all of the model is in memory: only now is the folder made, so that a failure before leaves none behind
    run        the loop, in every process
    finished   by the first process alone: it writes the result, the others hand back what they know

What differs between trainings (rows, plan, model, loss, what is saved) stays in each of them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from preceptor.prompts.records import Record
from preceptor.train.data.counts import TrainedRows
from preceptor.train.estimate.plan import TrainingPlan, settled
from preceptor.train.loop.output_folder import (
    Opened,
    Trained,
    TrainingResult,
    begin_folder,
    finish_folder,
    found_finished,
    start_folder,
)
from preceptor.train.loop.run import OnTrainingProgress, Ran, run_loop
from preceptor.train.models.base import Base, load_for
from preceptor.train.settings import LoopSettings

S = TypeVar("S", bound=LoopSettings)


class Started(NamedTuple, Generic[S]):
    """A training whose folder is free for it and whose base is loaded."""

    opened: Opened
    settings: S
    base: Base
    began_s: float
    """By the monotonic clock."""

    def planned(self, plan: TrainingPlan) -> Session[S]:
        """The same with its plan, and with the settings that the plan decided. The time that was planned for begins."""
        settings: S = settled(self.settings, plan)
        return Session(self.opened, settings, self.base, plan, self.began_s, time.monotonic())


class Session(NamedTuple, Generic[S]):
    """A training of which it is known what it takes."""

    opened: Opened
    settings: S
    base: Base
    plan: TrainingPlan
    began_s: float
    planned_s: float
    """When what was planned for began."""

    @property
    def folder(self) -> Path:
        """Where the result lies in the end."""
        return self.opened.path

    def begin(self) -> None:
        """Make the folder, once rows and model are known to be usable. Raises RunFolderError."""
        begin_folder(self.opened)

    def run(self, trainer: Any, watch: OnTrainingProgress | None) -> Ran:
        """The loop, as `train.loop.run.run_loop` has it."""
        return run_loop(trainer, self.opened, self.settings, watch, self.plan)

    def handed_back(self, rows: TrainedRows, ran: Ran) -> Trained:
        """What a process hands back that is not the first of several: that one writes the result."""
        return Trained(self.folder, rows, ran.metrics, ran.steps, 0.0, False, {}, ran.measured, ran.notes)

    def finish(self, rows: TrainedRows, ran: Ran, read: Mapping[str, Any] | None) -> Trained:
        """Write the tokenizer beside the weights, which lie in the folder by now, and last of all the manifest.

        ran: with whatever the training has to add to its figures and notes; `read`: what reading the rows set aside
        and which files they came from.
        """
        self.base.tokenizer.save_pretrained(str(self.folder))
        result = TrainingResult(
            rows=rows,
            metrics=ran.metrics,
            steps=ran.steps,
            wall_s=time.monotonic() - self.began_s,
            read=dict(read or {}),
            notes=ran.notes,
            plan=self.plan.figures(),
            measured=ran.measured_since(self.planned_s),
        )
        return finish_folder(self.opened, result)


def start_training(kind: str, rows: Sequence[Record], settings: S, out: Path) -> Started[S] | Trained:
    """Look at the folder and load the base; of a training that was finished there before, its result.

    Raises CheckpointError and RunFolderError for model and folder.
    """
    began_s = time.monotonic()
    opened = start_folder(kind, rows, settings, out)
    if (finished := found_finished(opened)) is not None:
        return finished
    return Started(opened, settings, load_for(settings), began_s)
