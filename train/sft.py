"""Supervised fine-tuning on revised replies, by TRL's SFTTrainer with a LoRA adapter; the loss is the reply's
alone.

Bai et al. 2022 (arXiv 2212.08073), section 3: the first half of Constitutional AI.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from transformers.trainer_pt_utils import get_length_grouped_indices
from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

from preceptor.train import distributed
from preceptor.train.data.counts import check_rows
from preceptor.train.data.demonstrations import Demonstrated, encode_demonstrations
from preceptor.train.data.readers import Demonstration
from preceptor.train.estimate.dry_run import skeleton
from preceptor.train.estimate.plan import TrainingJob, TrainingPlan, plan_training
from preceptor.train.estimate.schedule import StepSchedule, row_schedule
from preceptor.train.loop.oom_retry import OomRetryTrainer
from preceptor.train.loop.output_folder import Trained
from preceptor.train.loop.run import OnTrainingProgress, trainer_options
from preceptor.train.loop.session import start_training
from preceptor.train.models.adapters import adapted_by, save_adapter
from preceptor.train.models.base import Base
from preceptor.train.models.devices import load_dtype
from preceptor.train.settings import SftSettings

if TYPE_CHECKING:
    from peft import PeftModel

__all__ = ["train_sft"]

IGNORED = -100
"""Label of a token that has no part in the loss, as transformers has it."""


def train_sft(
    demonstrations: Sequence[Demonstration],
    settings: SftSettings,
    out: str | Path,
    *,
    watch: OnTrainingProgress | None = None,
    read: Mapping[str, Any] | None = None,
) -> Trained:
    """Train an adapter on demonstrations; run again, it goes on from the last checkpoint.

    `read` says what reading the rows set aside and which files they came from, for the manifest.
    Raises TrainDataError where no row can be trained on, CheckpointError and RunFolderError for model and
    folder.
    """
    started = start_training("sft", demonstrations, settings, Path(out))
    if isinstance(started, Trained):
        return started
    base = started.base
    tokens = encode_demonstrations(demonstrations, base, settings.max_length)
    rows = tokens.counts
    check_rows(rows)
    session = started.planned(_plan(base, tokens, settings))
    settings = session.settings
    model = adapted_by(base, settings, frozen_reference=False)
    session.begin()
    trainer = _trainer(model, base, tokens, settings, session.folder)
    ran = session.run(trainer, watch)
    if not distributed.first():
        return session.handed_back(rows, ran)
    save_adapter(model, session.folder)
    return session.finish(rows, ran, read)


def plan_sft(demonstrations: Sequence[Demonstration], settings: SftSettings) -> TrainingPlan:
    """What `train_sft` would take; reads config and tokenizer, and writes nothing."""
    base = skeleton(settings.model, load_dtype(settings.precision))
    tokens = encode_demonstrations(demonstrations, base, settings.max_length)
    check_rows(tokens.counts)
    return _plan(base, tokens, settings)


def _plan(base: Base, tokens: Demonstrated, settings: SftSettings) -> TrainingPlan:
    """Batches as the library's sampler draws them, the longest row's first, by another chance than the training's."""
    lengths = [len(prompt) + len(reply) for prompt, reply in tokens.rows]
    draw = torch.Generator(device="cpu").manual_seed(settings.seed)
    by_length: Any = get_length_grouped_indices  # the library does not type it
    order: list[int] = by_length(lengths, settings.batch_size, generator=draw)
    batches = [order[at : at + settings.batch_size] for at in range(0, len(order), settings.batch_size)]
    with tempfile.TemporaryDirectory() as folder:

        def prepare(model: PeftModel) -> Any:
            trainer = _trainer(model, base, tokens, settings, Path(folder))
            count = torch.ones((), dtype=torch.long, device="cpu")
            return model, lambda inputs: trainer.compute_loss(model, dict(inputs), num_items_in_batch=count)

        def shapes(batch: Sequence[int]) -> dict[str, torch.Tensor]:
            size = (len(batch), max(lengths[at] for at in batch))  # (R, T)
            return {
                name: torch.zeros(size, dtype=torch.long)
                for name in ("input_ids", "labels", "attention_mask")
            }

        def schedule(_: bool) -> StepSchedule:
            return row_schedule(lengths, settings.epochs, base.model.config, batches, shapes)

        job = TrainingJob("sft", settings, prepare, on_cpu=True, checkpoints_tokenizer=True)
        return plan_training(job, base, schedule)


def _trainer(
    model: PeftModel, base: Base, tokens: Demonstrated, settings: SftSettings, folder: Path
) -> _InParts:
    options = {
        **trainer_options(settings, folder),
        "gradient_checkpointing": None,  # TRL's own default is to switch it on
        "max_length": None,  # the rows fit already
        "packing": False,
        "train_sampling_strategy": "group_by_length",
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }
    return _InParts(
        model=model,
        args=SFTConfig(**options),
        train_dataset=Dataset.from_list([_labelled(*row) for row in tokens.rows]),
        processing_class=base.tokenizer,
    )


class _InParts(OomRetryTrainer, SFTTrainer):
    """TRL's trainer; its loss is a sum over tokens, divided by those of the whole step."""


def _labelled(prompt: list[int], reply: list[int]) -> dict[str, list[int]]:
    """TRL's columns; the prompt's labels are IGNORED."""
    return {
        "input_ids": prompt + reply,
        "labels": [IGNORED] * len(prompt) + reply,
    }
