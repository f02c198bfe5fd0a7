"""Stages that other packages bring, by an entry point; a run file names those that it wants in its section `stages`.

    [project.entry-points."preceptor.stages"]
    words = "my_package:WORDS"               # an OutsideStage

    stages: {words: {at_least: 5}}           # in the run file; the settings are the package's own

A stage is done after the run's own. examples/extending/stage.py is one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, NamedTuple

from preceptor.constitution.added import loaded
from preceptor.constitution.errors import UserError
from preceptor.prompts.records import Settings

if TYPE_CHECKING:
    from preceptor.run.config import RunConfig
    from preceptor.run.running import Stage

GROUP = "preceptor.stages"
"""The entry-point group of stages that other packages bring."""


class OutsideStage(NamedTuple):
    """What an entry point of the group gives."""

    settings: type[Settings]
    """The section of the run file under the stage's name."""
    stage: Callable[[RunConfig, Any], Stage]
    """The stage for a run and its section. Its name is the entry point's."""


def find(name: str) -> OutsideStage:
    """What a package brings under this name. Raises UserError where there is none, or where it cannot be loaded."""
    there = entry_points(group=GROUP)
    for entry in there.select(name=name):
        said = f"the stage {name} ({entry.value})"
        found = loaded(entry, said, remedy="update its package, or leave the stage out")
        if not isinstance(found, OutsideStage):
            raise UserError(f"{said} is {type(found).__name__}; wanted an OutsideStage")
        return found
    known = ", ".join(sorted(there.names)) or "none is installed"
    raise UserError(f"no installed package brings a stage {name}; wanted one of these: {known}")


def section(name: str, values: Mapping[str, Any]) -> Settings:
    """A stage's section of the run file as its settings. Raises UserError where there is no such stage, and
    ValidationError for values that it does not take."""
    return find(name).settings.model_validate(values)


def stage_of(name: str, config: RunConfig) -> Stage:
    """The stage, as a run has it."""
    return find(name).stage(config, section(name, config.stages[name]))
