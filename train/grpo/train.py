"""Group-relative training of a LoRA policy, by TRL's GRPOTrainer and RLOOTrainer: no value function, each reply
is compared with the others to the same prompt.

    GRPO    Shao et al. 2024 (arXiv 2402.03300), section 4.1; the ways to add tokens up are those of Yu et al. 2025
            (arXiv 2503.14476, `dapo`) and Liu et al. 2025 (arXiv 2503.20783, `dr-grpo`)
    RLOO    Ahmadian et al. 2024 (arXiv 2402.14740), section 2.3: the baseline is the mean of the other replies

The losses are TRL's. Prompts, rollouts, rewards and their order are those of `train.ppo.train`; what TRL is told
differently, so that a reply without reward has no say, stands in `train.grpo.trl_trainers`.

A training resumed on a CPU is the unbroken one to the bit: replies are drawn from seed and step alone, the order
of the prompts is fixed beforehand, and checkpoints lie between drawings. On a GPU the sums of the kernels are not
exact, as in every training here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from datasets import Dataset
from trl import GRPOConfig, RLOOConfig  # type: ignore[attr-defined]

from preceptor.judge.models.local.loading import quiet_loading
from preceptor.prompts.records import Prompt
from preceptor.train.data.counts import TrainedRows
from preceptor.train.estimate.dry_run import skeleton
from preceptor.train.estimate.plan import TrainingPlan
from preceptor.train.grpo.trl_trainers import Grpo, Rloo, TrainerContext
from preceptor.train.loop.output_folder import (
    METRICS,
    Trained,
    TrainingResult,
    begin_folder,
    finish_folder,
    found_finished,
    start_folder,
)
from preceptor.train.loop.run import OnTrainingProgress, run_loop, trainer_options
from preceptor.train.models.adapters import adapted_by, save_adapter
from preceptor.train.models.base import Base, load_for
from preceptor.train.models.devices import load_dtype, pass_tokens, training_device
from preceptor.train.rollout.prompts import TokenisedPrompt, drawings, encode_prompts, prompts_of_step
from preceptor.train.rollout.rewards import (
    RewardSource,
    open_outside,
    reward_folder,
    reward_identity,
    told_of_masked,
)
from preceptor.train.settings import GroupSettings, GrpoSettings, RlooSettings

if TYPE_CHECKING:
    from peft import PeftModel

__all__ = ["train_grpo", "train_rloo"]


class OnlineSources(NamedTuple):
    """Where rewards and replies come from."""

    reward: RewardSource
    server: str | None


def train_grpo(
    prompts: Sequence[Prompt],
    settings: GrpoSettings,
    out: str | Path,
    *,
    reward: RewardSource,
    server: str | None = None,
    watch: OnTrainingProgress | None = None,
    read: Mapping[str, Any] | None = None,
) -> Trained:
    """Train a policy on prompts; run again, it goes on from the last checkpoint.

    `reward`: the folder of a reward model, `module:function`, or a function (`train.rollout.rewards`); `server`:
    address of a vLLM server that draws the replies (`train.rollout.vllm`); `read`: what reading the rows set aside
    and which files they came from, for the manifest.
    Raises TrainDataError where no prompt can be trained on or a reward function fails, CheckpointError and
    RunFolderError for models and folder, and what the judge raises where it stops for good.
    """
    return _train("grpo", prompts, settings, Path(out), OnlineSources(reward, server), watch, read)


def train_rloo(
    prompts: Sequence[Prompt],
    settings: RlooSettings,
    out: str | Path,
    *,
    reward: RewardSource,
    server: str | None = None,
    watch: OnTrainingProgress | None = None,
    read: Mapping[str, Any] | None = None,
) -> Trained:
    """As `train_grpo`."""
    return _train("rloo", prompts, settings, Path(out), OnlineSources(reward, server), watch, read)


def _train(
    kind: str,
    prompts: Sequence[Prompt],
    settings: GroupSettings,
    out: Path,
    sources: OnlineSources,
    watch: OnTrainingProgress | None,
    read: Mapping[str, Any] | None,
) -> Trained:
    began_s = time.monotonic()
    reward, server = sources
    hashes = {"reward": reward_identity(reward)} | ({"rollouts": "vllm"} if server else {})
    opened = start_folder(kind, prompts, settings, out, hashes)
    if (finished := found_finished(opened)) is not None:
        return finished
    reward_folder(reward)  # a folder of another kind is refused before anything is loaded
    base = load_for(settings)
    asked, rows = _encoded(prompts, settings, base)
    # TRL makes a frozen copy of its own, but for GRPO without a KL term
    model = adapted_by(base, settings, frozen_reference=kind == "grpo" and not settings.kl_beta)
    scorer = open_outside(reward, training_device())
    begin_folder(opened)
    try:
        with quiet_loading():  # TRL asks the model by an old name in every step
            group = TrainerContext(asked, scorer, settings, base, server, opened.path)
            trainer = _trainer(model, group, settings)
            ran = run_loop(trainer, opened, settings, watch, _unplanned(kind, settings, asked))
    finally:
        scorer.close()
    save_adapter(model, opened.path)
    base.tokenizer.save_pretrained(str(opened.path))
    steps, wall_s = int(trainer.state.global_step), time.monotonic() - began_s
    notes = (*ran.notes, *told_of_masked(opened.path / METRICS))
    return finish_folder(
        opened, TrainingResult(rows, ran.metrics, steps, wall_s, dict(read or {}), {}, ran.measured, notes)
    )


def plan_group(
    kind: str, prompts: Sequence[Prompt], settings: GroupSettings, reward: RewardSource
) -> TrainingPlan:
    """What `train_grpo` or `train_rloo` would take, as far as it is known: its steps. Raises as they do for prompts,
    models and reward."""
    base = skeleton(settings.model, load_dtype(settings.precision))
    asked, _ = _encoded(prompts, settings, base)
    reward_identity(reward)  # one that is not there is told
    reward_folder(reward)
    plan = _unplanned(kind, settings, asked)
    return plan._replace(notes=("memory, time and disk are not predicted: TRL's trainer chooses its passes",))


def _encoded(
    prompts: Sequence[Prompt], settings: GroupSettings, base: Base
) -> tuple[list[TokenisedPrompt], TrainedRows]:
    return encode_prompts(
        prompts, base, max_new_tokens=settings.max_new_tokens, max_length=settings.max_length
    )


def _drawings(settings: GroupSettings, asked: Sequence[TokenisedPrompt]) -> int:
    return drawings(
        len(asked), epochs=settings.epochs, samples=settings.samples, batch_size=settings.batch_size
    )


def rows_in_a_pass(batch_size: int, longest: int, budget: int) -> int:
    """Replies that go through the model at a time, of which none has more than `longest` tokens with its prompt:
    a divisor of the step, since TRL weighs all passes of a step the same."""
    rows = max(1, min(batch_size, budget // longest))
    return next(size for size in range(rows, 0, -1) if batch_size % size == 0)


def _unplanned(kind: str, settings: GroupSettings, asked: Sequence[TokenisedPrompt]) -> TrainingPlan:
    """Nothing is predicted of a training that writes its own rows."""
    return TrainingPlan(
        stage=kind,
        steps=_drawings(settings, asked) * settings.updates,
        rows=len(asked),
        tokens=sum(len(one.tokens) for one in asked),
        memory_bytes=None,
        memory={},
        available_bytes=None,
        disk_bytes=None,
        kept_bytes=None,
        time_s=None,
        time_range_s=None,
        time={},
        gradient_checkpointing=bool(settings.gradient_checkpointing),
        heaviest_step=None,
        two_rows="",
        notes=(),
    )


def _trainer(model: PeftModel, group: TrainerContext, settings: GroupSettings) -> Any:
    asked = group.asked
    longest = max(len(one.tokens) for one in asked) + settings.max_new_tokens
    rows = rows_in_a_pass(settings.batch_size, longest, pass_tokens(settings.pass_tokens, training_device()))
    in_a_step = settings.batch_size // settings.samples
    order = [
        at
        for step in range(1, _drawings(settings, asked) + 1)
        for at in prompts_of_step(len(asked), in_a_step, settings.seed, step)
    ]
    options: dict[str, Any] = {
        **trainer_options(settings, group.folder),
        "num_train_epochs": 1,  # the order holds all passes over the prompts
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": settings.batch_size // rows,
        "generation_batch_size": settings.batch_size,
        "num_generations": settings.samples,
        "num_iterations": settings.updates,
        "max_completion_length": settings.max_new_tokens,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "beta": settings.kl_beta,
        "epsilon": settings.clip,
        "shuffle_dataset": False,
        "gradient_checkpointing": None,  # TRL's own default is to switch it on
        # between two drawings: TRL forgets the replies in hand where it is resumed
        "save_steps": -(-settings.checkpoint_every // settings.updates) * settings.updates,
    }
    given: dict[str, Any] = {
        "model": model,
        "train_dataset": Dataset.from_list([_row(asked[at].prompt, at) for at in order]),
        "processing_class": group.base.tokenizer,
        "group": group,
    }
    if isinstance(settings, GrpoSettings):
        options |= {"loss_type": settings.loss.replace("-", "_"), "scale_rewards": settings.scale_rewards}
        return Grpo(args=GRPOConfig(**options), **given)
    return Rloo(args=RLOOConfig(**options), **given)


def _row(prompt: Prompt, at: int) -> dict[str, Any]:
    return {"prompt": [{"role": turn.role, "content": turn.content} for turn in prompt.messages], "at": at}
