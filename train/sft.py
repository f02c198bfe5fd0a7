"""Supervised fine-tuning on revised replies, by TRL's SFTTrainer with a LoRA adapter; the loss is the reply's
alone.

Bai et al. 2022 (arXiv 2212.08073), section 3: the first half of Constitutional AI.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset
from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

from prompts.records import Message
from train.folder import Result, Trained, begin_folder, finish_folder, found_finished, start_folder
from train.loop import Watch, adapted_by, check_rows, load_dtype, run_loop, trainer_options
from train.pairs import encode_messages, encode_reply, fit_prompt, turn_ends
from train.roles import Base, load_base, save_adapter
from train.rows import Demonstration
from train.settings import SftSettings

IGNORED = -100
"""Label of a token that has no part in the loss, as transformers has it."""


class SftTokens(NamedTuple):
    """Tokenised demonstrations, and what became of the others."""

    rows: list[dict[str, list[int]]]
    """`input_ids` and `labels`, the prompt's labels being IGNORED."""
    set_aside: dict[str, int]
    shortened: int


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
        train_dataset=Dataset.from_list(tokens.rows),
        processing_class=base.tokenizer,
    )
    last = run_loop(trainer, opened, "sft", settings, watch)
    save_adapter(model, opened.path)
    base.tokenizer.save_pretrained(str(opened.path))
    result = Result(rows, last, trainer.state.global_step, time.monotonic() - began_s, dict(read or {}))
    return finish_folder(opened, result)


def encode_demonstrations(demonstrations: Sequence[Demonstration], base: Base, max_length: int) -> SftTokens:
    """Tokenise as pairs are; a prompt is shortened from its left, never the reply."""
    tokenizer = base.tokenizer
    ends = turn_ends(tokenizer, base.generation_eos)
    rows: list[dict[str, list[int]]] = []
    aside: dict[str, int] = {}
    shortened = 0
    for row in demonstrations:
        prompt = encode_messages(tokenizer, row.prompt, generation_prompt=True)
        reply = encode_reply(
            tokenizer, row.prompt, prompt, [Message(role="assistant", content=row.completion)], ends
        )
        fitted = fit_prompt(prompt, len(reply), max_length, tokenizer.bos_token_id)
        if fitted is None:
            reason = f"the reply alone is longer than max_length = {max_length} tokens"
            aside[reason] = aside.get(reason, 0) + 1
            continue
        shortened += len(fitted) < len(prompt)
        rows.append({"input_ids": fitted + reply, "labels": [IGNORED] * len(fitted) + reply})
    return SftTokens(rows, aside, shortened)
