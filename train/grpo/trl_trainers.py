"""TRL's trainers for GRPO and RLOO with our prompts, rollouts and rewards plugged in, and three things of our own:

a reply without reward has no say    TRL 1.16 gives it the advantage 0, but in GRPO still pulls it towards the
                                     reference where beta > 0, and in both counts it where it takes the mean.
                                     Here it leaves loss and mean; a step without any reward moves no weight,
                                     not even by the optimiser's momentum
KL is always reported                TRL computes the reference's log-probabilities only where beta > 0; here one
                                     pass more computes them where it does not
metrics by our names                 and in nats a reply, as in `train.ppo.train`
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from trl import GRPOTrainer, RLOOTrainer  # type: ignore[attr-defined]
from trl.trainer.utils import use_adapter

from preceptor.train.models.adapters import POLICY, as_reference, train_only
from preceptor.train.models.base import Base
from preceptor.train.rollout.prompts import TokenisedPrompt, sampling_of, seed_of, text_of
from preceptor.train.rollout.rewards import Replied, Scorer
from preceptor.train.rollout.sampling import sample
from preceptor.train.rollout.vllm import draw_served
from preceptor.train.settings import GroupSettings

if TYPE_CHECKING:
    from peft import PeftModel

COPY = "ref"
"""TRL's name for the frozen copy of the policy's start; GRPO's makes none where beta is 0."""

NAMES = {
    "reward": "reward",
    "reward_std": "reward_std",
    "kl_nats": "kl_nats",
    "masked": "masked",
    "completions/mean_length": "reply_tokens",
    "entropy": "entropy",
    "frac_reward_zero_std": "even_groups",
    "clip_ratio/region_mean": "clipped",
}
"""TRL's figures that are kept, and ours, by the names in metrics.jsonl."""


class TrainerContext(NamedTuple):
    """What the trainers are given beside TRL's own arguments."""

    asked: Sequence[TokenisedPrompt]
    scorer: Scorer
    settings: GroupSettings
    base: Base
    server: str | None
    """Address of a vLLM server that draws the replies; None: they are drawn here."""
    folder: Path
    """Where an adapter may lie meanwhile."""


class _Masking:
    """Plugs into TRL's trainers."""

    def __init__(self, *args: Any, group: TrainerContext, **options: Any) -> None:
        trainer: Any = super()
        trainer.__init__(*args, reward_funcs=[self._reward], **options)
        self.group = group
        self.notes: list[str] = []
        self._kept = torch.zeros(0, dtype=torch.bool)
        """(B,) which of the replies in hand have a reward."""
        self._said: dict[str, Tensor] = {}
        """Log-probabilities (b, C) of the last pass as policy, and of the last as reference."""

    # Prompts and replies

    def _tokenize_prompts(self, prompts: Sequence[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """Of the rows in hand, which `_generate_and_score_completions` has noted: TRL hands on the messages alone."""
        assert len(prompts) == len(self._rows)
        return [list(self.group.asked[at].tokens) for at in self._rows], None, {}

    def _drawn(self, prompts: Sequence[list[int]]) -> list[list[int]]:
        """Tokens of a reply to each prompt; a prompt stands there once for each of its samples."""
        trainer: Any = self
        settings = self.group.settings
        model: PeftModel = trainer.accelerator.unwrap_model(trainer.model)
        how = sampling_of(settings, self.group.base, trainer.accelerator.device)
        seed = seed_of(settings.seed, 1 + trainer.state.global_step // settings.updates)
        asked = prompts[:: settings.samples]
        if (server := self.group.server) is not None:
            served = draw_served(model, asked, settings.samples, how, seed, server, self.group.folder)
            return [one.tokens for one in served]
        model.eval()  # gradient checkpointing would switch the cache off
        try:
            with trainer.accelerator.autocast():
                rollouts = sample(model, asked, settings.samples, how, seed)
        finally:
            model.train()
        return [rollout.reply for rollout in rollouts]

    def _reward(self, completion_ids: Sequence[list[int]], at: Sequence[int], **_: Any) -> list[float | None]:
        """As TRL calls a reward function; None has no reward, and TRL makes NaN of it."""
        base, asked = self.group.base, self.group.asked
        stops = sampling_of(self.group.settings, base, torch.device("cpu")).stops
        found = self.group.scorer.score(
            [
                Replied(
                    asked[row].prompt,
                    (asked[row].tokens, reply),
                    text_of(base.tokenizer, reply, reply[-1] in stops),
                )
                for row, reply in zip(at, completion_ids, strict=True)
            ]
        )
        self._kept = torch.tensor([value is not None for value in found])
        return found

    # What the step learns from

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's batch of B replies of at most C tokens, with the reference's word on them in any case."""
        trainer: Any = super()
        mine: Any = self
        self._rows = [row["at"] for row in inputs]
        self._said.clear()
        batch: dict[str, Any] = trainer._generate_and_score_completions(inputs)
        device = batch["completion_mask"].device
        mine._metrics["train"]["masked"].append(float((~self._kept).sum()))
        batch["has_reward"] = self._kept.to(device)  # (B,)
        batch["ref_per_token_logps"] = self._reference(batch)  # (B, C)
        return batch

    def _reference(self, batch: Mapping[str, Any]) -> Tensor:
        """Log-probabilities (B, C) of the replies under the reference, as TRL has them or else by a pass of our
        own."""
        if "ref_per_token_logps" in batch:
            known: Tensor = batch["ref_per_token_logps"]
            return known
        if COPY in self._said:
            return self._said[COPY]
        trainer: Any = self
        model: PeftModel = trainer.accelerator.unwrap_model(trainer.model)
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
        seen = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        size = trainer.args.per_device_train_batch_size
        held = use_adapter(model, COPY) if COPY in model.peft_config else as_reference(model)
        with torch.no_grad(), held:
            found, *_ = trainer._get_per_token_logps_and_entropies(
                trainer.model, ids, seen, batch["completion_ids"].shape[1], size
            )
        train_only(model, POLICY)
        logprobs: Tensor = found
        return logprobs

    def _get_per_token_logps_and_entropies(self, *args: Any, **options: Any) -> Any:
        trainer: Any = super()
        mine: Any = self
        found = trainer._get_per_token_logps_and_entropies(*args, **options)
        if torch.is_grad_enabled():
            self._said[POLICY] = found[0].detach()
        elif mine.accelerator.unwrap_model(mine.model).active_adapter == COPY:
            self._said[COPY] = found[0]
        return found

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **options: Any) -> Tensor:
        """TRL's loss, as if the replies without reward had never been drawn."""
        trainer: Any = super()
        mine: Any = self
        loss: Tensor = trainer.compute_loss(model, inputs, *args, **options)
        told = (self._said[POLICY] - inputs["ref_per_token_logps"]) * inputs["completion_mask"]  # (b, C)
        mine._metrics["train"]["kl_nats"].append(float(told.sum(dim=1).mean()))
        return loss * self._weight()

    def _weight(self) -> float:
        """What makes a mean over all replies one over those with a reward."""
        return len(self._kept) / max(1, int(self._kept.sum()))

    def training_step(self, model: nn.Module, *args: Any, **options: Any) -> Tensor:
        """The loss of a pass, whose gradients are added up in the parameters."""
        trainer: Any = super()
        loss: Tensor = trainer.training_step(model, *args, **options)
        if not self._kept.any():
            model.zero_grad(set_to_none=True)  # or the optimiser would go on by its momentum
        return loss

    def log(self, logs: dict[str, float], *args: Any, **options: Any) -> None:
        """The figures that are ours, by our names."""
        trainer: Any = super()
        mine: Any = self
        told = mine._metrics["train"]
        kept = {ours: told[theirs] for theirs, ours in NAMES.items() if theirs in told}
        if clipped := told.get("completions/clipped_ratio"):
            kept["ended"] = [1 - share for share in clipped]
        mine._metrics["train"] = defaultdict(list, kept)
        trainer.log(logs, *args, **options)


class Grpo(_Masking, GRPOTrainer):
    """TRL's trainer for GRPO."""

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any, **__: Any) -> tuple[Any, None]:
        return self._drawn(prompt_ids), None

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL leaves the tokens out of the loss that its `tool_mask` covers, KL and all."""
        batch = super()._generate_and_score_completions(inputs)
        told = batch["completion_mask"] * batch["has_reward"][:, None]  # (B, C)
        return {**batch, "tool_mask": told, "num_items_in_batch": told.sum()}

    def _weight(self) -> float:
        return 1.0 if self.loss_type == "dapo" else super()._weight()  # dapo's is a mean over tokens


class Rloo(_Masking, RLOOTrainer):
    """TRL's trainer for RLOO."""

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any, **__: Any) -> list[list[int]]:
        return self._drawn(prompt_ids)
