"""Who would be asked in a run, and how far a prompt has come: what a stage plans with, before anything is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from preceptor.constitution.principle import Constitution
from preceptor.judge.models.protocol import Capabilities, Completion, Model, Request
from preceptor.prompts.records import Prompt
from preceptor.run.config import RunConfig


@dataclass
class Untrained:
    """A model that the run will have trained when it asks it; satisfies `judge.models.protocol.Model`."""

    name: str
    endpoint: str
    dialect: str
    capabilities = Capabilities()

    async def complete(self, request: Request) -> Completion:
        """Never asked: a plan carries nothing out."""
        raise AssertionError(f"{self.name} was asked {request.key}")

    async def close(self) -> None:
        """Nothing to let go of."""


class Cast(NamedTuple):
    """Who is asked in a run, as far as there is anyone yet, and about what."""

    config: RunConfig
    constitution: Constitution
    train: Sequence[Prompt]
    held_out: Sequence[Prompt]
    start: Model
    critic: Model
    judge: Model | None

    def trained(self, name: str) -> Model:
        """The model of a folder of the run."""
        path = Path(self.config.out) / name
        if (path / "manifest.json").exists():
            return self.config.open(f"hf/{path}")
        return Untrained(f"hf/{path}", "", self.start.dialect)


class Way(NamedTuple):
    """One prompt's way through the stages."""

    number: int
    """Its place among the run's prompts."""
    rows: dict[str, Sequence[Any]]
    """File of the run -> the rows that it will hold of this prompt. A file that is not here has none of it."""
