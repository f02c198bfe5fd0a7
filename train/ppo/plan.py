"""What PPO will take, told before any weights are loaded: steps, memory, disk.

steps      counted
memory     weights, the adapters of all roles and the optimisers of two, and the heaviest of three things: a pass of
           the policy's update and one of the value function's, gone through with tensors that have no values
           (`train.estimate.dry_run`), and a batch of rollouts with its cache, by their shapes. All as if the longest
           prompts stood in one step and every reply had `max_new_tokens`: no step takes more
disk       of the output folder with its checkpoints

Time is not predicted: it depends on how long replies become, which only the policy determines. What a reward takes that
does not stand on the policy's base (a model of its own, a function, the judge) is not in the figures; a note says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from preceptor.judge.models.local.lm_head import head_of
from preceptor.prompts.records import Prompt
from preceptor.train.data.collate_replies import ReplyBatch, batches_of
from preceptor.train.estimate.dry_run import (
    ComputeLoss,
    DryRun,
    PassInputs,
    Prepare,
    adapted_skeleton,
    dry_run_passes,
    skeleton,
    skeleton_of,
)
from preceptor.train.estimate.memory import available_bytes
from preceptor.train.estimate.plan import RESULT_BYTES, TENSOR_BYTES, TrainingPlan, tokenizer_bytes
from preceptor.train.forward.reply_logprobs import batch_hidden, causal_model
from preceptor.train.forward.token_logprobs import token_logprobs
from preceptor.train.models.adapters import POLICY, lora, same_base
from preceptor.train.models.base import Base
from preceptor.train.models.devices import load_dtype, pass_tokens, training_device, use_bf16
from preceptor.train.models.switchboard import Switchboard
from preceptor.train.ppo import objective
from preceptor.train.ppo.roles import REWARD, VALUE
from preceptor.train.rollout.prompts import drawings, encode_prompts, rollout_tokens
from preceptor.train.rollout.rewards import RewardSource, reward_folder
from preceptor.train.settings import PpoSettings

if TYPE_CHECKING:
    from peft import PeftModel

STEP_BYTES = 900
"""Of a step in metrics.jsonl and timings.jsonl."""
STATE_BYTES = 30_000
"""Of a checkpoint beside its numbers."""
STEP_NUMBERS = 7
"""Numbers kept of each reply token between the rollouts and the last update: `train.ppo.update.Experience`."""
LOGIT_TENSORS = 3
"""Tensors of the size of the logits while a token is drawn: they, their softmax, its running sum."""


class Size(NamedTuple):
    """What the roles come to, in bytes but for the last."""

    frozen: int
    policy: int
    value: int
    tensors: int
    """Of both that are trained."""


def plan_ppo(
    prompts: Sequence[Prompt], settings: PpoSettings, reward: RewardSource, guarded: bool = False
) -> TrainingPlan:
    """What `train.ppo.train.train_ppo` would take. Raises as that does for prompts, models and reward."""
    dtype, device = load_dtype(settings.precision), training_device()
    base = skeleton(settings.model, dtype)
    asked, rows = encode_prompts(
        prompts, base, max_new_tokens=settings.max_new_tokens, max_length=settings.max_length
    )
    lengths = sorted((len(one.tokens) for one in asked), reverse=True)
    folder = reward_folder(reward)
    on_base = folder if folder is not None and same_base(folder, base.source) else None
    steps = drawings(
        len(asked), epochs=settings.epochs, samples=settings.samples, batch_size=settings.batch_size
    )
    notes: tuple[str, ...] = ()
    if on_base is None:
        notes += ("what the reward takes is not in these figures: it does not stand on the policy's base",)
    checkpointing = bool(settings.gradient_checkpointing)
    found, reason = _sketched(base, settings, on_base, lengths, device)
    drawing = rollout_bytes(base.model.config, settings, lengths[0], device, dtype)
    available = available_bytes(device)
    memory, disk, kept = {}, None, None
    if found is None:
        notes += (f"memory and disk cannot be predicted for this model: {reason}",)
    else:
        size = _size(found)
        kept_of_step = 4 * STEP_NUMBERS * settings.batch_size * settings.max_new_tokens
        passes = {
            "an update of the policy": found[POLICY].pass_bytes
            + size.value,  # whose gradients are still there
            "an update of the value function": found[VALUE].pass_bytes + size.policy,
            "drawing replies": drawing,
        }
        heaviest = max(passes, key=lambda name: passes[name])
        memory = {
            "weights": size.frozen,
            "adapter": size.policy + size.value,
            "optimizer": 2 * (size.policy + size.value) + 4 * size.tensors,
            "pass": passes[heaviest] + kept_of_step,
        }
        notes += (f"the heaviest pass is {heaviest}, with replies of {settings.max_new_tokens} tokens",)
        disk, kept = _disk(size, settings, steps, guarded, tokenizer_bytes(base.tokenizer))
    total = sum(memory.values()) if memory else None
    if total is not None and available is not None and total > available:
        notes += (
            f"{total / 2**20:.0f} MiB are needed and {available / 2**20:.0f} MiB is free: a smaller --pass-tokens, "
            "--rollout-tokens or --max-length takes less, as does --gradient-checkpointing",
        )
    return TrainingPlan(
        stage="ppo",
        steps=steps,
        rows=rows["used"],
        tokens=sum(lengths),
        memory_bytes=total,
        memory=memory,
        available_bytes=available,
        disk_bytes=disk,
        kept_bytes=kept,
        time_s=None,
        time_range_s=None,
        time={},
        gradient_checkpointing=checkpointing,
        heaviest_step=None,
        two_rows=reason if found is not None and settings.samples > 1 else "",
        notes=(*notes, "time is not predicted: it depends on how long replies become"),
    )


def rollout_bytes(
    config: Any, settings: PpoSettings, longest: int, device: torch.device, dtype: torch.dtype
) -> int:
    """What drawing takes at most: the cache of keys and values, the logits of a token of every row, and what one layer
    makes of the prompts."""
    text = config.get_text_config()
    room = (longest + settings.max_new_tokens) * settings.samples
    together = max(1, rollout_tokens(settings.rollout_tokens, device) // room)  # prompts
    prompts = min(together, settings.batch_size // settings.samples)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    cache = 2 * text.num_hidden_layers * heads * width * prompts * room * dtype.itemsize
    logits = 4 * LOGIT_TENSORS * prompts * settings.samples * text.vocab_size
    wide = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    layer = dtype.itemsize * prompts * longest * (4 * text.hidden_size + 3 * wide)
    return int(cache + max(logits, layer))


def heaviest_batch(lengths: Sequence[int], settings: PpoSettings, budget: int, shared: bool) -> ReplyBatch:
    """The largest pass of a minibatch that holds the longest prompts, with replies as long as they may be."""
    count = -(-settings.batch_size // settings.samples // settings.minibatches)
    chosen = [lengths[at % len(lengths)] for at in range(count)]
    replies = [
        ([0] * length, [0] * settings.max_new_tokens) for length in chosen for _ in range(settings.samples)
    ]
    groups = [list(range(at, at + settings.samples)) for at in range(0, len(replies), settings.samples)]
    return max(batches_of(replies, groups, budget, shared), key=lambda batch: batch.input_ids.numel())


def _sketched(
    base: Base, settings: PpoSettings, reward: Path | None, lengths: Sequence[int], device: torch.device
) -> tuple[dict[str, DryRun] | None, str]:
    """A pass of each role that is trained; and why a prompt cannot be shared by its replies, or there is none."""
    dtype, reason = load_dtype(settings.precision), ""
    for shared in (True, False) if settings.samples > 1 else (False,):
        batch = heaviest_batch(lengths, settings, pass_tokens(settings.pass_tokens, device), shared)
        numbers = torch.zeros(len(batch.target))  # (N,)
        fields = {**batch._asdict(), "old": numbers, "worth": numbers}
        try:
            found = {
                role: dry_run_passes(
                    adapted_skeleton(skeleton_of(base, dtype), settings, frozen_reference=True),
                    _prepare(role, settings, reward),
                    [PassInputs(fields, later=True)],
                    device,
                    bf16=use_bf16(settings.precision),
                    checkpointing=bool(settings.gradient_checkpointing),
                )[0]
                for role in (POLICY, VALUE)
            }
        except Exception as error:  # whatever an architecture asks of values: then no figure, and the reason
            reason = reason or (str(error).strip() or type(error).__name__).splitlines()[0]
            continue
        return found, reason
    return None, reason


class _Both(nn.Module):
    """The adapted model and the value head, as one module to count."""

    def __init__(self, adapted: PeftModel, role: str) -> None:
        super().__init__()
        self.adapted = adapted
        width = causal_model(adapted).config.get_text_config().hidden_size
        self.value_head = nn.Linear(width, 1, dtype=torch.float32)
        self.value_head.requires_grad_(role == VALUE)


def _prepare(role: str, settings: PpoSettings, reward: Path | None) -> Prepare:
    """All roles on the skeleton, `role` acting, and its loss."""
    from peft import LoraConfig

    def prepare(adapted: PeftModel) -> tuple[nn.Module, ComputeLoss]:
        form = LoraConfig.from_pretrained(str(reward)) if reward else lora(settings.rank, settings.alpha)
        for name in (REWARD, VALUE) if reward else (VALUE,):
            adapted.add_adapter(name, form)
        Switchboard(adapted, frozenset({POLICY, VALUE})).switch(role)
        module, head = _Both(adapted, role), head_of(causal_model(adapted))

        def run(fields: Mapping[str, Tensor]) -> Tensor:
            batch = ReplyBatch(*(fields[name] for name in ReplyBatch._fields))
            hidden = batch_hidden(adapted, batch)[batch.predictor]  # (N, H)
            if role == VALUE:
                values = module.value_head(hidden.float())[:, 0]  # (N,)
                return objective.value_losses(
                    values, fields["old"], fields["worth"], settings.value_clip
                ).losses.sum()
            if head is None:
                raise ValueError("its output layer cannot be told from its config")
            logps = token_logprobs(hidden, batch.target, head)  # (N,)
            return objective.policy_losses(logps, fields["old"], fields["worth"], settings.clip).losses.sum()

        return module, run

    return prepare


def _size(found: Mapping[str, DryRun]) -> Size:
    policy, value = found[POLICY], found[VALUE]
    return Size(
        policy.frozen_bytes - value.trained_bytes,
        policy.trained_bytes,
        value.trained_bytes,
        policy.trained_tensors + value.trained_tensors,
    )


def _disk(size: Size, settings: PpoSettings, steps: int, guarded: bool, tokenizer: int) -> tuple[int, int]:
    """Bytes of the output folder at its fullest, and of what stays. A guard may ask for any checkpoint; else the last
    ones are kept, and a new one is written before the oldest goes."""
    trained = size.policy + size.value
    one = 3 * trained + size.policy * (settings.kl_budget is not None) + STATE_BYTES
    every = {*range(settings.checkpoint_every, steps + 1, settings.checkpoint_every)}
    if guarded:
        every |= {0, *range(settings.guard_every, steps + 1, settings.guard_every)}
    most = len(every) if guarded else min(len(every), settings.keep_checkpoints + 1)
    metrics = STEP_BYTES * steps
    kept = size.policy + TENSOR_BYTES * size.tensors // 2 + tokenizer + RESULT_BYTES + metrics
    stays = len(every) if guarded else min(len(every), settings.keep_checkpoints)
    return max(most * one + metrics, stays * one + kept), kept
