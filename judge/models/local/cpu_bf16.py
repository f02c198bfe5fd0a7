"""Whether a CPU's bfloat16 units are used: where it has some, and a test on this machine finds their results right.

AMX and AVX512-BF16 multiply bfloat16 at two to eight times the rate of float32. A library that has no kernel for them,
or a wrong one, is not seen by the names of units alone; so a small stack of a model's layers is computed forwards and
backwards in both precisions from the same rounded numbers, and the two are compared. Times are told and decide
nothing: a machine that is busy for a moment must not compute otherwise than it did before.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

UNITS = ("amx_bf16", "avx512_bf16")
"""As Linux calls them; amx the faster."""
CPUINFO = Path("/proc/cpuinfo")
SWITCH = "PRECEPTOR_CPU_BF16"
"""The environment variable that forbids it by `off`."""
TOLERANCE = 0.03
"""Largest relative difference of a token's state or gradient: bfloat16 rounds by 0.4 %, some ten times over."""
WIDTH, HEADS, LAYERS = 256, 4, 2
LENGTHS = (1, 37, 128)
"""Tokens of a pass: drawing one, and reading a few and many, are computed by different kernels."""


class CpuBf16(NamedTuple):
    """What was decided for this machine."""

    used: bool
    why: str
    """In words for a person."""


@cache
def cpu_bf16() -> CpuBf16:
    """The decision for this process. torch is imported only where the CPU has such units."""
    if os.environ.get(SWITCH, "").lower() == "off":
        return CpuBf16(False, f"not used: {SWITCH}=off")
    if not (found := units()):
        return decided(found, None)
    return decided(found, difference(), gain())


def units(cpuinfo: Path = CPUINFO) -> tuple[str, ...]:
    """The bfloat16 units that this machine's CPU has; none where the system does not tell."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), [])
    return tuple(unit for unit in UNITS if unit in flags)


def decided(found: Collection[str], apart: float | None, faster: float | None = None) -> CpuBf16:
    """The decision by what was found out.

    found: the units. apart: the largest relative difference from float32; infinite where bfloat16 cannot be computed,
    None where it was not tried. faster: float32's time over bfloat16's, only told.
    """
    if not found:
        return CpuBf16(False, "not used: the CPU has no bf16 units (AMX, AVX512-BF16)")
    named = ", ".join(found)
    if apart is None:
        return CpuBf16(False, f"not used: {named} is there and was not tried")
    if not apart <= TOLERANCE:  # NaN too
        return CpuBf16(
            False, f"not used: {named} gives other results than float32 (by {apart:.1e} of {TOLERANCE})"
        )
    gained = "" if faster is None else f", {faster:.1f} times as fast there"
    return CpuBf16(True, f"used ({named}): results agree with float32 to {apart:.1e}{gained}")


def difference() -> float:
    """Largest relative difference, of any token's state or gradient, between bfloat16 and float32 on this machine."""
    import torch

    worst = 0.0
    try:
        for length in LENGTHS:
            weights, inputs = _numbers(length)
            wanted = _passed([one.float() for one in weights], inputs.float())
            for one, other in zip(_passed(weights, inputs), wanted, strict=True):
                apart = (one.float() - other).norm(dim=-1) / other.norm(dim=-1).clamp_min(1e-12)  # (T,)
                worst = max(worst, apart.max().item()) if apart.isfinite().all() else math.inf
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # whatever a library says that lacks a kernel
        return math.inf
    return worst


def gain() -> float:
    """float32's time over bfloat16's, by the fastest of a few passes; 0 where bfloat16 cannot be computed."""
    weights, inputs = _numbers(LENGTHS[-1])
    single = [one.float() for one in weights]
    try:
        return _fastest_s(single, inputs.float()) / _fastest_s(weights, inputs)
    except RuntimeError:
        return 0.0


def _fastest_s(weights: list[torch.Tensor], inputs: torch.Tensor) -> float:
    found = []
    for _ in range(4):
        began = time.perf_counter()
        _passed(weights, inputs)
        found.append(time.perf_counter() - began)
    return max(min(found), 1e-9)


def _numbers(length: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The weights of the layers and the inputs (T, H), in bfloat16 and always the same."""
    import torch

    source = torch.Generator().manual_seed(length)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=source).bfloat16()

    shapes = [(3 * WIDTH, WIDTH), (WIDTH, WIDTH), (4 * WIDTH, WIDTH), (WIDTH, 4 * WIDTH)] * LAYERS
    return [drawn(*shape) / math.sqrt(shape[1]) for shape in shapes], drawn(length, WIDTH)


def _passed(weights: list[torch.Tensor], inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """States (T, H) behind the layers, and the gradient (T, H) of their sum of squares at the inputs."""
    import torch
    from torch.nn import functional

    with torch.enable_grad():
        begun = inputs.detach().requires_grad_()
        states = begun
        for at in range(0, len(weights), 4):
            into, out, up, down = weights[at : at + 4]
            heads = functional.rms_norm(states, [WIDTH]) @ into.T  # (T, 3H)
            query, key, value = heads.view(1, len(states), 3, HEADS, -1).permute(2, 0, 3, 1, 4)
            mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)  # (1, n, T, d)
            states = states + mixed.transpose(1, 2).reshape(len(states), WIDTH) @ out.T
            states = states + functional.silu(functional.rms_norm(states, [WIDTH]) @ up.T) @ down.T
        (gradient,) = torch.autograd.grad(states.float().square().sum(), begun)
    return states.detach(), gradient
