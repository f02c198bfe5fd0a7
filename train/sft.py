"""Supervised fine-tuning on revised replies, by TRL's SFTTrainer with a LoRA adapter; the loss is the reply's
alone.

Bai et al. 2022 (arXiv 2212.08073), section 3: the first half of Constitutional AI.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from transformers.trainer_pt_utils import get_length_grouped_indices
from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

from preceptor.train import distributed
from preceptor.train.data.demonstrations import Demonstrated, encode_demonstrations
from preceptor.train.data.readers import Demonstration
from preceptor.train.estimate.dry_run import skeleton
from preceptor.train.estimate.plan import Job, Plan, plan_training, settled
from preceptor.train.estimate.schedule import Course, row_course
from preceptor.train.loop.oom_retry import InParts
from preceptor.train.loop.output_folder import (
    Result,
    Trained,
    begin_folder,
    finish_folder,
    found_finished,
    start_folder,
)
from preceptor.train.loop.run import (
    Watch,
    adapted_by,
    check_rows,
    following,
    load_dtype,
    load_for,
    run_loop,
    trainer_options,
)
from preceptor.train.models.base import Base, save_adapter
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
    watch: Watch | None = None,
    read: Mapping[str, Any] | None = None,
) -> Trained:
    """Train an adapter on demonstrations; run again, it goes on from the last checkpoint.

    `read` says what reading the rows set aside and which files they came from, for the manifest.
    Raises TrainDataError where no row can be trained on, CheckpointError and RunFolderError for model and
    folder.
    """
    began_s = time.monotonic()
    opened = start_folder("sft", demonstrations, settings, Path(out))
    if (finished := found_finished(opened)) is not None:
        return finished
    base = load_for(settings)
    tokens = encode_demonstrations(demonstrations, base, settings.max_length)
    rows = tokens.counts
    check_rows(rows)
    plan = _plan(base, tokens, settings)
    settings = settled(settings, plan)
    planned_s = time.monotonic()
    model = adapted_by(base, settings, frozen_reference=False)
    begin_folder(opened)
    trainer = _trainer(model, base, tokens, settings, opened.path)
    ran = run_loop(trainer, opened, settings, watch, plan)
    if not distributed.first():
        return following(opened, rows, ran, trainer.state.global_step)
    save_adapter(model, opened.path)
    base.tokenizer.save_pretrained(str(opened.path))
    result = Result(
        rows=rows,
        metrics=ran.metrics,
        steps=trainer.state.global_step,
        wall_s=time.monotonic() - began_s,
        read=dict(read or {}),
        notes=ran.notes,
        plan=plan.figures(),
        measured=ran.measured_since(planned_s),
    )
    return finish_folder(opened, result)


def plan_sft(demonstrations: Sequence[Demonstration], settings: SftSettings) -> Plan:
    """What `train_sft` would take; reads config and tokenizer, and writes nothing."""
    base = skeleton(settings.model, load_dtype(settings.precision))
    tokens = encode_demonstrations(demonstrations, base, settings.max_length)
    check_rows(tokens.counts)
    return _plan(base, tokens, settings)


def _plan(base: Base, tokens: Demonstrated, settings: SftSettings) -> Plan:
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

        def course(_: bool) -> Course:
            return row_course(lengths, settings, base.model.config, batches, shapes)

        job = Job("sft", settings, prepare, on_cpu=True, checkpoints_tokenizer=True)
        return plan_training(job, base, course)


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


class _InParts(InParts, SFTTrainer):
    """TRL's trainer; its loss is a sum over tokens, divided by those of the whole step."""


def _labelled(prompt: list[int], reply: list[int]) -> dict[str, list[int]]:
    """TRL's columns; the prompt's labels are IGNORED."""
    return {
        "input_ids": prompt + reply,
        "labels": [IGNORED] * len(prompt) + reply,
    }
