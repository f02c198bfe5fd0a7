"""A layer's product in one step is PEFT's own but for rounding, and what it does not know it leaves to PEFT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from preceptor.train.models.adapters import adapt
from preceptor.train.models.base import load_base
from preceptor.train.models.lora_forward import join


def layer_of(tiny: Path, bias: bool, **form: bool) -> Any:
    """A LoRA layer with an adapter that is not nothing."""
    from peft.tuners.lora import LoraLayer

    model = adapt(load_base(str(tiny)), 4, 8.0, 0, **form)
    layer: Any = next(module for module in model.modules() if isinstance(module, LoraLayer))
    torch.manual_seed(1)
    nn.init.normal_(layer.lora_B["default"].weight)
    if bias:
        linear = layer.get_base_layer()
        linear.bias = nn.Parameter(torch.randn(linear.out_features), requires_grad=False)
    return layer


def told(layer: Any, x: Tensor) -> list[Tensor]:
    """Output, and the derivatives of its weighted sum by input and adapter."""
    made = layer(x)
    trained = [layer.lora_A["default"].weight, layer.lora_B["default"].weight]
    weights = torch.linspace(-1, 1, made.numel()).view(made.shape)
    return [made.detach(), *torch.autograd.grad((made * weights).sum(), [x, *trained])]


@pytest.mark.parametrize("bias", [False, True])
def test_output_and_derivatives_are_those_of_peft(tiny: Path, bias: bool) -> None:
    layer = layer_of(tiny, bias)
    x = torch.randn(2, 5, layer.in_features, requires_grad=True)
    wanted = told(layer, x)
    join(layer)
    found = told(layer, x)
    assert not torch.equal(wanted[0], layer.get_base_layer()(x)), "the adapter does something"
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_an_adapter_of_zeros_and_none_at_all_are_the_frozen_layer_to_the_bit(tiny: Path) -> None:
    layer = layer_of(tiny, bias=False)
    join(layer)
    x = torch.randn(3, layer.in_features)
    frozen = layer.get_base_layer()(x)
    assert not torch.equal(layer(x), frozen)
    layer._disable_adapters = True
    assert torch.equal(layer(x), frozen)
    layer._disable_adapters = False
    nn.init.zeros_(layer.lora_B["default"].weight)
    assert torch.equal(layer(x), frozen)


def test_what_is_not_plain_is_left_to_peft(tiny: Path) -> None:
    """DoRA, half precision by autocast, an adapter a row, and one merged into the weights."""
    dora = layer_of(tiny, bias=False, dora=True)
    x = torch.randn(3, dora.in_features)
    wanted = dora(x)
    join(dora)
    assert torch.equal(dora(x), wanted)

    layer = layer_of(tiny, bias=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wanted = layer(x)
    a_row = layer(x, adapter_names=["default", "__base__", "default"])
    whole = layer(x)
    join(layer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = layer(x)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, wanted)
    assert torch.equal(layer(x, adapter_names=["default", "__base__", "default"]), a_row)
    layer.merge()
    torch.testing.assert_close(layer(x), whole, rtol=1e-5, atol=1e-5)
