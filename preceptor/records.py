"""The rows that only the application makes."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from preceptor.judge.records import Label
from preceptor.prompts.records import Prompt, Record


class HeldOut(Record):
    """One held-out prompt with the reply before and after training, and what judge and oracle say of them."""

    id: str
    prompt: Prompt
    before: str
    after: str
    label: Label
    """The judge's comparison: response a is the policy's reply, response b the baseline's."""
    satisfied_before: dict[str, bool]
    """Principle -> whether the oracle finds that the reply follows it; principles it cannot decide are absent."""
    satisfied_after: dict[str, bool]


class StageRecord(Record):
    """What one stage of a run did. A run's `metrics/stages.jsonl` holds one for each stage, in order."""

    stage: str
    fingerprint: str
    """Hash of the stage's settings and of the files that went in: equal means that it need not run again."""
    outputs: dict[str, str]
    """Path in the run folder -> SHA-256 of what the stage wrote (for a folder, of its manifest)."""
    rows_in: int
    rows_out: int
    set_aside: dict[str, int] = Field(default_factory=dict)
    """Reason -> rows; rows_in = rows_out + all of these."""
    figures: dict[str, Any] = Field(default_factory=dict)
    wall_s: float
    cost_usd: float
