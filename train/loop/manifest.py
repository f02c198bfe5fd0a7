"""The manifest of a training as JSON has it: who writes it and who reads it go by these types."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from preceptor.train.data.counts import TrainedRows
from preceptor.train.estimate.plan_figures import NoPlan, TrainingPlanFigures


class Measured(TypedDict, total=False):
    """What a training took; None where it was not measured."""

    memory_bytes: int | None
    """Most that was alive in tensors at a time, as it was planned."""
    resident_bytes: int | None
    """Most that the process held beside what it had before."""
    disk_bytes: int
    """Most that the folder held at a time."""
    loop_s: float
    steps: int
    """Those of this command, which the others are of."""
    time_s: float
    """Of all that was planned for."""
    samples_per_s: float
    """Of PPO."""


class TrainingManifest(TypedDict):
    """`manifest.json` of a training's folder, written last of all."""

    kind: str
    settings: dict[str, Any]
    """Those that change the result."""
    hashes: dict[str, str]
    """Of rows, weights, and whatever else the result depends on."""
    schema: Literal[1]
    versions: dict[str, str]
    constitutions: NotRequired[list[str]]
    """That the rows name; `judges` likewise."""
    judges: NotRequired[list[str]]
    rows: TrainedRows
    metrics: dict[str, Any]
    """The last step's figures, each training's own; `held_out`, `final`, `stopped` and `guard` where there are such."""
    steps: int
    wall_s: float
    read: NotRequired[dict[str, Any]]
    """`source`, `sha256`, `set_aside`: which file the rows came from, and what reading it set aside."""
    plan: NotRequired[TrainingPlanFigures | NoPlan]
    """Absent, as are `measured` and `notes`, in folders of earlier versions."""
    measured: NotRequired[Measured]
    notes: NotRequired[list[str]]
    files: dict[str, str]
    """Name -> SHA-256."""
