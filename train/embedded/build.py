"""Make the shipped tiny model from nothing: one seed, two cores, under an hour.

python -m train.embedded.build [--steps N] [--out DIR] [--seed N]
"""

import argparse
import os
import random
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from preceptor.train.embedded import WEIGHTS
from preceptor.train.embedded.lessons import EARLY, JUDGED, LATE, draw_parts, letter_index, to_lesson
from preceptor.train.embedded.measure import Tiny, quotes, say, verdicts
from preceptor.train.embedded.muon import Muon
from preceptor.train.embedded.packing import PackedBatch, batches
from preceptor.train.embedded.tokens import train_tokenizer

ROWS, LENGTH = 16, 256  # of one batch, about 35 lessons; no lesson is longer than 220 tokens
WARMUP, COOLDOWN = 50, 0.9  # steps; share of the steps in which the rate falls to zero
MATRIX_RATE, VECTOR_RATE = 0.02, 3e-3  # of Muon and of AdamW
EARLY_SHARE = 0.2  # of the steps, with the mix that teaches copying first


class BuildProgress(NamedTuple):
    """One line of the log."""

    step: int
    loss: float  # weighted nats a taught token, averaged since the last line
    accuracy: dict[str, float]  # held-out verdicts, by principle, and `quotes`
    elapsed_s: float


def make_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """The tokenizer from lessons of the training split; the verdict's letters are checked at once."""
    rng = random.Random(f"{seed}/tokenizer")
    parts = [part for _ in range(4000) for part in draw_parts(rng, LATE)]
    tokenizer = train_tokenizer(text for part in parts for text in (part.ask, part.answer))
    letter_index(tokenizer)
    return tokenizer


def make_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """A Llama of two million parameters with fresh weights."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def loss_of(model: LlamaForCausalLM, rows: PackedBatch) -> Tensor:
    """Weighted cross-entropy over the taught tokens alone."""
    hidden = model.model(
        input_ids=rows.tokens, position_ids=rows.positions, attention_mask=rows.mask, use_cache=False
    ).last_hidden_state
    logits = model.lm_head(hidden.flatten(0, 1)[rows.source]).float()  # (N, vocabulary)
    nats = functional.cross_entropy(logits, rows.target, reduction="none")
    return (nats * rows.weight).sum() / rows.weight.sum()


def rate_at(step: int, steps: int) -> float:
    """Share of the full learning rate: up, level, then down to zero."""
    left = (steps - step) / (steps * COOLDOWN)
    return min(1.0, (step + 1) / WARMUP, left)


def make_optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices, AdamW for embeddings and norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        Muon(matrices, lr=MATRIX_RATE, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(others, lr=VECTOR_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def save(tiny: Tiny, out: Path) -> None:
    """All files or none: write beside the folder, then rename."""
    fresh, old = out.with_name(out.name + ".new"), out.with_name(out.name + ".old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    tiny.model.save_pretrained(fresh)
    tiny.tokenizer.save_pretrained(fresh)
    (fresh / "model.safetensors").chmod(0o644)  # safetensors writes for its owner alone
    if out.exists():
        os.replace(out, old)
    os.replace(fresh, out)
    shutil.rmtree(old, ignore_errors=True)


def _report(tiny: Tiny, step: int, loss: float, started: float) -> BuildProgress:
    tiny.model.train(False)
    accuracy = {p: verdicts(tiny, p, 100, seed=1).accuracy for p in JUDGED} | {
        "quotes": quotes(tiny, 100, seed=1)
    }
    tiny.model.train()
    line = BuildProgress(step, loss, accuracy, time.monotonic() - started)
    shares = "  ".join(f"{p} {a:.3f}" for p, a in accuracy.items())
    say(f"step {step:5d}  loss {loss:.4f}  {shares}  {line.elapsed_s:.0f} s")
    return line


def build(steps: int, out: Path, seed: int, every: int) -> list[BuildProgress]:
    """Train, tell how it goes, and leave a checkpoint at `out` at each report."""
    started = time.monotonic()
    tokenizer = make_tokenizer(seed)
    model = make_model(tokenizer, seed)
    tiny = Tiny(model, tokenizer)
    say(f"{model.num_parameters():,} parameters, vocabulary {len(tokenizer)}")
    optimizers = make_optimizers(model)
    full_rates = [group["lr"] for o in optimizers for group in o.param_groups]
    half = torch.cpu._is_amx_tile_supported()  # elsewhere bfloat16 is the slower one; the result is alike
    mix = EARLY
    feed = batches(
        lambda rng: to_lesson(draw_parts(rng, mix), tokenizer),
        random.Random(f"{seed}/lessons"),
        rows=ROWS,
        length=LENGTH,
        pad=tokenizer.pad_token_id,
    )
    log, recent = [], 0.0
    for step in range(steps):
        mix = EARLY if step < EARLY_SHARE * steps else LATE
        for rate, group in zip(full_rates, (g for o in optimizers for g in o.param_groups), strict=True):
            group["lr"] = rate * rate_at(step, steps)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = loss_of(model, next(feed))
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        recent += loss.item()
        if (step + 1) % every == 0 or step + 1 == steps:
            log.append(_report(tiny, step + 1, recent / ((step % every) + 1), started))
            recent = 0.0
            save(tiny, out)
    return log


def main() -> None:
    """Build, and print how judging was learnt."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=200, help="steps between two checkpoints")
    options = parser.parse_args()
    torch.set_num_threads(2)
    log = build(options.steps, options.out, options.seed, options.every)
    say(f"\n{'step':>6} {'loss':>8} " + " ".join(f"{name:>10}" for name in log[0].accuracy))
    for line in log:
        say(
            f"{line.step:6d} {line.loss:8.4f} "
            + " ".join(f"{share:10.3f}" for share in line.accuracy.values())
        )


if __name__ == "__main__":
    main()
