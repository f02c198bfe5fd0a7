"""What PPO computes of numbers alone: pure functions on (B, T) arrays of B replies, padded right to T tokens.

A mask (B, T) is true at a reply's tokens; what stands elsewhere is never read, and comes back as zero.

Schulman et al. 2017, arXiv 1707.06347    the clipped objective; its value clipping is that of their published
                                          code, which the paper does not mention
Schulman et al. 2015, arXiv 1506.02438    generalised advantage estimation
Ziegler et al. 2019, arXiv 1909.08593     the KL penalty in the reward, its controller, the penalty for replies
                                          that do not end
Schulman 2020, joschu.net/blog/kl-approx  estimators k1 and k3 of the KL divergence
Yu et al. 2025, arXiv 2503.14476          the soft penalty for replies that come close to the limit
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Estimator = Literal["k1", "k3"]
TokenValues = Float[Tensor, "B T"]
"""A number for each token of B replies."""
Mask = Bool[Tensor, "B T"]
PerReply = Float[Tensor, "B"]
Numbers = Float[Tensor, "*N"]
"""A number for each token, in whatever array they stand."""
TokenMask = Bool[Tensor, "*N"]
Scalar = Float[Tensor, ""]


class Advantages(NamedTuple):
    """What a token was worth."""

    advantages: TokenValues
    returns: TokenValues  # what the value function should have said


class Clipped(NamedTuple):
    """Losses of tokens, and where the bound was reached."""

    losses: Numbers
    clipped: TokenMask


class Running(NamedTuple):
    """Number, mean and sum of squared distances from it of all numbers so far."""

    seen: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    @property
    def std(self) -> float:
        """Standard deviation; 1 as long as there is none to speak of."""
        spread = math.sqrt(self.squares / (self.seen - 1)) if self.seen > 1 else 0.0
        return spread if spread > 1e-8 else 1.0

    def joined(self, numbers: Tensor) -> Running:
        """With more numbers (n,); Chan, Golub and LeVeque 1983, equations 2.1."""
        count = float(numbers.numel())
        if not count:
            return self
        mean = float(numbers.double().mean())
        squares = float(((numbers.double() - mean) ** 2).sum())
        total = self.seen + count
        gap = mean - self.mean
        return Running(
            total,
            self.mean + gap * count / total,
            self.squares + squares + gap * gap * self.seen * count / total,
        )

    def normalised(self, numbers: Tensor) -> Tensor:
        """Distances (n,) from the mean in standard deviations."""
        return (numbers - self.mean) / self.std


def kl_per_token(logprobs: Numbers, reference: Numbers, estimator: Estimator) -> Numbers:
    """Of tokens drawn from the policy, an estimate of KL(policy || reference) in nats, in the arrays' shape.

    With d = log reference - log policy: k1 = -d, unbiased and of either sign; k3 = exp(d) - 1 - d, unbiased,
    never negative, and of less variance while the two are close. Schulman 2020.
    """
    gap = reference - logprobs
    return -gap if estimator == "k1" else gap.exp() - 1 - gap


def adapted_coefficient(coefficient: float, kl_nats: float, target_nats: float | None) -> float:
    """The next KL coefficient. Ziegler et al. 2019, section 2.2, with K = 0.1; without a target it stays.

    e = clip(kl / target - 1, -0.2, 0.2); next = coefficient * (1 + K e)
    """
    if target_nats is None:
        return coefficient
    error = min(max(kl_nats / target_nats - 1, -0.2), 0.2)
    return coefficient * (1 + 0.1 * error)


def token_rewards(rewards: PerReply, kl: TokenValues, coefficient: float, mask: Mask) -> TokenValues:
    """(B, T): -coefficient * kl at every token, and the reply's reward (B,) at its last.

    Ziegler et al. 2019, equation 2; Ouyang et al. 2022 (arXiv 2203.02155), equation 2.
    """
    last = mask.sum(dim=1) - 1  # (B,)
    spread = torch.zeros_like(kl).scatter(1, last[:, None], rewards[:, None])
    return (spread - coefficient * kl) * mask


def length_penalties(lengths: PerReply, per_token: float, limit: int, buffer: int) -> PerReply:
    """What replies (B,) lose for their length: `per_token` for each token, and up to 1 close to the limit.

    The latter grows from 0 at limit - buffer tokens to 1 at the limit: Yu et al. 2025, equation 13. A buffer of
    0 switches it off.
    """
    lost = per_token * lengths
    if buffer:
        lost = lost + ((lengths - (limit - buffer)) / buffer).clamp(0, 1)
    return lost


def gae(rewards: TokenValues, values: TokenValues, mask: Mask, gamma: float, lam: float) -> Advantages:
    """Generalised advantages of tokens. Schulman et al. 2015, equations 11 and 16:

    delta_t = r_t + gamma V(s_t+1) - V(s_t);  A_t = delta_t + gamma lam A_t+1;  return_t = A_t + V(s_t)

    After a reply's last token there is nothing: V = 0 and A = 0.
    """
    rewards, values = rewards * mask, values * mask  # so that what follows the last token is worth 0
    advantage = torch.zeros_like(rewards[:, 0])  # (B,)
    following = torch.zeros_like(advantage)  # (B,)
    columns: list[Tensor] = []
    for at in range(rewards.shape[1] - 1, -1, -1):
        delta = rewards[:, at] + gamma * following - values[:, at]
        advantage = (delta + gamma * lam * advantage) * mask[:, at]
        following = values[:, at]
        columns.append(advantage)
    advantages = torch.stack(columns[::-1], dim=1)  # (B, T)
    return Advantages(advantages, (advantages + values) * mask)


def masked_mean(numbers: Numbers, mask: TokenMask) -> Scalar:
    """Mean () over the tokens; 0 where there are none."""
    return (numbers * mask).sum() / mask.sum().clamp(min=1)


def whitened(numbers: Numbers, mask: TokenMask, keep_mean: bool = False) -> Numbers:
    """(B, T) with variance 1 over all tokens, and mean 0 unless it is kept."""
    mean = masked_mean(numbers, mask)
    variance = masked_mean((numbers - mean) ** 2, mask)
    scaled = (numbers - mean) * (variance + 1e-8).rsqrt()
    return (scaled + mean if keep_mean else scaled) * mask


def policy_losses(logprobs: Numbers, old: Numbers, advantages: Numbers, clip: float) -> Clipped:
    """The clipped surrogate, as a loss. Schulman et al. 2017, equation 7, negated:

    max(-A ratio, -A clip(ratio, 1 - clip, 1 + clip)), ratio = exp(logprobs - old)
    """
    ratio = (logprobs - old).exp()
    free = -advantages * ratio
    bound = -advantages * ratio.clamp(1 - clip, 1 + clip)
    return Clipped(torch.maximum(free, bound), bound > free)


def value_losses(values: Numbers, old: Numbers, returns: Numbers, clip: float | None) -> Clipped:
    """Half the squared error, the greater of the value's own and that of the value kept within `clip` of what
    it was. The published code of Schulman et al. 2017 (openai/baselines, ppo2/model.py); None does not clip."""
    free = (values - returns) ** 2
    if clip is None:
        return Clipped(0.5 * free, torch.zeros_like(free, dtype=torch.bool))
    bound = (old + (values - old).clamp(-clip, clip) - returns) ** 2
    return Clipped(0.5 * torch.maximum(free, bound), bound > free)


def explained_variance(values: Numbers, returns: Numbers, mask: TokenMask) -> float:
    """1 - Var(returns - values) / Var(returns) over the tokens: 1 is perfect, 0 as good as a constant."""
    spread = returns[mask].var(unbiased=False)
    return float(1 - (returns - values)[mask].var(unbiased=False) / spread) if spread > 0 else 0.0


def linear_rate(peak: float, step: int, steps: int, warmup: float) -> float:
    """Learning rate of step 1 .. steps: it rises over the first `warmup` share and falls linearly to zero."""
    rising = math.ceil(warmup * steps)
    if step < rising:
        return peak * step / rising
    return peak * (steps + 1 - step) / (steps + 1 - max(rising, 1))
