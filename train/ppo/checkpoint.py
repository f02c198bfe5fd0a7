"""What a PPO run leaves behind after each step: rows of metrics, and checkpoints to go on from.

checkpoints/checkpoint-N/state.pt    both adapters, the value head, both optimisers, `Carried`, and the `PassSizes`
metrics.jsonl                        one row a step; of a resumed training the very rows of an unbroken one
timings.jsonl                        seconds of each step, which are never the same twice
"""

from __future__ import annotations

import json
import pickle
import shutil
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from preceptor.constitution.foreign import json_of
from preceptor.train.errors import RunFolderError
from preceptor.train.loop.metrics import PpoMetrics
from preceptor.train.loop.output_folder import (
    CHECKPOINTS,
    METRICS,
    TENSORBOARD,
    Opened,
    altered,
    checkpoint_step,
    keep_metrics,
    mark_whole,
)
from preceptor.train.loop.run import OnTrainingProgress, TrainingProgress, last_row, summary_writer
from preceptor.train.models.adapters import POLICY
from preceptor.train.ppo.objective import Running
from preceptor.train.ppo.roles import VALUE, Roles
from preceptor.train.settings import PpoSettings

STATE, TIMINGS = "state.pt", "timings.jsonl"
PARTS = ("rollouts_and_rewards_s", "look_back_s", "update_s")


class Carried(NamedTuple):
    """What one step hands to the next, beside weights and optimisers."""

    step: int
    kl_coef: float
    running: Running
    """Of all rewards so far."""
    within: list[Tensor]
    """The policy's weights when it was last measured within the KL budget; empty where there is no budget."""
    within_step: int

    def ordered(self, kl_coef: float | None) -> Carried:
        """With the KL coefficient that a guard ordered, if it did."""
        return self if kl_coef is None else self._replace(kl_coef=kl_coef)


class Optimisers(NamedTuple):
    """One for each that is trained."""

    policy: torch.optim.Optimizer
    value: torch.optim.Optimizer


def open_optimisers(roles: Roles) -> Optimisers:
    """Adam for both (Kingma and Ba 2014, arXiv 1412.6980), without weight decay: LoRA starts at no change, and
    decay would pull it back there."""
    return Optimisers(
        *(torch.optim.Adam(roles.trained(role), lr=0.0, fused=True) for role in (POLICY, VALUE))
    )


class Journal:
    """The output folder while it is being written."""

    def __init__(self, opened: Opened, settings: PpoSettings, watch: OnTrainingProgress | None) -> None:
        self.opened = opened
        self._settings = settings
        self._watch = watch
        self._writer = summary_writer(opened.path / TENSORBOARD) if settings.tensorboard else None
        self._began_s = time.monotonic()
        self._first = 0

    def resume(self, roles: Roles, optimisers: Optimisers) -> Carried:
        """Put back what the last checkpoint holds, or begin; rows after it will be written again."""
        carried = Carried(0, self._settings.kl_beta, Running(), [], 0)
        if self.opened.checkpoint is not None:
            state = self._load(checkpoint_step(self.opened.checkpoint))
            for role in (POLICY, VALUE):
                put_weights(roles, role, state[role])
            for optimiser, kept in zip(optimisers, state["optimisers"], strict=True):
                optimiser.load_state_dict(kept)
            roles.room.restore(state.get("room", {}))
            carried = Carried(**{**state["carried"], "running": Running(*state["carried"]["running"])})
        self._first = carried.step
        for name in (METRICS, TIMINGS):
            keep_metrics(self.opened.path / name, carried.step)
        return carried

    def write(self, step: int, steps: int, figures: PpoMetrics, times: Sequence[float]) -> None:
        """One row, and word to whoever watches. `times`: clock at the start of the step, after its rewards, and
        so on."""
        spent = [later - sooner for sooner, later in pairwise(times)]
        timings = {"samples_per_s": self._settings.batch_size / (times[-1] - times[0])}
        if len(spent) == len(PARTS):
            timings |= dict(zip(PARTS, spent, strict=True))
        try:
            for name, row in ((METRICS, figures), (TIMINGS, timings)):
                with (self.opened.path / name).open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"step": step, **row}) + "\n")
        except OSError as error:
            raise _cannot_write(self.opened.path, error) from error
        if self._writer is not None:
            for key, value in figures.items():
                self._writer.add_scalar(f"train/{key}", value, step)
            self._writer.flush()
        if self._watch is not None:
            step_s = (time.monotonic() - self._began_s) / (step - self._first)
            speed = self._settings.batch_size / step_s
            shown = cast("dict[str, float]", dict(figures))
            self._watch(TrainingProgress("ppo", step, steps, shown, speed, step_s * (steps - step)))

    def save(self, carried: Carried, roles: Roles, optimisers: Optimisers, keep_all: bool) -> None:
        """Write a checkpoint, whole or not at all, and drop those that nobody can ask for any more."""
        folder = self._checkpoint(carried.step)
        state = {
            **{role: [weight.detach().cpu() for weight in roles.trained(role)] for role in (POLICY, VALUE)},
            "optimisers": [optimiser.state_dict() for optimiser in optimisers],
            "room": roles.room.saved(),
            "carried": {**carried._asdict(), "running": tuple(carried.running)},
        }
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            torch.save(state, folder / STATE)
            mark_whole(folder)
        except OSError as error:
            raise _cannot_write(self.opened.path, error) from error
        found = sorted(folder.parent.glob("checkpoint-*"), key=checkpoint_step)
        for old in [] if keep_all else found[: -self._settings.keep_checkpoints]:
            shutil.rmtree(old)

    def policy_of(self, step: int) -> list[Tensor]:
        """The policy's weights as they were after a step that has a checkpoint."""
        weights: list[Tensor] = self._load(step)[POLICY]
        return weights

    def last(self) -> dict[str, float]:
        """The last step's figures."""
        return last_row(self.opened.path / METRICS)

    def samples_per_s(self) -> float:
        """Replies a second over all steps, those of earlier commands too."""
        lines = (self.opened.path / TIMINGS).read_text(encoding="utf-8").splitlines()
        return len(lines) / sum(1 / float(json_of(line)["samples_per_s"]) for line in lines)

    def _checkpoint(self, step: int) -> Path:
        return self.opened.path / CHECKPOINTS / f"checkpoint-{step}"

    def _load(self, step: int) -> dict[str, Any]:
        path = self._checkpoint(step) / STATE
        if names := altered(path.parent):
            raise RunFolderError(
                f"{path.parent}: {names[0]} is not as it was written: remove that checkpoint and run the command again"
            )
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise RunFolderError(
                f"{path} cannot be read ({error}): remove that checkpoint and run the command again"
            ) from error
        return state


def copy_weights(roles: Roles, role: str) -> list[Tensor]:
    """A role's trained weights, to put back later."""
    return [weight.detach().cpu().clone() for weight in roles.trained(role)]


def put_weights(roles: Roles, role: str, weights: list[Tensor]) -> None:
    """Give a role the weights that it had once."""
    with torch.no_grad():
        for weight, kept in zip(roles.trained(role), weights, strict=True):
            weight.copy_(kept)


def _cannot_write(folder: Path, error: OSError) -> RunFolderError:
    return RunFolderError(
        f"cannot write to {folder}: {error}. Mend it and run the command again: it goes on from the last checkpoint"
    )
