"""Where a guard looks into a training, and what it may order.

A guard is called before the first step and then every `guard_every` steps, after the step's updates and before
its checkpoint is written, so that what it orders is in the checkpoint. It is not called again for steps before a
checkpoint from which a training is resumed: what it wants to remember, it keeps in the folder itself. When the
training is over it concludes, and may leave figures and notes for the manifest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

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
    metrics: Mapping[str, Any]
    """The step's figures, as `train.loop.metrics.PpoMetrics`; empty at step 0."""
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


class Ended(NamedTuple):
    """How a run came to its end."""

    step: int
    """The step whose policy is handed back."""
    stopped: dict[str, Any]
    """`step`, `reason` and `returned_step`; empty where it went to its last step."""


class Guarded(NamedTuple):
    """What a guard leaves in the manifest."""

    figures: dict[str, Any]
    notes: tuple[str, ...]


class Guard(Protocol):
    """Looks into a training and gives orders."""

    @property
    def identity(self) -> str:
        """Stands for the guard in the folder's identity: it changes where the guard's orders could."""

    def __call__(self, moment: Moment) -> Decision:
        """Look, and say what is to be done."""

    def conclude(self, folder: Path, ended: Ended) -> Guarded | None:
        """The training is over and its policy saved. The guard may write to the training's folder; None: nothing for
        the manifest."""
