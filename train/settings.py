"""Settings of the trainings, each with its one default; without torch, so that a command line can show them."""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from preceptor.constitution.principle import Constitution
from preceptor.prompts.records import Settings
from preceptor.train.pair_losses import PAIR_LOSSES, READ_BY_SOME, loss_names, pair_loss


class LoopSettings(Settings):
    """Settings that every training has; a stage adds its own, and may set another default."""

    without_effect: ClassVar[frozenset[str]] = frozenset()
    """Settings that the stage does not read. They are refused, since nothing is passed over in silence; all others are
    read, which tests/train/test_every_setting_is_read.py holds."""

    model: str = "embedded"
    """embedded, smollm2, hf/ID, hf/FOLDER or hf/FILE.gguf; with --adapter, its base where nothing is said."""
    adapter: str | None = None
    """Folder of a LoRA adapter to go on from; its rank and alpha then hold."""
    epochs: float = Field(default=1.0, gt=0)
    """Passes over the rows."""
    learning_rate: float = Field(default=2e-4, gt=0)
    """Peak; it rises over `warmup` and falls linearly to zero."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps over which the learning rate rises."""
    batch_size: int = Field(default=16, gt=0)
    """Rows in a step: pairs, or replies of SFT and KTO."""
    max_length: int = Field(default=1024, gt=1)
    """Tokens of prompt and reply; the prompt is shortened to fit."""
    pass_tokens: int | None = Field(default=None, gt=0)
    """Tokens through the model at a time, padding included; else 1024 on a CPU and 8192 elsewhere.

    A step that holds more is cut into passes whose gradients are added: less memory and padding, the same result but
    for rounding. SFT and KTO take steps whole, and refuse it.
    """
    rank: int = Field(default=16, gt=0)
    """Of the LoRA adapter."""
    alpha: float = Field(default=32.0, gt=0)
    """LoRA scale is alpha / rank."""
    seed: int = 0
    """Equal seeds give equal results on one machine."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 where a GPU has it, or a CPU whose units pass a self-test; else fp32.

    What was decided of the CPU is told by `preceptor doctor`. Adapters and heads are fp32 always.
    """
    gradient_checkpointing: bool | None = None
    """Less memory, about a third more time; where nothing is said, only if memory would not do without.

    Activations are computed anew in the backward pass.
    """
    dora: bool = False
    """DoRA: the adapter's magnitude and direction apart.

    Of a fresh adapter (Liu et al. 2024, arXiv 2402.09353).
    """
    rslora: bool = False
    """Scale the adapter by alpha / sqrt(rank).

    Of a fresh adapter (Kalajdzievski 2023, arXiv 2312.03732).
    """
    four_bit: bool = False
    """QLoRA: the frozen base in nf4; on CUDA alone.

    Dettmers et al. 2023, arXiv 2305.14314.
    """
    compile: bool = False
    """Compile the model with torch.compile."""
    checkpoint_every: int = Field(default=50, gt=0)
    """Steps from one checkpoint to the next."""
    keep_checkpoints: int = Field(default=2, gt=0)
    """Last checkpoints kept while training goes on; the best is kept beside them."""
    tensorboard: bool = False
    """Write TensorBoard files too."""
    report_to: tuple[Literal["wandb", "trackio", "mlflow", "comet_ml", "swanlab"], ...] = ()
    """Where else to send the metrics; the key comes from the environment.

    Through transformers' integrations.
    """

    @model_validator(mode="after")
    def _read_by_the_training(self) -> LoopSettings:
        for name in sorted(self.without_effect):
            if getattr(self, name) != type(self).model_fields[name].default:
                stage = type(self).__name__.removesuffix("Settings").upper()
                raise ValueError(f"{name} has no effect in {stage}: leave it out")
        return self


BARE = "base"
"""As a `reference_adapter`: the model with no adapter at all. A folder of that name is `./base`."""
NOT_IN_RESULT = frozenset(
    {"tensorboard", "report_to", "checkpoint_every", "keep_checkpoints", "gradient_checkpointing"}
)
"""Settings that cannot change the result; two commands that differ in nothing else are the same."""


Attribute = Literal["length", "length-curve", "list-share", "formatting"]
"""What a reply has beside its content (`train.forward.attributes`)."""


def _several(given: Any) -> Any:
    """`length,list-share`, also several times, as a tuple of names."""
    words = [given] if isinstance(given, str) else given or ()
    parts = [
        part.strip() for word in words for part in (word.split(",") if isinstance(word, str) else [word])
    ]
    return tuple(dict.fromkeys(parts))


Attributes = Annotated[tuple[Attribute, ...], BeforeValidator(_several)]


class SftSettings(LoopSettings):
    """Settings of `train.sft`."""

    without_effect = frozenset({"pass_tokens"})


class PairSettings(LoopSettings):
    """Settings of the trainings on pairs."""

    former = MappingProxyType({"final_checkpoint": "take"})
    held_out: float = Field(default=0.0, ge=0, lt=1)
    """Share of the prompts to measure checkpoints on, whose pairs are kept from training."""
    attention: Literal["sdpa", "flex"] = Field(default="sdpa", exclude_if=lambda value: value == "sdpa")
    """flex: FlexAttention, on a GPU alone.

    The same but for rounding; not written down where it is not given.
    """
    final_checkpoint: Literal["last", "best"] = "last"
    """The result: the last step's weights, or those of the checkpoint of least held-out loss."""

    @model_validator(mode="after")
    def _best_of_something(self) -> PairSettings:
        if self.final_checkpoint == "best" and not self.held_out:
            raise ValueError(
                "final_checkpoint best needs held_out, the share of the prompts to measure checkpoints on"
            )
        return self


class RewardModelSettings(PairSettings):
    """Settings of `train.reward`."""

    former = MappingProxyType({**PairSettings.former, "center_rewards_coefficient": "centre"})
    held_out: float = Field(default=0.1, ge=0, lt=1)
    """Share of the prompts kept from training, for the report card."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Share of the labels taken to be exchanged."""
    margin: float = Field(default=0.0, ge=0)
    """By how much the chosen reply must win for each unit of the row's margin."""
    center_rewards_coefficient: float = Field(default=0.0, ge=0)
    """Weight of the penalty that keeps rewards around zero; 0.01 serves."""
    ensemble: int = Field(default=1, ge=1)
    """Heads on the one adapter that can disagree.

    Each is trained with weights of its own on the pairs; see `train.forward.reward_heads`.
    """
    spread_penalty: float = Field(default=0.5, ge=0)
    """With --ensemble: share of its spread taken from a reward.

    The spread is the standard deviation of its members.
    """
    ensemble_reward: Literal["mean", "least"] = Field(
        default="mean", exclude_if=lambda value: value == "mean"
    )
    """With --ensemble: the mean of the members less their spread, or the least of them."""
    per_principle: bool = False
    """A head for each principle, from the judgements about it alone."""
    weights: dict[str, float] = Field(default_factory=dict)
    """Principle -> its weight in the reward, with `per_principle`; empty: 1 for each that the rows speak of."""
    applies_to: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Principle -> tags of the prompts to which it applies; one that is absent applies to all."""
    length_debias: bool = False
    """Take the length direction out of the rewards.

    Out of the heads, after training; see `train.forward.length_debias`.
    """
    debias: Attributes = Field(default=(), exclude_if=lambda value: not value)
    """Take these attributes out of the rewards, all at once: length, length-curve, list-share, formatting.

    As --length-debias takes out length; `length-curve` is any bent function of it.
    """
    length_matched: bool = Field(default=False, exclude_if=lambda value: not value)
    """Weigh pairs so that the longer reply is chosen as often as the shorter.

    Among pairs of like difference; see `train.data.length_matching`.
    """

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> RewardModelSettings:
        """A setting that has no effect is a mistake, and is not passed over in silence."""
        if self.ensemble > 1 and self.per_principle:
            raise ValueError("ensemble and per_principle cannot be joined: take one of them")
        if self.ensemble == 1 and self.spread_penalty != type(self).model_fields["spread_penalty"].default:
            raise ValueError("spread_penalty has no effect without an ensemble of at least 2")
        if self.ensemble == 1 and self.ensemble_reward != "mean":
            raise ValueError("ensemble_reward has no effect without an ensemble of at least 2")
        usual = type(self).model_fields["spread_penalty"].default
        if self.ensemble_reward == "least" and self.spread_penalty != usual:
            raise ValueError("spread_penalty has no effect where the reward is the least of an ensemble")
        if self.per_principle and self.margin:
            raise ValueError(
                "margin is the whole pair's, and has no meaning with per_principle: leave it out"
            )
        if not self.per_principle and (self.weights or self.applies_to):
            raise ValueError("weights of principles have no effect without per_principle")
        if any(weight <= 0 for weight in self.weights.values()):
            raise ValueError(f"weights are {self.weights}; wanted numbers above 0")
        return self


def principle_settings(constitution: Constitution) -> dict[str, Any]:
    """What `RewardModelSettings` with `per_principle` take from a constitution."""
    return {
        "weights": {one.id: one.weight for one in constitution.principles},
        "applies_to": {one.id: tuple(one.applies_to) for one in constitution.principles if one.applies_to},
    }


class JudgeSettings(PairSettings):
    """Settings of `train.judge`."""

    held_out: float = Field(default=0.2, ge=0, lt=1)
    """Share of the prompts kept from training, for the report card and as gold to certify the judge by."""
    max_length: int = Field(default=1024, gt=1)
    """Positions of an ask: conversation, longer reply and question; a longer one is set aside."""


class DpoSettings(PairSettings):
    """Settings of `train.dpo`."""

    former = MappingProxyType({**PairSettings.former, "rpo_alpha": "anchor", "stack_adapter": "on_top"})
    learning_rate: float = Field(default=5e-5, gt=0)
    """Peak; it rises over `warmup` and falls linearly to zero."""
    stack_adapter: bool = False
    """Freeze --adapter and train a fresh one, of --rank and --alpha, on top of it."""
    reference_adapter: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """Folder of a LoRA adapter to be the reference, or base for the model without any; else what training starts from.

    Not written down where it is not given, so that trainings from before it are still themselves.
    """
    loss: str = Field(default="dpo", examples=list(PAIR_LOSSES))
    """How the log-odds of a pair are fitted to its label; a package may bring a loss of its own.

    An entry of `train.pair_losses`, or one that another package brings; see `train.dpo`.
    """
    beta: float = Field(default=0.1, gt=0)
    """Larger keeps the policy closer to its reference; with simpo and dpo-norm, 2 to 10 is usual.

    How dearly a nat of distance from the reference is paid for; with simpo and dpo-norm a nat a token.
    """
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Share of the labels taken to be exchanged; with `robust`, the share corrected for."""
    margin: float = Field(default=0.0, ge=0)
    """By how much the chosen reply must win for each unit of the row's margin."""
    gamma: float = Field(default=0.5, ge=0)
    """By how much every chosen reply must win, with simpo."""
    length_alpha: float = Field(default=0.5, ge=0, le=1)
    """Weight of a reply's tokens beyond the shorter one's length, with ld-dpo."""
    rpo_alpha: float = Field(default=0.0, ge=0)
    """Weight of the chosen reply's own negative log-likelihood, against its falling with the other's."""

    @field_validator("loss")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in PAIR_LOSSES and name not in loss_names():
            raise PydanticCustomError("loss", "wanted {names}", {"names": ", ".join(loss_names())})
        return name

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> DpoSettings:
        """A setting that the loss does not read is a mistake, and is not passed over in silence."""
        if self.stack_adapter and (self.dora or self.rslora):
            raise ValueError(
                "stack_adapter joins two adapters into one, which only plain LoRA can be: leave out dora, rslora"
            )
        fields, loss = type(self).model_fields, pair_loss(self.loss)
        for name in READ_BY_SOME:
            if name not in loss.options and getattr(self, name) != fields[name].default:
                readers = [each for each in loss_names() if name in pair_loss(each).options]
                raise ValueError(
                    f"{name} has no effect with loss {self.loss}: it belongs to {', '.join(readers)}"
                )
        if self.reference_adapter and not loss.needs_reference:
            raise ValueError(f"reference_adapter has no effect with loss {self.loss}, which has no reference")
        if "label_smoothing" in loss.options and not self.label_smoothing:
            raise ValueError(
                f"loss {self.loss} needs label_smoothing, the share of flipped labels to correct for"
            )
        return self


class KtoSettings(LoopSettings):
    """Settings of `train.kto`."""

    without_effect = frozenset({"pass_tokens"})
    learning_rate: float = Field(default=5e-5, gt=0)
    """Peak; it rises over `warmup` and falls linearly to zero."""
    batch_size: int = Field(default=16, gt=1)
    """Rows in a step; at least two, since each reply is compared with another's prompt."""
    beta: float = Field(default=0.1, gt=0)
    """Larger keeps the policy closer to its reference.

    How dearly a nat of distance from the reference is paid for.
    """


class RolloutSettings(LoopSettings):
    """Settings of a training whose rows the policy itself writes. `epochs` are passes over the prompts."""

    batch_size: int = Field(default=64, gt=0)
    """Replies in a step."""
    samples: int = Field(default=4, gt=0)
    """Replies to each prompt in a step; divides --batch-size.

    More of them share the reading of the prompt.
    """
    max_new_tokens: int = Field(default=128, gt=0)
    """Tokens of a reply at most, its end included."""
    temperature: float = Field(default=1.0, gt=0)
    """Of the rollouts."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Of the rollouts."""
    rollout_tokens: int | None = Field(default=None, gt=0)
    """Tokens generated together, prompts included; else 8192 on a CPU and 65536 elsewhere."""
    kl_beta: float = Field(default=0.05, ge=0)
    """What a nat of distance from the reference costs."""

    @model_validator(mode="after")
    def _whole_prompts(self) -> RolloutSettings:
        """Numbers that cannot go together are not passed over in silence."""
        if self.batch_size % self.samples:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of samples {self.samples}: a step takes whole prompts"
            )
        if self.max_new_tokens + 2 > self.max_length:
            raise ValueError(
                f"max_new_tokens {self.max_new_tokens} leaves no room for a prompt in max_length {self.max_length}"
            )
        return self


class GroupSettings(RolloutSettings):
    """Settings of `train.grpo.train` that both of its trainings have: replies are compared with those to the same
    prompt.
    """

    learning_rate: float = Field(default=1e-4, gt=0)
    """Peak; it rises over `warmup` and falls linearly to zero."""
    samples: int = Field(default=8, gt=1)
    """Replies to each prompt in a step, which are compared with one another; divides --batch-size."""
    updates: int = Field(default=1, gt=0)
    """Updates from the same replies; the ratio is clipped from the second on."""
    clip: float = Field(default=0.2, gt=0)
    """How far the probability ratio counts, on either side of 1: of a token with GRPO, of a reply with RLOO."""


class GrpoSettings(GroupSettings):
    """Settings of `train.grpo.train.train_grpo`."""

    kl_beta: float = Field(default=0.04, ge=0)
    """Weight of the KL in the loss.

    Its estimate is k3, a token. At 0 it is still reported.
    """
    loss: Literal["grpo", "dapo", "dr-grpo"] = "dapo"
    """How tokens add up.

    grpo: the mean over each reply's tokens and then over replies; dapo: the mean over all tokens; dr-grpo: the sum
    divided by replies times max_new_tokens.
    """
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """Whose standard deviation divides an advantage."""


class RlooSettings(GroupSettings):
    """Settings of `train.grpo.train.train_rloo`."""

    kl_beta: float = Field(default=0.05, ge=0)
    """What a nat of distance from the reference costs, in reward.

    k1, summed over the reply. At 0 it is still reported.
    """


class PpoSettings(RolloutSettings):
    """Settings of `train.ppo.train`."""

    without_effect = frozenset({"compile", "report_to"})
    learning_rate: float = Field(default=2e-4, gt=0)
    """Of the policy; peak."""
    value_learning_rate: float = Field(default=1e-3, gt=0)
    """Of the value function; peak.

    The two share no weight, so this takes the place of a value coefficient.
    """
    kl_beta: float = Field(default=0.1, ge=0)
    """What a nat of distance from the reference costs, in reward; at first, where there is --kl-target."""
    kl_target: float | None = Field(default=None, gt=0)
    """Nats a reply to which --kl-beta is steered; else it stays as it is."""
    kl_budget: float | None = Field(default=None, gt=0)
    """Nats a reply at which training stops, and the last policy within them is handed back."""
    kl_estimator: Literal["k1", "k3"] = "k1"
    """Of the penalty; what is reported, steered and held to the budget is k1's mean over replies."""
    gamma: float = Field(default=1.0, gt=0, le=1)
    """Discount a token."""
    lam: float = Field(default=0.95, ge=0, le=1)
    """Of the advantages (GAE)."""
    clip: float = Field(default=0.2, gt=0)
    """How far a token's probability ratio counts, on either side of 1."""
    value_clip: float | None = Field(default=0.2, gt=0)
    """How far a value may move from what it was in a step."""
    entropy: float = Field(default=0.0, ge=0)
    """Reward for a nat of entropy a token."""
    ppo_epochs: int = Field(default=2, gt=0)
    """Passes over a step's replies."""
    minibatches: int = Field(default=4, gt=0)
    """Updates in such a pass."""
    max_kl: float | None = Field(default=0.1, gt=0)
    """Nats a token from the policy that drew the replies, at which the step's policy updates end."""
    normalise_rewards: bool = True
    """Rewards as distances from the mean of all so far, in their standard deviations."""
    whiten_advantages: bool = True
    """Advantages of a step with mean 0 and standard deviation 1."""
    missing_eos_penalty: float = Field(default=1.0, ge=0)
    """Reward that a reply loses which did not end within max_new_tokens."""
    length_penalty: float = Field(default=0.0, ge=0)
    """Reward that each token of a reply costs."""
    overlong_buffer: int = Field(default=0, ge=0)
    """Tokens before max_new_tokens over which a penalty rises from 0 to 1."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Norm to which a longer gradient is shortened."""
    guard_every: int = Field(default=10, gt=0)
    """Steps from one look of the guard to the next, where there is one."""

    @model_validator(mode="after")
    def _fits(self) -> PpoSettings:
        """Numbers that cannot go together are not passed over in silence."""
        if self.minibatches > self.batch_size // self.samples:
            raise ValueError(
                f"minibatches {self.minibatches} is more than a step's {self.batch_size // self.samples} prompts"
            )
        if self.overlong_buffer > self.max_new_tokens:
            raise ValueError(
                f"overlong_buffer {self.overlong_buffer} is more than max_new_tokens {self.max_new_tokens}"
            )
        if self.kl_target is not None and not self.kl_beta:
            raise ValueError(
                "kl_target steers kl_beta by factors, and a kl_beta of 0 stays 0: give one above it"
            )
        return self
