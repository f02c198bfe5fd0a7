"""Settings of the trainings, each with its one default; without torch, so that a command line can show them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from prompts.records import Record


class LoopSettings(Record):
    """Settings that every training has; a stage adds its own, and may set another default."""

    model: str = "embedded"
    """`embedded`, `hf/` and a hub id, or the path of a model folder."""
    adapter: str | None = None
    """Folder of a LoRA adapter to go on from; its rank and alpha then hold."""
    epochs: float = Field(default=1.0, gt=0)
    learning_rate: float = Field(default=2e-4, gt=0)
    """Peak; it rises over `warmup` and falls linearly to zero."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps over which the learning rate rises."""
    batch_size: int = Field(default=16, gt=0)
    """Pairs, or rows of SFT, in a step."""
    max_length: int = Field(default=1024, gt=1)
    """Tokens of prompt and reply together."""
    rank: int = Field(default=16, gt=0)
    alpha: float = Field(default=32.0, gt=0)
    """The adapter's change is scaled by alpha / rank."""
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto`: bf16 where a GPU has it, else fp32. Adapters and heads are fp32 always."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    checkpoint_every: int = Field(default=50, gt=0)
    """Steps from one checkpoint to the next."""
    tensorboard: bool = False


NOT_IN_RESULT = frozenset({"tensorboard", "checkpoint_every"})
"""Settings that cannot change the result; two commands that differ in nothing else are the same."""


class SftSettings(LoopSettings):
    """Settings of `train.sft`."""


class RewardSettings(LoopSettings):
    """Settings of `train.reward`."""

    held_out: float = Field(default=0.1, ge=0, lt=1)
    """Share of the prompts whose pairs are kept from training, for the report card."""


class DpoSettings(LoopSettings):
    """Settings of `train.dpo`."""

    learning_rate: float = Field(default=5e-5, gt=0)
    beta: float = Field(default=0.1, gt=0)
    """How dearly a nat of distance from the reference is paid for; larger keeps the policy closer to it."""
