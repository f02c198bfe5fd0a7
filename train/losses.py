"""Losses on preference pairs, as pure functions of tensors.

Both losses carry the judge's probability p that the chosen reply is the better one, where the papers have a
hard label (p = 1). With d the model's own log-odds for the chosen reply,

    loss(d, p)   = -p log sigmoid(d) - (1 - p) log sigmoid(-d)                          (B,)
    d loss / d d = sigmoid(d) - p

which is the cross-entropy between the judge and the model: it is smallest, and its gradient zero, where the
model gives the chosen reply exactly the probability p. At p = 1 it is the papers' loss, at p = 0 the same
with the replies exchanged. It can be written without the second sigmoid, since log sigmoid(-d) = log
sigmoid(d) - d:

    loss(d, p)   = -log sigmoid(d) + (1 - p) d

Left out of the papers: margins, ties, length normalisation.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid


def soft_cross_entropy(logits: Tensor, probability: Tensor) -> Tensor:
    """Cross-entropy (B,) in nats of log-odds (B,) against soft labels (B,) in 0..1."""
    return -(probability * logsigmoid(logits) + (1 - probability) * logsigmoid(-logits))


def soft_bradley_terry(chosen_rewards: Tensor, rejected_rewards: Tensor, probability: Tensor) -> Tensor:
    """Loss (B,) of rewards (B,) and (B,) whose difference is the log-odds that the chosen reply is better.

    Bradley and Terry 1952; the hard form (p = 1) is Ouyang et al. 2022 (arXiv 2203.02155), equation 1, and
    training on an AI judge's probabilities is Bai et al. 2022 (arXiv 2212.08073), section 4.1.
    """
    return soft_cross_entropy(chosen_rewards - rejected_rewards, probability)


def implicit_rewards(policy_logps: Tensor, reference_logps: Tensor, beta: float) -> Tensor:
    """beta * (log pi - log pi_ref), the reward (B,) that a policy implies up to a constant of the prompt.

    Rafailov et al. 2023 (arXiv 2305.18290), equation 5 without its partition term, which cancels in a pair.
    """
    return beta * (policy_logps - reference_logps)


def soft_dpo(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    probability: Tensor,
    beta: float,
) -> Tensor:
    """Loss (B,) of the summed log-probabilities (B,) of whole replies, in nats, under policy and reference.

    Rafailov et al. 2023 (arXiv 2305.18290), equation 7, with the soft label in place of the hard one. With
    d = beta (log pi/pi_ref of chosen - log pi/pi_ref of rejected) the gradient for the chosen log-probability
    is beta (sigmoid(d) - p), and for the rejected one its negative. A constant p < 1 for all pairs is the
    paper's conservative variant (label smoothing 1 - p).
    """
    chosen = implicit_rewards(policy_chosen, reference_chosen, beta)
    rejected = implicit_rewards(policy_rejected, reference_rejected, beta)
    return soft_cross_entropy(chosen - rejected, probability)
