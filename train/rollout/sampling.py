"""Replies of a model to prompts in tokens, sampled in batches with a cache of keys and values.

    P prompts, S samples each    P * S replies, those to one prompt side by side
    prompt                       read once, its cache repeated for its samples
    row whose reply has ended    leaves the batch, so that nobody computes for it

A reply's t-th token is drawn with the t-th of the random numbers that belong to its row, so that it depends
neither on company in the batch nor on how the batch was cut; only rounding does.

The log-probabilities and entropies are those of the model itself, at temperature 1 over all tokens: this is the
policy that PPO trains and measures. With another `temperature`, or `top_p` below 1, replies come from a
sharper or flatter distribution than that policy, and the gradient is biased accordingly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from preceptor.judge.models.local.lm_head import head_of
from preceptor.judge.models.local.model import pick
from preceptor.train.forward.reply_logprobs import causal_model

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


class Sampling(NamedTuple):
    """How replies are drawn."""

    temperature: float
    top_p: float
    max_new_tokens: int
    stops: frozenset[int]
    """Tokens that end a reply; the one that does is its last."""
    batch_tokens: int
    """Tokens, of prompts and of room for their replies, that are held in the cache at a time."""


class Rollout(NamedTuple):
    """One reply and what the model thought of it, of n tokens."""

    prompt: list[int]
    reply: list[int]
    logprobs: Tensor
    """(n,) float32, in nats."""
    entropies: Tensor
    """(n,) float32, of the distribution that each token was drawn from, in nats."""
    ended: bool
    """Whether it came to a stop token by itself."""
    sampler: Tensor | None = None
    """(n,) float32, what a server that drew it thought of it, in nats."""


@torch.no_grad()
def sample(
    model: PeftModel | PreTrainedModel,
    prompts: Sequence[list[int]],
    samples: int,
    how: Sampling,
    seed: int,
) -> list[Rollout]:
    """`samples` replies to each prompt, in the order of the prompts; equal seeds give equal replies."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(len(prompts), samples, how.max_new_tokens, generator=generator)  # (P, S, L)
    order = sorted(range(len(prompts)), key=lambda at: (len(prompts[at]), at))
    found: dict[int, list[Rollout]] = {}
    batch: list[int] = []
    for at in [*order, None]:
        full = (
            at is None
            or (len(prompts[at]) + how.max_new_tokens) * samples * (len(batch) + 1) > how.batch_tokens
        )
        if batch and full:
            replies = _batch(model, [prompts[i] for i in batch], draws[batch], how)
            found |= dict(zip(batch, replies, strict=True))
            batch = []
        if at is not None:
            batch.append(at)
    return [rollout for at in range(len(prompts)) for rollout in found[at]]


def _batch(
    model: PeftModel | PreTrainedModel, prompts: Sequence[list[int]], draws: Tensor, how: Sampling
) -> list[list[Rollout]]:
    """The replies of each prompt, for `draws` (P, S, L)."""
    from transformers import DynamicCache

    causal: Any = causal_model(model)
    device = causal.device
    samples = draws.shape[1]
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in prompts], device=device)  # (P, T)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts], device=device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)  # (P, T)
    cache = DynamicCache(config=causal.config)
    logits = _next_logits(causal, ids, mask, positions, cache).repeat_interleave(samples, 0)  # (B, V)
    if samples > 1:
        cache.batch_repeat_interleave(samples)
    mask = mask.repeat_interleave(samples, 0)  # (B, T)
    position = positions[:, -1:].repeat_interleave(samples, 0)  # (B, 1)
    draws = draws.flatten(0, 1).to(device)  # (B, L)
    stops = torch.tensor(sorted(how.stops), device=device)
    count, longest = draws.shape
    tokens = torch.zeros((count, longest), dtype=torch.long, device=device)  # (B, L)
    logps = torch.zeros((count, longest), device=device)  # (B, L)
    entropies = torch.zeros((count, longest), device=device)  # (B, L)
    lengths = torch.full((count,), longest, device=device)  # (B,)
    ended = torch.zeros(count, dtype=torch.bool, device=device)  # (B,)
    alive = torch.arange(count, device=device)  # (b,) rows still in the batch
    for step in range(longest):
        shares = logits.softmax(-1)  # (b, V)
        drawn = _draw(logits, shares, draws[alive, step], how)  # (b,)
        logp = shares.gather(1, drawn[:, None])[:, 0].log()  # (b,)
        own = logits.gather(1, drawn[:, None])[:, 0]  # (b,)
        tokens[alive, step] = drawn
        logps[alive, step] = logp
        # H = log sum exp(z) - sum p z, and the former is the drawn token's z - log p. A share of 0 adds nothing, also
        # where z is minus infinity; the logits are not needed any more.
        entropies[alive, step] = own - logp - logits.mul_(shares).nansum(-1)
        stopped = torch.isin(drawn, stops)  # (b,)
        ended[alive] = stopped
        lengths[alive[stopped]] = step + 1
        if step + 1 == longest or bool(stopped.all()):
            break
        if bool(stopped.any()):
            kept = (~stopped).nonzero()[:, 0]
            cache.batch_select_indices(kept)
            alive, drawn, mask, position = alive[kept], drawn[kept], mask[kept], position[kept]
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
        position = position + 1
        logits = _next_logits(causal, drawn[:, None], mask, position, cache)
    rows = [
        Rollout(
            prompts[row // samples],
            tokens[row, :n].tolist(),
            logps[row, :n].cpu(),
            entropies[row, :n].cpu(),
            end,
        )
        for row, (n, end) in enumerate(zip(lengths.tolist(), ended.tolist(), strict=True))
    ]
    return [rows[at : at + samples] for at in range(0, count, samples)]


def _next_logits(causal: Any, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> Tensor:
    """Logits (b, V) float32 of the token after the last."""
    how = {"attention_mask": mask, "position_ids": positions, "past_key_values": cache, "use_cache": True}
    if (head := head_of(causal)) is None:
        logits: Tensor = causal(input_ids=ids, **how, logits_to_keep=1).logits[:, -1].float()
        return logits
    last = causal.base_model(input_ids=ids, **how).last_hidden_state[:, -1]  # (b, H)
    found: Tensor = head.logits(last)
    return found


def _draw(logits: Tensor, shares: Tensor, draw: Tensor, how: Sampling) -> Tensor:
    """One token (b,) for each row, by its random number `draw` (b,): where the running sum of the distribution
    passes it. `shares` (b, V): the softmax of the logits."""
    if how.top_p < 1:
        temperature = torch.full_like(draw, how.temperature)
        return pick(logits, temperature, torch.full_like(draw, how.top_p), draw)
    if how.temperature != 1:
        shares = (logits / how.temperature).softmax(-1)
    running = shares.cumsum(-1)  # (b, V)
    place = torch.searchsorted(running, draw[:, None] * running[:, -1:], right=True)[:, 0]
    return place.clamp(max=logits.shape[1] - 1)
