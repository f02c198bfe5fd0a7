"""Log-probabilities of tokens out of hidden states, with never more than a slice of the logits in memory.

The output layer of a language model is its widest: N tokens times V words, in float32, several times over in
the backward pass. Here N is cut into slices, and a slice's logits are gone before the next one's are made.

Where the output layer is frozen, as under LoRA, the backward pass needs no logits at all. With z = W h the
logit before and y the target, d log p(y) / d h = W^T s (onehot(y) - softmax), s the slope of what the model
does to its logits, is made along with log p(y) itself, and the backward pass is one product with it. This
does in the forward pass what Liger-Kernel's fused losses do (Hsu et al. 2024, arXiv 2410.10989, section 3.2),
for log-probabilities rather than for a mean loss.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from preceptor.judge.models.local.lm_head import Head

SLICE_LOGITS = {"cpu": 2**22, "cuda": 2**27}
"""Logits in memory at a time, by kind of device: enough for a product at full speed, few beside the weights."""


def token_logprobs(hidden: Tensor, targets: Tensor, head: Head) -> Tensor:
    """Log-probability (N,) float32 in nats of `targets` (N,), each after the hidden state (N, H) before it."""
    layer = head.layer
    words = int(cast(Tensor, layer.weight).shape[0])
    step = max(1, SLICE_LOGITS.get(hidden.device.type, SLICE_LOGITS["cpu"]) // words)
    with torch.autocast(hidden.device.type, enabled=False):
        if type(layer) is nn.Linear and not any(parameter.requires_grad for parameter in layer.parameters()):
            logps: Tensor = _FrozenHead.apply(hidden.to(layer.weight.dtype), targets, head, step)  # type: ignore[no-untyped-call]
            return logps
        slices = range(0, len(targets), step)
        return torch.cat(
            [
                checkpoint(
                    _sliced, hidden[at : at + step], targets[at : at + step], head, use_reentrant=False
                )
                for at in slices
            ]
        )


def token_entropies(hidden: Tensor, head: Head) -> Tensor:
    """Entropy (N,) float32 in nats of what the model expects after each hidden state (N, H); a slice of the
    logits is made again in the backward pass."""
    step = max(
        1, SLICE_LOGITS.get(hidden.device.type, SLICE_LOGITS["cpu"]) // int(head.layer.weight.shape[0])
    )
    with torch.autocast(hidden.device.type, enabled=False):
        return torch.cat(
            [
                checkpoint(_entropies, hidden[at : at + step], head, use_reentrant=False)
                for at in range(0, len(hidden), step)
            ]
        )


def _entropies(hidden: Tensor, head: Head) -> Tensor:
    logp = head.logits(hidden.to(head.layer.weight.dtype)).log_softmax(-1)  # (n, V)
    entropies: Tensor = -(logp.exp() * logp).sum(-1)
    return entropies


def _sliced(hidden: Tensor, targets: Tensor, head: Head) -> Tensor:
    logits: Tensor = head.layer(hidden).float() * head.scale  # (n, V)
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    return logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(dim=1)


class _FrozenHead(torch.autograd.Function):
    """`token_logprobs` of a frozen linear layer: values and their derivative by the hidden state at once."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, head: Head, step: int) -> Tensor:
        layer = cast(nn.Linear, head.layer)
        wanted = ctx.needs_input_grad[0]
        logps = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)  # (N,)
        slopes = torch.empty_like(hidden) if wanted else None  # (N, H)
        for at in range(0, len(targets), step):
            part = slice(at, at + step)
            target = targets[part, None]  # (n, 1)
            logits = functional.linear(hidden[part], layer.weight, layer.bias).float()  # (n, V)
            if head.scale != 1.0:
                logits = logits.mul_(head.scale)
            squashed = None
            if head.softcap is not None:
                squashed = torch.tanh(logits / head.softcap)
                logits = head.softcap * squashed
            top = logits.amax(dim=1, keepdim=True)  # (n, 1)
            wanted_logits = logits.gather(1, target) - top  # (n, 1)
            shares = logits.sub_(top).exp_()  # (n, V), the softmax times `total`
            total = shares.sum(dim=1, keepdim=True)  # (n, 1)
            logps[part] = (wanted_logits - total.log())[:, 0]
            if slopes is None:
                continue
            slope = shares.div_(-total)  # (n, V), minus the softmax
            slope.scatter_add_(1, target, torch.ones_like(total))
            if squashed is not None:
                slope *= 1 - squashed**2
            if head.scale != 1.0:
                slope *= head.scale
            torch.mm(slope.to(layer.weight.dtype), layer.weight, out=slopes[part])
        if slopes is not None:
            ctx.save_for_backward(slopes)
        return logps

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (slopes,) = ctx.saved_tensors
        return gradients[0][:, None].to(slopes.dtype) * slopes, None, None, None
