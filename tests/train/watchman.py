"""A guard that keeps what it saw and does as it is told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from preceptor.train.ppo.guard_protocol import Decision, Ended, Guarded, Moment


class Watchman:
    """Orders by step; nothing is ordered at the others."""

    def __init__(self, orders: Mapping[int, Decision]) -> None:
        self.identity = "watchman"
        self.orders = orders
        self.moments: list[Moment] = []
        self.policies: dict[int, dict[str, torch.Tensor]] = {}
        self.ended: Ended | None = None

    def __call__(self, moment: Moment) -> Decision:
        self.moments.append(moment)
        self.policies[moment.step] = {
            name.replace(".default", ""): weight.detach().clone()
            for name, weight in moment.policy.named_parameters()
            if ".default." in name
        }
        return self.orders.get(moment.step, Decision())

    def conclude(self, folder: Path, ended: Ended) -> Guarded | None:
        assert (folder / "adapter_model.safetensors").is_file(), "the policy is saved by now"
        self.ended = ended
        return Guarded({"looks": len(self.moments)}, ("all is quiet",)) if self.orders else None
