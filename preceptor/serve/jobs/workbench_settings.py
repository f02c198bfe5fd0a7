"""What jobs of the workbench are told beside the settings of a run file, by the names of the commands' flags."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from preceptor.prompts.records import Settings


class FillSettings(Settings):
    """For which prompts new ones are written."""

    fill: bool = False
    """Write for the emptiest cells of `prompts coverage`, and nothing else."""
    tag: tuple[str, ...] = ()
    """For taxonomy: a further tag; several."""


class NearSettings(Settings):
    """When prompts are near, and what becomes of leaks."""

    threshold: float = Field(default=0.7, gt=0, le=1)
    """Share of character 5-grams in common from which on two prompts are near."""
    leakage: Literal["refuse", "drop", "keep"] = "refuse"
    """What becomes of prompts near held-out ones."""


class WordingSettings(Settings):
    """Which wordings of a principle are tried."""

    wording: tuple[str, ...] = ()
    """A wording; several."""
    wordings: int = Field(default=4, ge=1)
    """With a model: how many it writes."""


class ReplaySettings(Settings):
    """Under what labels are added up once more."""

    without: tuple[str, ...] = ()
    """A principle to leave out; several."""
    weights: tuple[str, ...] = ()
    """Other weights, as a=2; 0 leaves one out."""
