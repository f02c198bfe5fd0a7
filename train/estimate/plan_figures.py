"""The plan of a training as JSON has it, in its manifest and for --json: who writes it and who reads it go by these
types."""

from __future__ import annotations

from typing_extensions import TypedDict


class NoPlan(TypedDict):
    """Of a training of which nothing was predicted."""


class TrainingPlanFigures(TypedDict):
    """What a training was predicted to take; null where it could not be told."""

    stage: str
    steps: int
    rows: int
    tokens: int
    """Of the rows that are trained on, once."""
    memory_bytes: int | None
    """Most that is alive in tensors at a time."""
    memory: dict[str, int]
    """The same by part, in bytes: `weights`, `adapter`, `optimizer`, `pass`."""
    available_bytes: int | None
    """What could be had when the plan was made; null where the system does not say."""
    disk_bytes: int | None
    """Most that the output folder holds at a time."""
    kept_bytes: int | None
    """What stays of it."""
    time_s: float | None
    """From when the weights are loaded to when the result is written; in one process."""
    time_range_s: list[float] | None
    """Its limits, by what was timed."""
    time: dict[str, float]
    """The same by part, in seconds: `steps`, `held_out`, `checkpoints`, `around`."""
    gradient_checkpointing: bool
    heaviest_step: int | None
    """Number of the step that takes most memory, from 0."""
    two_rows: str
    """Why each reply is planned in a row of its own; empty where the prompt of a pair is shared."""
    notes: list[str]
    """What was decided, and what will not do."""
