"""A linear layer and its low-rank adapter as one step of autograd, for the layers of a model that PPO switches.

PEFT adds `scaling * B(A(x))` to the frozen layer's output by three operations that each go through a tensor as large
as that output, and their derivatives do so again. Here the product with B is added where the output already lies, and
the derivative by x likewise: y = W x + s B A x (Hu et al. 2021, arXiv 2106.09685, equation 3).

Only plain LoRA in the model's own precision is taken over. For all else (DoRA, dropout, autocast, several adapters at
a time, layers of quantised weights) PEFT's own forward stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer


class _Product(torch.autograd.Function):
    """W x + c + s B A x, of which A, B and x may have gradients."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # (N, I)
        low = rows @ down.t()  # (N, r)
        made = functional.linear(rows, weight, bias)  # (N, O)
        made.addmm_(low, up.t(), alpha=scale)
        ctx.scale, ctx.shape = scale, x.shape
        ctx.save_for_backward(x, low, weight, down, up)
        return made.view(*x.shape[:-1], made.shape[-1])

    @staticmethod
    def backward(
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, None, None, Tensor | None, Tensor | None, None]:
        x, low, weight, down, up = ctx.saved_tensors
        slope = gradients[0].reshape(-1, gradients[0].shape[-1])  # (N, O)
        slope_low = (slope @ up).mul_(ctx.scale)  # (N, r)
        by_x = by_down = by_up = None
        if ctx.needs_input_grad[0]:
            by_x = (slope @ weight).addmm_(slope_low, down).view(ctx.shape)
        if ctx.needs_input_grad[3]:
            by_down = slope_low.t() @ x.reshape(-1, x.shape[-1])  # (r, I)
        if ctx.needs_input_grad[4]:
            by_up = (slope.t() @ low).mul_(ctx.scale)  # (O, r)
        return by_x, None, None, by_down, by_up, None


def join(layer: LoraLayer) -> None:
    """Let the layer compute its product in one step wherever it can; what it computes changes by rounding alone."""
    module: Any = layer
    linear = module.get_base_layer()
    if type(linear) is not nn.Linear or linear.weight.requires_grad:
        return
    plain = {
        name: (module.lora_A[name], module.lora_B[name], float(module.scaling[name]))
        for name in module.lora_A
        if name not in module.lora_variant
        and not module.lora_bias[name]
        and isinstance(module.lora_dropout[name], nn.Identity)
    }
    module.forward = _forward(module, linear, plain, module.forward)


def _forward(
    layer: Any,
    linear: nn.Linear,
    plain: Mapping[str, tuple[nn.Linear, nn.Linear, float]],
    otherwise: Callable[..., Tensor],
) -> Callable[..., Tensor]:
    """The layer's forward, which leaves to PEFT's own what it does not know."""

    def forward(x: Tensor, *more: Any, **options: Any) -> Tensor:
        acting = layer.active_adapters
        known = acting[0] in plain and len(acting) == 1 and not layer.merged
        if more or options or not known or torch.is_autocast_enabled(x.device.type):
            return otherwise(x, *more, **options)
        if layer.disable_adapters:
            return functional.linear(x, linear.weight, linear.bias)
        down, up, scale = plain[acting[0]]
        if not x.dtype == linear.weight.dtype == down.weight.dtype:
            return otherwise(x)
        made: Tensor = _Product.apply(x, linear.weight, linear.bias, down.weight, up.weight, scale)  # type: ignore[no-untyped-call]
        return made

    return forward
