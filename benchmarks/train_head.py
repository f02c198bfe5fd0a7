"""Log-probabilities of reply tokens, forward and backward: in slices against all logits at once.

    python benchmarks/train_head.py             # ten seconds on one core

Each way is a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

import typer

TOKENS, WIDTH, WORDS = 2048, 512, 50_000


def main(way: str = "") -> None:
    """Both ways, or the one that is named."""
    if way:
        typer.echo(json.dumps(measure(way)))
        return
    typer.echo(
        f"{TOKENS} tokens, width {WIDTH}, {WORDS} words, one core\n\n| | CPU, s | memory, MiB | gradient |"
    )
    typer.echo("|---|---:|---:|---:|")
    for each in ("slices", "all logits"):
        call = [sys.executable, __file__, "--way", each]
        ended = subprocess.run(call, capture_output=True, text=True, check=True)
        cpu_s, mib, gradient = json.loads(ended.stdout)
        typer.echo(f"| {each} | {cpu_s:.1f} | {mib:.0f} | {gradient:.2f} |")


def measure(way: str) -> tuple[float, float, float]:
    """CPU seconds, peak MiB beyond what stood before, and the sum of the gradient's sizes."""
    import torch
    from torch import nn

    from preceptor.train.forward.token_logprobs import Head, token_logprobs

    torch.set_num_threads(1)
    torch.manual_seed(0)
    layer = nn.Linear(WIDTH, WORDS, bias=False).requires_grad_(False)
    hidden = torch.randn(TOKENS, WIDTH, requires_grad=True)
    targets = torch.randint(WORDS, (TOKENS,))
    before, began_s = peak_mib(), time.process_time()
    if way == "slices":
        logps = token_logprobs(hidden, targets, Head(layer, 1.0, None))
    else:
        logits = layer(hidden)  # (N, V)
        logps = logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(1)
    logps.sum().backward()
    assert hidden.grad is not None
    gradient = hidden.grad.double().abs().sum().item()
    return time.process_time() - began_s, peak_mib() - before, gradient


def peak_mib() -> float:
    """The most memory that the process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    typer.run(main)
