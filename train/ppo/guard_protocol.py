"""Where a guard looks into a training, and what it may order.

A guard is called before the first step and then every `guard_every` steps, after the step's updates and before
its checkpoint is written, so that what it orders is in the checkpoint. It is not called again for steps before a
checkpoint from which a training is resumed: what it wants to remember, it keeps in the folder itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from peft import PeftModel

    from preceptor.train.models.base import Base
    from preceptor.train.ppo.roles import Roles
    from preceptor.train.rollout.rewards import Replied


class Moment(NamedTuple):
    """A training as its guard sees it."""

    step: int
    """Steps done; 0 before the first, when the policy is still what it started as."""
    steps: int
    metrics: Mapping[str, float]
    """The step's row; empty at step 0."""
    kl_coef: float
    policy: PeftModel
    """The model with the policy acting, to sample from (`train.rollout.sampling.sample`) or to measure."""
    base: Base
    folder: Path
    """Of the training; the guard may keep files of its own there."""
    roles: Roles
    """All that shares the base, to ask the reference or the reward model."""
    score: Callable[[Sequence[Replied]], list[float | None]]
    """The reward that is trained on, for the guard's own replies; None where it has none to give."""


class Decision(NamedTuple):
    """What is to be done. As it stands: nothing."""

    kl_coef: float | None = None
    """The KL coefficient from now on."""
    stop: bool = False
    return_step: int | None = None
    """With `stop`: the step at which a guard has looked and whose policy is to be handed back; None: this one's."""
    reason: str = ""
    """For the manifest and the report."""


Guard = Callable[[Moment], Decision]


def guard_identity(guard: Guard) -> str:
    """What stands for a guard in the folder's identity: its own `identity`, or its function's name and file."""
    from preceptor.train.rollout.rewards import function_identity

    return getattr(guard, "identity", None) or function_identity(guard)
