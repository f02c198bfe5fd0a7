"""How fast this machine computes, from three short measurements of a few hundredths of a second each."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import nn

from preceptor.train.estimate.dry_run import ComputeCost

TRIALS = 3
ROWS = 512
"""Of the matrix that is multiplied: tokens of a small pass."""
MOVED = 2**22
"""Numbers of the tensors that are added: more than a cache holds."""
TINY = 50
"""Layers of the chain of tiny ones."""
CHAIN_OPERATIONS = 4
"""Of such a layer: one forward, three for the derivatives by input, weight and bias."""


class Speed(NamedTuple):
    """Rates of one device."""

    flops_a_s: float
    """Of a matrix product in the width of the model."""
    bytes_a_s: float
    """Of tensors made, two read for each."""
    operation_s: float
    """Of an operation on next to nothing: the call of its layer, and of autograd."""

    def seconds(self, work: ComputeCost) -> float:
        """Time that work takes, as if nothing overlapped."""
        return (
            work.flops / self.flops_a_s
            + work.moved_bytes / self.bytes_a_s
            + work.operations * self.operation_s
        )


@lru_cache(maxsize=8)
def measured_speed(device: torch.device, width: int, dtype: torch.dtype) -> Speed:
    """The rates of a device: products with a square weight of `width`, in `dtype`."""
    with torch.no_grad():
        rows = torch.ones((ROWS, width), dtype=dtype, device=device)
        weight = torch.ones((width, width), dtype=dtype, device=device)
        product_s = _fastest_s(lambda: rows @ weight, device)
        numbers = torch.ones(MOVED, dtype=dtype, device=device)
        sum_s = _fastest_s(lambda: numbers + numbers, device)
    with torch.random.fork_rng(devices=[]):
        layers = nn.Sequential(*(nn.Linear(8, 8, device=device) for _ in range(TINY)))
    tiny = torch.ones((8, 8), device=device)

    def chain() -> None:
        layers(tiny).sum().backward()

    chain_s = _fastest_s(chain, device)
    return Speed(
        flops_a_s=2 * ROWS * width * width / product_s,
        bytes_a_s=numbers.nbytes / sum_s,
        operation_s=chain_s / (CHAIN_OPERATIONS * TINY),
    )


def _fastest_s(work: Callable[[], object], device: torch.device) -> float:
    """Least time of some trials, after one that does not count."""
    found = []
    for _ in range(TRIALS + 1):
        begin = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - begin)
    return max(min(found[1:]), 1e-9)
