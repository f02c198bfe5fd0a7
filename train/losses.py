"""Losses on preference pairs, as pure functions of tensors.

The losses carry the judge's probability p that the chosen reply is the better one, where the papers have a
hard label (p = 1). With d the model's own log-odds for the chosen reply,

    loss(d, p)   = -p log sigmoid(d) - (1 - p) log sigmoid(-d)                          (B,)
    d loss / d d = sigmoid(d) - p

which is the cross-entropy between the judge and the model: it is smallest, and its gradient zero, where the
model gives the chosen reply exactly the probability p. At p = 1 it is the papers' loss, at p = 0 the same
with the replies exchanged. It can be written without the second sigmoid, since log sigmoid(-d) = log
sigmoid(d) - d:

    loss(d, p)   = -log sigmoid(d) + (1 - p) d

The same is done to every other loss f here: p f(d) + (1 - p) f(-d), which is what f would be on average over
labels drawn from the judge (`expected`).

Left out of the papers: ties, and losses over more than two replies.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

PerPair = Float[Tensor, "*B"]
"""A number for each pair (B,), or for each pair and head (B, K)."""
Broadcast = Float[Tensor, "*#B"]
"""The same, or one number for all heads or pairs."""
Lengths = Shaped[Tensor, "*B"]
"""Tokens of each reply (B,)."""


def expected(loss: Callable[[Tensor], Tensor], log_odds: PerPair, probability: Broadcast) -> PerPair:
    """p f(d) + (1 - p) f(-d), (B,): a loss f of log-odds d, under the judge's probability of the label."""
    return probability * loss(log_odds) + (1 - probability) * loss(-log_odds)


def smoothed(probability: PerPair, smoothing: float) -> PerPair:
    """The probability (B,) after a share `smoothing` of the labels is exchanged: (1 - e) p + e (1 - p).

    On hard labels this is the conservative DPO of Mitchell 2023 (a note on DPO with noisy preferences, eq. 3)
    and label smoothing in any other loss.
    """
    return probability * (1 - smoothing) + (1 - probability) * smoothing


def soft_bradley_terry(
    chosen_rewards: PerPair,
    rejected_rewards: PerPair,
    probability: Broadcast,
    margin: Broadcast | float = 0.0,
) -> PerPair:
    """Loss (B,) of rewards (B,) and (B,) whose difference is the log-odds that the chosen reply is better.

    Bradley and Terry 1952; the hard form (p = 1) is Ouyang et al. 2022 (arXiv 2203.02155), equation 1, and
    training on an AI judge's probabilities is Bai et al. 2022 (arXiv 2212.08073), section 4.1. `margin` (B,)
    is by how much the reply labelled better must win: Touvron et al. 2023 (arXiv 2307.09288), equation 2.
    """
    return expected(
        lambda log_odds: -logsigmoid(log_odds - margin), chosen_rewards - rejected_rewards, probability
    )


def off_centre(chosen_rewards: PerPair, rejected_rewards: PerPair) -> PerPair:
    """(r_chosen + r_rejected)^2, (B,): keeps rewards around zero, where a difference alone leaves them free.

    Eisenstein et al. 2023 (arXiv 2312.09244), equation 2, where it is weighted by 0.01.
    """
    return (chosen_rewards + rejected_rewards) ** 2


def implicit_rewards(policy_logps: PerPair, reference_logps: PerPair, beta: float) -> PerPair:
    """beta * (log pi - log pi_ref), the reward (B,) that a policy implies up to a constant of the prompt.

    Rafailov et al. 2023 (arXiv 2305.18290), equation 5 without its partition term, which cancels in a pair.
    """
    return beta * (policy_logps - reference_logps)


def hinge(log_odds: PerPair) -> PerPair:
    """max(0, 1 - d), (B,).

    Zhao et al. 2023 (arXiv 2305.10425), the calibration loss of SLiC-HF, on DPO's log-odds as Liu et al. 2023
    (arXiv 2309.06657) compare it, with the slope 1 / beta in beta.
    """
    return relu(1 - log_odds)


def robust(log_odds: PerPair, flipped: float) -> PerPair:
    """((1 - e) f(d) - e f(-d)) / (1 - 2 e), (B,), f = -log sigmoid and e < 1/2 the share of flipped labels.

    Chowdhury et al. 2024 (arXiv 2403.00409), the loss of robust DPO: over labels flipped at that rate its mean
    is f of the clean label.
    """
    return (-(1 - flipped) * logsigmoid(log_odds) + flipped * logsigmoid(-log_odds)) / (1 - 2 * flipped)


def ipo(gap: PerPair, beta: float) -> PerPair:
    """(h - 1 / (2 beta))^2, (B,), h the log-ratio of the better reply less that of the worse one.

    Azar et al. 2023 (arXiv 2310.12036), equation 17, beta being its tau. As the authors told TRL's, h is
    taken per token of each reply (`per_token`), or the loss would grow with length. Under a probability p
    (`expected`) the least is at h = (2 p - 1) / (2 beta): unlike DPO's, it is finite at p = 1.
    """
    return (gap - 1 / (2 * beta)) ** 2


def per_token(logps: PerPair, lengths: Lengths) -> PerPair:
    """Log-probabilities (B,) over the number of tokens (B,), in nats a token."""
    return logps / lengths


def length_weighted(total: PerPair, common: PerPair, alpha: float) -> PerPair:
    """Log-probability (B,) of a reply whose tokens beyond the length of the shorter one count `alpha` of 1.

    Liu et al. 2024 (arXiv 2409.06411), LD-DPO: the longer reply's surplus, being most of the difference in
    probability, pulls less. alpha = 1 is DPO.
    """
    return alpha * total + (1 - alpha) * common


def negative_log_likelihood(chosen_logps: PerPair, chosen_lengths: Lengths) -> PerPair:
    """-log pi(chosen) per token, (B,): keeps the chosen reply's own probability from falling with the other's.

    Pang et al. 2024 (arXiv 2404.19733), equation 1, the second term.
    """
    return -chosen_logps / chosen_lengths
