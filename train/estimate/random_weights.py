"""Models with random weights: of a config's form and of few layers, to try and to time what a training will do."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from preceptor.train.errors import MemoryShortError
from preceptor.train.estimate.dry_run import take_tensors
from preceptor.train.estimate.memory import available_bytes

PATTERN = 65_537
"""Made-up numbers, repeated over all weights; prime, so that the rows of a weight differ."""
SMALL = 1e-3
"""Of weights that are trained, beside the others."""
SHARE = 0.5
"""Of the memory to be had that such a model may take."""


def layers_of(config: Any) -> int:
    """How many layers a model has."""
    return int(config.get_text_config().num_hidden_layers)


def with_layers(config: Any, layers: int) -> Any:
    """The config of a model with the first `layers` layers alone."""
    config = copy.deepcopy(config)
    text = config.get_text_config()
    if layers < layers_of(config):
        if getattr(text, "layer_types", None):
            text.layer_types = list(text.layer_types)[:layers]
        text.num_hidden_layers = layers
    return config


def fill_with_random_weights(module: nn.Module, device: torch.device) -> None:
    """Give a skeleton weights, such that numbers stay near one from layer to layer, without any chance.

    Those that are trained are small, so that policy and reference nearly agree, as they do at first: far apart, a
    loss is so flat that its gradients are denormal numbers, with which a CPU takes ten times as long.
    Raises MemoryShortError before it takes more than SHARE of the memory to be had.
    """
    tensors = [*module.parameters(), *module.buffers()]
    needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor.is_meta)
    available = available_bytes(device)
    if available is not None and needed > SHARE * available:
        raise MemoryShortError(
            f"{needed / 2**20:.0f} MiB for a few layers, and {available / 2**20:.0f} MiB available"
        )
    pattern = torch.randn(PATTERN, generator=torch.Generator().manual_seed(0))

    def numbers(like: Tensor) -> Tensor:
        if not like.is_floating_point() or like.dim() < 2:
            return torch.ones(like.shape, dtype=like.dtype, device=device)
        scale = (SMALL if like.requires_grad else 1.0) / like.shape[-1] ** 0.5
        scaled: Tensor = (scale * pattern).to(device, like.dtype)
        return scaled.repeat(-(-like.numel() // PATTERN))[: like.numel()].view(like.shape)

    take_tensors(module, numbers)
