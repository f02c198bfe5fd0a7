"""The update of PPO: minibatches of a step's replies, the policy's and the value function's losses in turn.

Every role's backward pass is done before the next role acts (`train.models.switchboard` says why).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor

from preceptor.train.data.collate_replies import ReplyTokens, groups_of
from preceptor.train.errors import TrainDataError
from preceptor.train.loop.metrics import PolicyFigures, UpdateFigures, ValueFigures
from preceptor.train.models.adapters import POLICY
from preceptor.train.ppo import objective
from preceptor.train.ppo.checkpoint import Optimisers
from preceptor.train.ppo.roles import VALUE, Roles
from preceptor.train.settings import PpoSettings


class Experience(NamedTuple):
    """What is known of B replies, padded right to L tokens, before the update."""

    replies: list[ReplyTokens]
    mask: Tensor  # (B, L) bool
    old: Tensor  # (B, L) log-probabilities under the policy that drew the tokens, in nats
    reference: Tensor  # (B, L) under the reference
    values: Tensor  # (B, L) of the states in which the tokens were drawn
    advantages: Tensor  # (B, L)
    returns: Tensor  # (B, L)


class PolicyNumbers(TypedDict):
    """The arguments of `policy_step`, as in PpoSettings."""

    clip: float
    entropy: float
    max_kl: float | None
    max_grad_norm: float


class ValueNumbers(TypedDict):
    """The arguments of `value_step`, as in PpoSettings."""

    value_clip: float | None
    max_grad_norm: float


def update(
    seen: Experience,
    roles: Roles,
    optimisers: Optimisers,
    policy: PolicyNumbers,
    value: ValueNumbers,
    *,
    rates: tuple[float, float],
    epochs: int,
    minibatches: int,
    shuffled_by: str,
) -> UpdateFigures:
    """`epochs` passes over the replies, in minibatches of whole prompts, each drawn anew. rates: the learning rates of
    policy and value function; shuffled_by: equal texts give equal minibatches.

    The policy's updates end where it has moved by max_kl from the one that drew the replies; the value function
    goes on.
    """
    for optimiser, rate in zip(optimisers, rates, strict=True):
        for group in optimiser.param_groups:
            group["lr"] = rate
    groups = groups_of(seen.replies)
    policy_rows: list[PolicyFigures] = []
    value_rows: list[ValueFigures] = []
    near = True
    roles.train()
    for epoch in range(epochs):
        order = list(groups)
        random.Random(f"{shuffled_by}:{epoch}").shuffle(order)
        for first in range(min(minibatches, len(order))):
            part = order[first::minibatches]
            if near:
                row = policy_step(seen, part, roles, optimisers.policy, **policy)
                near = policy["max_kl"] is None or row["approx_kl"] <= policy["max_kl"]
                policy_rows.append(row)
            value_rows.append(value_step(seen, part, roles, optimisers.value, **value))
    roles.adapted.eval()
    return {
        "policy_loss": _mean([row["policy_loss"] for row in policy_rows]),
        "clip_share": _mean([row["clip_share"] for row in policy_rows]),
        "approx_kl": _mean([row["approx_kl"] for row in policy_rows]),
        "value_loss": _mean([row["value_loss"] for row in value_rows]),
        "value_clip_share": _mean([row["value_clip_share"] for row in value_rows]),
        "explained_variance": objective.explained_variance(seen.values, seen.returns, seen.mask),
        "policy_updates": len(policy_rows) - (not near),
        "learning_rate": rates[0],
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def policy_numbers(settings: PpoSettings) -> PolicyNumbers:
    """Of the settings, the arguments of `policy_step`."""
    return {
        "clip": settings.clip,
        "entropy": settings.entropy,
        "max_kl": settings.max_kl,
        "max_grad_norm": settings.max_grad_norm,
    }


def value_numbers(settings: PpoSettings) -> ValueNumbers:
    """Of the settings, the arguments of `value_step`."""
    return {"value_clip": settings.value_clip, "max_grad_norm": settings.max_grad_norm}


def policy_step(
    seen: Experience,
    part: Sequence[Sequence[int]],
    roles: Roles,
    optimiser: torch.optim.Optimizer,
    *,
    clip: float,
    entropy: float,
    max_kl: float | None,
    max_grad_norm: float,
) -> PolicyFigures:
    """One update of the policy on the replies of `part`, unless it has moved too far already. The numbers are as in
    PpoSettings."""
    roles.board.switch(POLICY)
    tokens = _tokens(seen, part)

    def gradients() -> Tensor:
        sums = torch.zeros(3, device=roles.device)  # loss, clipped, approximate KL
        for batch in roles.batches(seen.replies, part):
            mask = seen.mask[batch.number]  # (b, L)
            old, advantages = seen.old[batch.number][mask], seen.advantages[batch.number][mask]  # (N,)
            said = roles.logprobs(batch, with_entropies=entropy > 0)
            clipped = objective.policy_losses(said.logprobs, old, advantages, clip)
            loss = clipped.losses.sum() / tokens
            if said.entropies is not None:
                loss = loss - entropy * said.entropies.sum() / tokens
            loss.backward()  # type: ignore[no-untyped-call]
            moved = objective.kl_per_token(old, said.logprobs.detach(), "k3")  # (N,)
            sums += torch.stack([loss.detach(), clipped.clipped.sum() / tokens, moved.sum() / tokens])
        return sums

    optimiser.zero_grad(set_to_none=True)
    trained = roles.trained(POLICY)
    loss_value, clip_share, approx_kl = roles.fitting(gradients, seen.replies, part, trained).tolist()
    if max_kl is None or approx_kl <= max_kl:
        _take(optimiser, trained, max_grad_norm)
    return {"policy_loss": loss_value, "clip_share": clip_share, "approx_kl": approx_kl}


def value_step(
    seen: Experience,
    part: Sequence[Sequence[int]],
    roles: Roles,
    optimiser: torch.optim.Optimizer,
    *,
    value_clip: float | None,
    max_grad_norm: float,
) -> ValueFigures:
    """One update of the value function on the replies of `part`. The numbers are as in PpoSettings."""
    roles.board.switch(VALUE)
    tokens = _tokens(seen, part)

    def gradients() -> Tensor:
        sums = torch.zeros(2, device=roles.device)  # loss, clipped
        for batch in roles.batches(seen.replies, part):
            mask = seen.mask[batch.number]  # (b, L)
            old, returns = seen.values[batch.number][mask], seen.returns[batch.number][mask]  # (N,)
            clipped = objective.value_losses(roles.values(batch), old, returns, value_clip)
            loss = clipped.losses.sum() / tokens
            loss.backward()  # type: ignore[no-untyped-call]
            sums += torch.stack([loss.detach(), clipped.clipped.sum() / tokens])
        return sums

    optimiser.zero_grad(set_to_none=True)
    trained = roles.trained(VALUE)
    loss_value, clip_share = roles.fitting(gradients, seen.replies, part, trained).tolist()
    _take(optimiser, trained, max_grad_norm)
    return {"value_loss": loss_value, "value_clip_share": clip_share}


def _tokens(seen: Experience, part: Sequence[Sequence[int]]) -> int:
    return sum(len(seen.replies[at][1]) for group in part for at in group)


def _take(optimiser: torch.optim.Optimizer, weights: Sequence[Tensor], max_grad_norm: float) -> None:
    """One step along the gradient, no longer than `max_grad_norm`."""
    norm = torch.nn.utils.clip_grad_norm_(weights, max_grad_norm)
    if not torch.isfinite(norm):
        raise TrainDataError(
            "the gradient is no longer finite: look at the last rows of metrics.jsonl, and lower the learning rate"
        )
    optimiser.step()
