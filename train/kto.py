"""Kahneman-Tversky optimisation of a LoRA policy from single replies that are good or bad, by TRL's
KTOTrainer.

    Ethayarajh et al. 2024 (arXiv 2402.01306), equations 7 and 8.

The tokens are ours, so that prompts are shortened and replies kept as in every other training; the loss is
TRL's. It reads its rows in the same order in every epoch, drawn from the seed once, since it compares each
reply with its neighbour's prompt. The reference is the base or, where training goes on from an SFT adapter, a
frozen copy of that adapter, which TRL makes.

Where memory runs out and a step is cut into parts (`train.loop.oom_retry`), the paper's z is estimated on each part's
rows and not on the whole step's: that step is not quite the one it would have been.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from trl import KTOConfig, KTOTrainer  # type: ignore[attr-defined]

from preceptor.judge.models.local.loading import quiet_loading
from preceptor.train import distributed
from preceptor.train.data.counts import check_rows
from preceptor.train.data.demonstrations import Demonstrated, encode_demonstrations
from preceptor.train.data.readers import Demonstration
from preceptor.train.data.unpaired import UnpairedExample
from preceptor.train.errors import TrainDataError
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
from preceptor.train.settings import KtoSettings

if TYPE_CHECKING:
    from peft import PeftModel

__all__ = ["train_kto"]


def train_kto(
    verdicts: Sequence[UnpairedExample],
    settings: KtoSettings,
    out: str | Path,
    *,
    watch: OnTrainingProgress | None = None,
    read: Mapping[str, Any] | None = None,
) -> Trained:
    """Train a policy on verdicts; run again, it goes on from the last checkpoint.

    `read` says what reading the rows set aside and which files they came from, for the manifest.
    Raises TrainDataError where no row can be trained on, or all of them are good, or all bad;
    CheckpointError and RunFolderError for model and folder.
    """
    started = start_training("kto", verdicts, settings, Path(out))
    if isinstance(started, Trained):
        return started
    base = started.base
    tokens, good = _encoded(verdicts, base, settings)
    session = started.planned(_plan(base, tokens, good, settings))
    settings = session.settings
    model = adapted_by(base, settings, frozen_reference=False)
    session.begin()
    with quiet_loading():  # TRL asks the model by an old name in every step
        trainer = _trainer(model, base, tokens, good, settings, session.folder)
        ran = session.run(trainer, watch)
    if not distributed.first():
        return session.handed_back(tokens.counts, ran)
    save_adapter(model, session.folder)
    return session.finish(tokens.counts, ran, read)


def plan_kto(verdicts: Sequence[UnpairedExample], settings: KtoSettings) -> TrainingPlan:
    """What `train_kto` would take; reads config and tokenizer, and writes nothing."""
    base = skeleton(settings.model, load_dtype(settings.precision))
    return _plan(base, *_encoded(verdicts, base, settings), settings)


def _encoded(
    verdicts: Sequence[UnpairedExample], base: Base, settings: KtoSettings
) -> tuple[Demonstrated, list[bool]]:
    """Tokens of the replies, and whether each is good; TrainDataError where KTO could not learn from them."""
    given = [Demonstration(id=row.id, prompt=row.prompt, completion=row.completion) for row in verdicts]
    tokens = encode_demonstrations(given, base, settings.max_length)
    check_rows(tokens.counts)
    good = [verdicts[number].good for number in tokens.numbers]
    if all(good) or not any(good):
        raise TrainDataError(
            f"all {len(good)} replies are {'good' if good[0] else 'bad'}: KTO learns from both; add the other "
            "kind, or use `preceptor train sft` for good ones alone"
        )
    return tokens, good


def _plan(base: Base, tokens: Demonstrated, good: Sequence[bool], settings: KtoSettings) -> TrainingPlan:
    data = kto_rows(tokens.rows, good, settings.batch_size, settings.seed)
    lengths = [len(row["prompt_ids"]) + len(row["completion_ids"]) for row in data]
    order = range(len(data))
    batches = [order[at : at + settings.batch_size] for at in range(0, len(data), settings.batch_size)]
    with tempfile.TemporaryDirectory() as folder:

        def prepare(model: PeftModel) -> Any:
            trainer = _trainer(model, base, tokens, good, settings, Path(folder))
            return model, lambda inputs: trainer.compute_loss(model, dict(inputs))

        def shapes(batch: Sequence[int]) -> dict[str, torch.Tensor]:
            own = max(lengths[at] for at in batch)
            other = max(len(data[at]["prompt_ids"]) + len(data[at]["KL_completion_ids"]) for at in batch)
            widths = {"": own, "KL_": min(other, settings.max_length)}
            return {
                **{
                    kind + name: torch.zeros((len(batch), width), dtype=torch.long)  # (R, T)
                    for kind, width in widths.items()
                    for name in ("input_ids", "attention_mask", "completion_mask")
                },
                "label": torch.zeros(len(batch), dtype=torch.bool),
            }

        def schedule(_: bool) -> StepSchedule:
            return row_schedule(lengths, settings.epochs, base.model.config, batches, shapes)

        job = TrainingJob("kto", settings, prepare, on_cpu=True, checkpoints_tokenizer=True, adapters_saved=2)
        with quiet_loading():
            return plan_training(job, base, schedule)


def _trainer(
    model: PeftModel,
    base: Base,
    tokens: Demonstrated,
    good: Sequence[bool],
    settings: KtoSettings,
    folder: Path,
) -> _Tokenised:
    options = {
        **trainer_options(settings, folder),
        "gradient_checkpointing": None,  # TRL's own default is to switch it on
        "max_length": settings.max_length,  # the rows fit already, a neighbour's reply may not
        "train_sampling_strategy": "sequential",
        "beta": settings.beta,
        **_weights(good),
    }
    return _Tokenised(
        model=model,
        args=KTOConfig(**options),
        train_dataset=Dataset.from_list(kto_rows(tokens.rows, good, settings.batch_size, settings.seed)),
        processing_class=base.tokenizer,
    )


class _Tokenised(OomRetryTrainer, KTOTrainer):
    """TRL's trainer over rows that are tokens already: it would tokenise, cut and drop by its own rules."""

    mean_of_rows = True

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _compute_kl_logps(self, model: Any, batch: Any) -> Any:
        """With several processes, such that the mean of their means, which TRL takes, is that over all rows."""
        library: Any = super()
        logps = library._compute_kl_logps(model, batch)
        return logps if distributed.count() == 1 else self._share * logps


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
