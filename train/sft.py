"""Supervised fine-tuning on revised replies, by TRL's SFTTrainer with a LoRA adapter; the loss is the reply's
alone.

Bai et al. 2022 (arXiv 2212.08073), section 3: the first half of Constitutional AI.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

from train.demonstrations import encode_demonstrations
from train.folder import Result, Trained, begin_folder, finish_folder, found_finished, start_folder
from train.loop import Watch, adapted_by, check_rows, load_dtype, run_loop, trainer_options
from train.roles import load_base, save_adapter
from train.rows import Demonstration
from train.settings import SftSettings

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
    base = load_base(settings.model, load_dtype(settings.precision))
    tokens = encode_demonstrations(demonstrations, base, settings.max_length)
    rows = {
        "in": len(demonstrations),
        "used": len(tokens.rows),
        "held_out": 0,
        "set_aside": tokens.set_aside,
        "shortened": tokens.shortened,
    }
    check_rows(rows)
    model = adapted_by(base, settings, frozen_reference=False)
    begin_folder(opened)
    options = {
        **trainer_options(settings, opened.path),
        "gradient_checkpointing": None,  # TRL's own default is to switch it on
        "max_length": None,  # the rows fit already
        "packing": False,
        "train_sampling_strategy": "group_by_length",
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(**options),
        train_dataset=Dataset.from_list([_labelled(*row) for row in tokens.rows]),
        processing_class=base.tokenizer,
    )
    last = run_loop(trainer, opened, "sft", settings, watch)
    save_adapter(model, opened.path)
    base.tokenizer.save_pretrained(str(opened.path))
    result = Result(rows, last, trainer.state.global_step, time.monotonic() - began_s, dict(read or {}))
    return finish_folder(opened, result)


def _labelled(prompt: list[int], reply: list[int]) -> dict[str, list[int]]:
    """TRL's columns; the prompt's labels are IGNORED."""
    return {
        "input_ids": prompt + reply,
        "labels": [IGNORED] * len(prompt) + reply,
    }
