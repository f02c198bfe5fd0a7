"""The device that a training takes place on, and in which form and at what width it computes there."""

from __future__ import annotations

from importlib.util import find_spec

import torch

from preceptor.judge.models.local.cpu_bf16 import cpu_bf16
from preceptor.train.errors import CheckpointError


def accelerator() -> str:
    """Name of the device that training would use beside the CPU; empty where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "Apple GPU (mps)" if torch.backends.mps.is_available() else ""


def training_device() -> torch.device:
    """Where training takes place: the first GPU, where there is one."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def use_bf16(precision: str) -> bool:
    """Whether to compute in bfloat16: `auto` does where the device of a training has units for it that are right."""
    if precision != "auto":
        return precision == "bf16"
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return training_device().type == "cpu" and cpu_bf16().used


def load_dtype(precision: str) -> torch.dtype:
    """In which form to hold the frozen base."""
    return torch.bfloat16 if use_bf16(precision) else torch.float32


def pass_tokens(wanted: int | None, device: torch.device) -> int:
    """Tokens to put through the model at a time. Where none are wanted: few enough for a CPU's cache, enough to keep a
    GPU busy."""
    return wanted or (1024 if device.type == "cpu" else 8192)


def check_four_bit() -> None:
    """Raises CheckpointError where a base cannot be held in nf4."""
    if not torch.cuda.is_available() or find_spec("bitsandbytes") is None:
        raise CheckpointError(
            "four_bit needs a CUDA GPU and the package bitsandbytes; leave it out, or take precision bf16"
        )
