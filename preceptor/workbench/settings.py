"""Settings of the workbench, each with its one default."""

from __future__ import annotations

from pydantic import Field

from preceptor.prompts.recipes import SynthesisWay
from preceptor.prompts.records import Settings


class SynthesisSettings(Settings):
    """How new prompts are written."""

    how: tuple[SynthesisWay, ...] = ()
    """A way to write them; several take turns. Else self-instruct with seeds, taxonomy with a constitution."""
    count: int = Field(default=100, ge=1)
    """New prompts at which it stops."""
    at_once: int = Field(default=5, ge=1, le=50)
    """Prompts that one call is asked for."""
    per_cell: int = Field(default=10, ge=1)
    """For taxonomy: prompts at which a cell of tag and principle is full."""
    least: float = Field(default=0.1, ge=0, le=1)
    """It stops when of the prompts that a round asked for a smaller share is new."""
    topic: tuple[str, ...] = ()
    """For red-team, sycophancy and over-refusal: a topic; several take turns."""
    fewest_words: int = Field(default=3, ge=1)
    """A shorter prompt is not taken."""
    most_words: int = Field(default=400, ge=1)
    """A longer prompt is not taken."""
    language: str = ""
    """ISO 639 code of the only language that is taken: en."""
    threshold: float = Field(default=0.7, gt=0, le=1)
    """Share of character 5-grams in common from which on two prompts are near."""
    max_tokens: int = Field(default=1024, ge=1)
    """Longest reply."""
    temperature: float = Field(default=1.0, ge=0)
    """0 is greedy."""
    seed: int = 0
    """Equal seeds give equal results on one machine."""


class InductionSettings(Settings):
    """How principles are learned from preferences."""

    most: int = Field(default=5, ge=1)
    """Principles of the constitution, at most."""
    proposals: int = Field(default=20, ge=1)
    """Calls in which principles are proposed, at most."""
    shown: int = Field(default=4, ge=1, le=20)
    """Pairs that one proposal looks at."""
    candidates: int = Field(default=20, ge=1)
    """Proposed principles that are voted on, at most; those that were proposed oftenest."""
    held_out: float = Field(default=0.5, gt=0, lt=1)
    """Share of the pairs that no choice looks at."""
    least_gain: float = Field(default=0.01, ge=0)
    """A principle is added if it raises the share of the learning pairs by more than this."""
    tie: bool = True
    """A candidate's judge may say that neither reply is better."""
    seed: int = 0
    """Equal seeds give equal results on one machine."""
