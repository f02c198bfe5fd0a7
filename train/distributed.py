"""Several processes that train together, as a launcher started them: who is first, and waiting for one another.

Every process reads the same rows and takes every n-th pair of each step; gradients are averaged. Whatever is
written, is written by the first.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, distributed

ItemT = TypeVar("ItemT")


def gpus() -> int:
    """How many there are for one process each."""
    return torch.cuda.device_count()


def count() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def number() -> int:
    """This process's number among them, from 0."""
    return int(os.environ.get("RANK", "0"))


def first() -> bool:
    """Whether this is the one that writes."""
    return number() == 0


def share(items: Sequence[ItemT]) -> Sequence[ItemT]:
    """This process's items: every n-th."""
    return items[number() :: count()]


def wait() -> None:
    """Go on when all have come here."""
    if distributed.is_initialized():
        distributed.barrier()


def summed(figures: Mapping[str, float]) -> dict[str, float]:
    """The figures, each summed over all processes, which must all call this with the same names."""
    if not distributed.is_initialized():
        return dict(figures)
    device = torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")
    values: Tensor = torch.tensor(
        [figures[name] for name in sorted(figures)], dtype=torch.float64, device=device
    )
    distributed.all_reduce(values)
    return dict(zip(sorted(figures), values.tolist(), strict=True))
