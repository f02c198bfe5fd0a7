"""What a training will take, and afterwards what it took, in words for the person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from preceptor.cli import console

if TYPE_CHECKING:
    from preceptor.train.estimate.plan import TrainingPlan

PARTS = {
    "weights": "frozen weights",
    "adapter": "what is trained",
    "optimizer": "its optimizer",
    "pass": "the heaviest pass",
}


def tell_plan(plan: TrainingPlan, as_json: bool) -> None:
    """The plan on stderr, and with `as_json` as one object on stdout."""
    console.say(
        f"{plan.stage}: {plan.rows} rows of {plan.tokens} tokens, {plan.steps} steps; nothing was done"
    )
    if plan.memory_bytes is not None:
        parts = ", ".join(f"{name} {_size(plan.memory[part])}" for part, name in PARTS.items())
        room = "" if plan.available_bytes is None else f" of {_size(plan.available_bytes)} available"
        console.say(f"  memory  {_size(plan.memory_bytes)} of tensors{room}: {parts}")
    if plan.disk_bytes is not None and plan.kept_bytes is not None:
        console.say(f"  disk    {_size(plan.disk_bytes)} with checkpoints, {_size(plan.kept_bytes)} stay")
    if plan.time_s is not None:
        console.say(f"  time    {_foretold(plan.time_s, plan.time_range_s)}")
    if plan.gradient_checkpointing:
        console.say("  with gradient checkpointing")
    if plan.two_rows:
        console.say(f"  each reply in a row of its own: {plan.two_rows}")
    for note in plan.notes:
        console.say(f"  {note}")
    if as_json:
        console.result(plan.figures())


def beside(plan: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    """One line: what was planned beside what was measured; empty where there is nothing to compare."""
    found = []
    for name, key in (("memory", "memory_bytes"), ("disk", "disk_bytes")):
        if plan.get(key) is not None and measured.get(key) is not None:
            found.append(f"{name} {_size(plan[key])} planned, {_size(measured[key])} measured")
    if plan.get("time_s") is not None and measured.get("steps") == plan["steps"]:
        found.append(f"time {_time(plan['time_s'])} planned, {_time(measured['time_s'])} measured")
    if measured.get("resident_bytes") is not None:
        found.append(f"the process took {_size(measured['resident_bytes'])} beside what it had before")
    return "; ".join(found)


def _foretold(time_s: float, limits: tuple[float, float] | None) -> str:
    """How long it will take, and how sure that is."""
    if limits is None:
        return f"about {_time(time_s)}, to a factor of three: no pass could be timed beforehand"
    return (
        f"about {_time(time_s)}, {_time(limits[0])} to {_time(limits[1])} by what was timed; in one process"
    )


def _size(count: int) -> str:
    mib = count / 2**20
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.1f} MiB"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
