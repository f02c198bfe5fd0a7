"""Log-probabilities in slices against the plain definition: values, gradients, memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from preceptor.train.forward import token_logprobs as module
from preceptor.train.forward.token_logprobs import Head, token_logprobs

N, H, V = 23, 16, 50


def plainly(hidden: Tensor, targets: Tensor, head: Head) -> Tensor:
    logits = head.layer(hidden) * head.scale
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    return torch.log_softmax(logits, -1)[torch.arange(len(targets)), targets]


@pytest.mark.parametrize("slice_logits", [1, 7 * V, 10**9])
@pytest.mark.parametrize("softcap", [None, 0.8])
@pytest.mark.parametrize("scale", [1.0, 0.4])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_equal_the_definition(
    slice_logits: int,
    softcap: float | None,
    scale: float,
    frozen: bool,
    bias: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For one token a slice, uneven slices and one slice; of a trained layer, its own gradients too."""
    monkeypatch.setattr(module, "SLICE_LOGITS", {"cpu": slice_logits})
    torch.manual_seed(0)
    layer = nn.Linear(H, V, bias=bias).requires_grad_(not frozen)
    head = Head(layer, scale, softcap)
    targets = torch.randint(V, (N,))
    weights = torch.randn(N)
    results = []
    for compute in (token_logprobs, plainly):
        hidden = torch.randn(N, H, generator=torch.Generator().manual_seed(1)).requires_grad_()
        layer.zero_grad()
        values = compute(hidden, targets, head)
        (values * weights).sum().backward()
        gradients = [hidden.grad, *(p.grad for p in layer.parameters() if not frozen)]
        results.append([values, *gradients])
    for found, wanted in zip(*results, strict=True):
        assert wanted is not None
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("frozen", [True, False])
def test_no_tensor_of_all_logits_is_made(frozen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing larger than a slice of logits is kept or passed through, forward or backward."""
    from torch.utils._python_dispatch import TorchDispatchMode

    monkeypatch.setattr(module, "SLICE_LOGITS", {"cpu": 4 * V})
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor) and out.dim() == 2 and out.shape[1] == V and len(out) != H:
                largest = max(largest, len(out))  # (H, V) is the layer's own weight, turned
            return out

    layer = nn.Linear(H, V, bias=False).requires_grad_(not frozen)
    hidden = torch.randn(N, H, requires_grad=True)
    with Watch():
        token_logprobs(hidden, torch.randint(V, (N,)), Head(layer, 1.0, None)).sum().backward()
    assert 0 < largest <= 4
