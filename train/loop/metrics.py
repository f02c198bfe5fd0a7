"""The rows of metrics.jsonl as JSON has them, one for each step: who writes them and who reads them go by these types.

The trainings on files, GRPO and RLOO run in transformers' Trainer: its figures stand beside each training's own. A row
of PPO holds its figures beside `step`.
"""

from __future__ import annotations

from typing import NotRequired

from typing_extensions import TypedDict


class TrainerMetrics(TypedDict):
    """What transformers' Trainer says of a step."""

    step: int
    """From 1."""
    loss: float
    grad_norm: float
    learning_rate: float
    epoch: float


class HeldOutMetrics(TypedDict):
    """A row of its own after a step whose checkpoint was measured on held-out pairs."""

    step: int
    held_out_loss: float
    held_out_accuracy: float
    epoch: float


class SftMetrics(TrainerMetrics):
    """A step of SFT."""

    entropy: float
    """Of the policy's next token, in nats."""
    mean_token_accuracy: float


class JudgeMetrics(TrainerMetrics):
    """A step of tuning a judge."""

    accuracy: float
    """Share of asks whose answer names the reply that the verdict names."""
    confidence: float
    """Mean probability of the reply that is named."""


class PairMetrics(TrainerMetrics):
    """A step of a training on pairs."""

    accuracy: float
    """Share of pairs whose chosen reply has the greater reward."""
    chosen_reward: float
    """Mean; of DPO the implicit one. `rejected_reward` likewise."""
    rejected_reward: float
    margin: float
    """Mean of their difference."""


class RewardMetrics(PairMetrics):
    """A step of a reward model."""

    spread: NotRequired[float]
    """Standard deviation of an ensemble's differences."""


class DpoMetrics(PairMetrics):
    """A step of DPO."""

    kl_nats: NotRequired[float]
    """Absent of a loss without a reference."""
    chosen_nll: NotRequired[float]
    """With rpo_alpha: of the chosen replies, nats a token."""


KtoFigures = TypedDict(
    "KtoFigures",
    {
        "kl": float,
        "entropy": float,
        "logits/chosen": NotRequired[float],
        "logits/rejected": NotRequired[float],
        "rewards/chosen": NotRequired[float],
        "rewards/rejected": NotRequired[float],
        "rewards/margins": NotRequired[float],
        "logps/chosen": NotRequired[float],
        "logps/rejected": NotRequired[float],
    },
)
"""What TRL says of a step: of good replies as `chosen` and of bad ones as `rejected`, where the step has such."""


class KtoMetrics(TrainerMetrics, KtoFigures):
    """A step of KTO."""


class GroupMetrics(TrainerMetrics):
    """A step of GRPO or RLOO. Those of drawing are absent in further steps on the same replies."""

    reward: NotRequired[float]
    reward_std: NotRequired[float]
    kl_nats: float
    """To the reference, a reply."""
    masked: NotRequired[float]
    """Replies without a reward."""
    reply_tokens: NotRequired[float]
    entropy: float
    even_groups: NotRequired[float]
    """Share of prompts whose replies all have the same reward."""
    clipped: float
    ended: NotRequired[float]
    """Share of replies that came to their end."""


class RolloutFigures(TypedDict):
    """What a step's replies say about the policy that wrote them."""

    sampler_gap_nats: NotRequired[float]
    """How far a server's log-probabilities are from the policy's own."""
    reward: float
    reward_std: float
    kl_nats: float
    """To the reference, a reply."""
    reply_tokens: float
    ended: float
    """Share of replies that came to their end."""
    entropy: float


class PolicyFigures(TypedDict):
    """Of an update of the policy, or the mean of several."""

    policy_loss: float
    clip_share: float
    approx_kl: float


class ValueFigures(TypedDict):
    """Of an update of the value function, or the mean of several."""

    value_loss: float
    value_clip_share: float


class UpdateFigures(PolicyFigures, ValueFigures):
    """What learning from a step's replies came to."""

    explained_variance: float
    policy_updates: int
    learning_rate: float


class PpoStepFigures(TypedDict):
    """What is known of every step of PPO, also of one whose replies all lack a reward."""

    kl_coef: float
    masked: int
    """Replies without a reward."""


class PpoRolloutFigures(RolloutFigures, PpoStepFigures):
    """Of a step with rewards after which the KL budget ended the training."""


class PpoUpdateFigures(PpoRolloutFigures, UpdateFigures):
    """Of a step that was learned from."""


PpoMetrics = PpoStepFigures | PpoRolloutFigures | PpoUpdateFigures
"""A row of PPO's, beside its `step`."""
