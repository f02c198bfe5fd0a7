"""Kahneman-Tversky optimisation of a LoRA policy from single replies that are good or bad, by TRL's
KTOTrainer.

    Ethayarajh et al. 2024 (arXiv 2402.01306), equations 7 and 8.

The tokens are ours, so that prompts are shortened and replies kept as in every other training; the loss is
TRL's. It reads its rows in the same order in every epoch, drawn from the seed once, since it compares each
reply with its neighbour's prompt. The reference is the base or, where training goes on from an SFT adapter, a
frozen copy of that adapter, which TRL makes.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import KTOConfig, KTOTrainer  # type: ignore[attr-defined]

from train.demonstrations import encode_demonstrations
from train.errors import TrainDataError
from train.folder import Result, Trained, begin_folder, finish_folder, found_finished, start_folder
from train.loop import Watch, adapted_by, check_rows, load_dtype, run_loop, trainer_options
from train.roles import load_base, quiet_loading, save_adapter
from train.rows import Demonstration
from train.settings import KtoSettings
from train.unpaired import Verdict


def train_kto(
    verdicts: Sequence[Verdict],
    settings: KtoSettings,
    out: str | Path,
    *,
    watch: Watch | None = None,
    read: Mapping[str, Any] | None = None,
) -> Trained:
    """Train a policy on verdicts; run again, it goes on from the last checkpoint.

    `read` says what reading the rows set aside and which files they came from, for the manifest.
    Raises TrainDataError where no row can be trained on, or all of them are good, or all bad;
    CheckpointError and RunFolderError for model and folder.
    """
    began_s = time.monotonic()
    opened = start_folder("kto", verdicts, settings, Path(out))
    if (finished := found_finished(opened)) is not None:
        return finished
    base = load_base(settings.model, load_dtype(settings.precision))
    given = [Demonstration(id=row.id, prompt=row.prompt, completion=row.completion) for row in verdicts]
    tokens = encode_demonstrations(given, base, settings.max_length)
    rows = {
        "in": len(verdicts),
        "used": len(tokens.rows),
        "held_out": 0,
        "set_aside": tokens.set_aside,
        "shortened": tokens.shortened,
    }
    check_rows(rows)
    good = [verdicts[number].good for number in tokens.numbers]
    if all(good) or not any(good):
        raise TrainDataError(
            f"all {len(good)} replies are {'good' if good[0] else 'bad'}: KTO learns from both; add the other "
            "kind, or use `preceptor train sft` for good ones alone"
        )
    data = kto_rows(tokens.rows, good, settings.batch_size, settings.seed)
    model = adapted_by(base, settings, frozen_reference=False)
    begin_folder(opened)
    options = {
        **trainer_options(settings, opened.path),
        "gradient_checkpointing": None,  # TRL's own default is to switch it on
        "max_length": settings.max_length,  # the rows fit already, a neighbour's reply may not
        "train_sampling_strategy": "sequential",
        "beta": settings.beta,
        **_weights(good),
    }
    with quiet_loading():  # TRL asks the model by an old name in every step
        trainer = _Tokenised(
            model=model,
            args=KTOConfig(**options),
            train_dataset=Dataset.from_list(data),
            processing_class=base.tokenizer,
        )
        last = run_loop(trainer, opened, "kto", settings, watch)
    save_adapter(model, opened.path)
    base.tokenizer.save_pretrained(str(opened.path))
    result = Result(rows, last, trainer.state.global_step, time.monotonic() - began_s, dict(read or {}))
    return finish_folder(opened, result)


class _Tokenised(KTOTrainer):
    """TRL's trainer over rows that are tokens already: it would tokenise, cut and drop by its own rules."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset


def kto_rows(
    tokens: Sequence[tuple[list[int], list[int]]], good: Sequence[bool], batch_size: int, seed: int
) -> list[dict[str, Any]]:
    """TRL's columns for the tokens of prompts and replies, in an order drawn from `seed`.

    `KL_completion_ids` is the reply of the batch's previous row: the paper's z, the mean of log pi / pi_ref
    over prompts with others' replies, is estimated with it. A batch of one row takes the reply of the batch
    before: its own would make z its own reward, and its loss flat.
    """
    order = list(range(len(tokens)))
    random.Random(f"kto:{seed}").shuffle(order)
    rows: list[dict[str, Any]] = []
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        for place, at in enumerate(part):
            previous = part[place - 1] if len(part) > 1 else order[start - 1]
            rows.append(
                {
                    "prompt_ids": tokens[at][0],
                    "completion_ids": tokens[at][1],
                    "KL_completion_ids": tokens[previous][1],
                    "label": good[at],
                }
            )
    return rows


def _weights(good: Sequence[bool]) -> dict[str, float]:
    """Weights under which good and bad replies count the same in all: equation 8 asks for 1 to 4/3 of that."""
    n_good = sum(good)
    n_bad = len(good) - n_good
    return {"desirable_weight": max(1.0, n_bad / n_good), "undesirable_weight": max(1.0, n_good / n_bad)}
