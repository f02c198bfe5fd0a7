"""How a whole run looks on the terminal: a bar for each stage while it goes on, a line when it is done."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from preceptor.cli import console

if TYPE_CHECKING:
    from preceptor.judge.asking.fanout import Progress
    from preceptor.records import StageRecord
    from preceptor.train.loop.run import TrainingProgress as TrainProgress


class Terminal:
    """Shows a run on stderr; satisfies `preceptor.run.running.Screen`."""

    def asking(self, stage: str) -> AbstractContextManager[Callable[[Progress], None]]:
        """A bar for a stage that asks models."""
        return console.progress(stage)

    def training(self, stage: str) -> AbstractContextManager[Callable[[TrainProgress], None]]:
        """A bar for a stage that trains."""
        return console.training(stage)

    def done(self, record: StageRecord, again: bool) -> None:
        """What a bar has not said already: that it was done before, and what a person should know of it."""
        if again:
            console.say(f"{record.stage:<12} finished before: {record.rows_out} rows")
        for note in record.figures.get("notes", []):
            console.say(f"{record.stage:<12} {note}")
