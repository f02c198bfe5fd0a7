"""A judge out of verdicts that are there: a LoRA adapter on a base that reads two replies side by side.

The label is the probability that a judge gave, and the judge's log-odds are those of `judge.models.local.side_by_side`:
half the difference of what is said where the first reply is called A and where it is called B. So nothing has to be
learned about orders or letters, and every verdict counts once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import TrainingArguments

from preceptor.constitution.principle import Constitution
from preceptor.judge.models.local.branch_mask import mask_of
from preceptor.judge.models.local.lm_head import head_of
from preceptor.judge.models.local.model import dialect_of, write_dialect
from preceptor.judge.models.local.prefix_passes import Passes
from preceptor.judge.models.registry import find, open_model
from preceptor.prompts.manifest import write_json
from preceptor.prompts.rows import write_rows
from preceptor.prompts.template import Template, load
from preceptor.train import distributed
from preceptor.train.data.batching import EVALUATED, evenly, passes
from preceptor.train.data.collate_pairs import check_attention, set_attention
from preceptor.train.data.counts import TrainedRows, check_rows
from preceptor.train.data.judged_pairs import (
    EncodedVerdicts,
    JudgedPair,
    JudgedTokens,
    SideBatch,
    collate_judged,
    encode_judged,
    split_by_prompt,
)
from preceptor.train.errors import CheckpointError
from preceptor.train.estimate.dry_run import skeleton
from preceptor.train.estimate.plan import TrainingJob, TrainingPlan, plan_training
from preceptor.train.estimate.schedule import StepSchedule, pair_schedule, read_weight
from preceptor.train.evaluation.calibration import report_card
from preceptor.train.evaluation.report_card import CARD
from preceptor.train.forward.reply_logprobs import causal_model, row_tokens
from preceptor.train.loop.output_folder import Trained
from preceptor.train.loop.pair_trainer import Losses, PairTrainer, PairTraining, take_best
from preceptor.train.loop.run import OnTrainingProgress, trainer_options
from preceptor.train.loop.session import start_training
from preceptor.train.models.adapters import adapted_by, restore_adapter, save_adapter, save_part
from preceptor.train.models.base import Base
from preceptor.train.models.devices import load_dtype, pass_tokens, training_device
from preceptor.train.settings import JudgeSettings

if TYPE_CHECKING:
    from peft import PeftModel

__all__ = ["train_judge"]

GOLD = "gold.jsonl"
"""The pairs held out with the verdicts on them, for `label --certify --gold`."""


class SideJudge(nn.Module):
    """Log-odds for the first of two replies that stand side by side."""

    def __init__(self, adapted: PeftModel) -> None:
        super().__init__()
        self.adapted = adapted
        head = head_of(causal_model(adapted))
        if head is None:
            raise CheckpointError(
                f"{type(causal_model(adapted)).__name__} has an output layer of no known form; wanted another base"
            )
        self.head = head

    def forward(self, batch: SideBatch) -> Tensor:
        """Log-odds (B,)."""
        causal: Any = causal_model(self.adapted)
        kind = batch.input_ids.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else causal.dtype
        hidden = causal.base_model(
            input_ids=batch.input_ids,
            attention_mask=mask_of(batch.part, batch.positions, causal.config, dtype, batch.sees),
            position_ids=batch.positions,
            use_cache=False,
        ).last_hidden_state.flatten(0, 1)  # (B * T, H)
        logits = self.head.logits(hidden[batch.ends])  # (2B, V)
        of_letters = logits.gather(1, batch.letters.repeat(2, 1))  # (2B, 2)
        called_a, called_b = (of_letters[:, 0] - of_letters[:, 1]).chunk(2)  # (B,) each
        return cast(Tensor, (called_a - called_b) / 2)


def verdict_loss(model: nn.Module, batch: SideBatch) -> Losses:
    """Cross-entropy (B,) of the log-odds against the judge's probabilities, and figures (B,)."""
    odds = model(batch)
    losses = binary_cross_entropy_with_logits(odds, batch.probability, reduction="none")
    return losses, {"accuracy": (odds > 0) == (batch.probability > 0.5), "confidence": odds.abs().sigmoid()}


def train_judge(
    verdicts: Sequence[JudgedPair],
    settings: JudgeSettings,
    out: str | Path,
    *,
    constitution: Constitution,
    watch: OnTrainingProgress | None = None,
    read: Mapping[str, Any] | None = None,
) -> Trained:
    """Tune a judge on verdicts; run again, it goes on from the last checkpoint.

    The folder is an adapter that `hf/FOLDER` judges with, side by side (`orders="none"`), and holds the verdicts held
    out as `gold.jsonl`.

    `read` says which file the rows came from, for the manifest.
    Raises TrainDataError where no row can be trained on, CheckpointError and RunFolderError for model and folder,
    UserError for a base that cannot read replies side by side.
    """
    started = start_training("judge", verdicts, settings, Path(out))
    if isinstance(started, Trained):
        return started
    base = started.base
    data = _encoded(verdicts, constitution, base, settings)
    session = started.planned(_plan(base, data, settings))
    settings = session.settings
    Passes(settings.model, base.model, 1).side_by_side(data.train.rows[0].ways, [1, 1], lambda *_: None)
    set_attention(base.model, settings.attention)
    adapted = adapted_by(base, settings, frozen_reference=False)
    model = SideJudge(adapted)
    session.begin()
    args = TrainingArguments(**trainer_options(settings, session.folder, bool(data.held_out.rows)))
    model.to(args.device)
    stage = PairTraining(
        pairs=[*data.train.rows, *data.held_out.rows],
        trained=len(data.train.rows),
        pad_id=base.pad_id,
        shared=True,
        pass_tokens=pass_tokens(settings.pass_tokens, args.device),
        loss=verdict_loss,
        save=lambda folder: save_part(adapted, folder),
        restore=lambda folder: restore_adapter(adapted, folder),
        collate=collate_judged,
    )
    trainer = PairTrainer(model, stage, args=args)
    ran = session.run(trainer, watch)
    if not distributed.first():
        return session.handed_back(data.counts, ran)
    taken = take_best(trainer) if settings.final_checkpoint == "best" else ()
    save_adapter(adapted, session.folder)
    write_dialect(session.folder, data.dialect)
    figures = report_card(*_margins(model, data.held_out.rows, stage.pass_tokens))
    write_json(session.folder / CARD, figures)
    write_rows(session.folder / GOLD, _gold(verdicts, data.held_out))
    shown = {key: value for key, value in figures.items() if key != "bins"}
    ran = ran._replace(metrics={**ran.metrics, "held_out": shown}, notes=(*ran.notes, *taken))
    return session.finish(data.counts, ran, read)


def plan_judge(
    verdicts: Sequence[JudgedPair], constitution: Constitution, settings: JudgeSettings
) -> TrainingPlan:
    """What `train_judge` would take; reads config and tokenizer, and writes nothing."""
    base = skeleton(settings.model, load_dtype(settings.precision))
    return _plan(base, _encoded(verdicts, constitution, base, settings), settings)


class _Data(NamedTuple):
    train: EncodedVerdicts
    held_out: EncodedVerdicts
    dialect: str
    counts: TrainedRows


def _encoded(
    verdicts: Sequence[JudgedPair], constitution: Constitution, base: Base, settings: JudgeSettings
) -> _Data:
    """Rows in tokens, in the words that the tuned judge will be asked in. Raises TrainDataError where none is left."""
    check_attention(settings.attention)
    judge = open_model(settings.model if find(settings.model) else f"hf/{settings.model}")
    dialect = (settings.adapter and dialect_of(settings.adapter)) or judge.dialect
    template: Template = load("side_by_side", dialect)
    train, held_out = (
        encode_judged(rows, constitution, base, template, judge, settings.max_length)
        for rows in split_by_prompt(verdicts, settings.held_out, settings.seed)
    )
    ids: dict[str, list[str]] = {}
    for reason, some in [*train.ids_aside.items(), *held_out.ids_aside.items()]:
        ids[reason] = [*ids.get(reason, []), *some]
    counts: TrainedRows = {
        "in": len(verdicts),
        "used": len(train.rows),
        "held_out": len(held_out.rows),
        "set_aside": {reason: len(some) for reason, some in ids.items()},
        "shortened": 0,
        "ids_aside": ids,
    }
    check_rows(counts)
    return _Data(train, held_out, dialect, counts)


def _plan(base: Base, data: _Data, settings: JudgeSettings) -> TrainingPlan:
    budget = pass_tokens(settings.pass_tokens, training_device())
    config = base.model.config

    def prepare(adapted: PeftModel) -> Any:
        model = SideJudge(adapted)
        return model, lambda fields: verdict_loss(model, SideBatch(**fields))[0].sum()

    def schedule(_: bool) -> StepSchedule:
        made = pair_schedule(
            data.train.rows,
            config,
            budget,
            True,
            batch_size=settings.batch_size,
            epochs=settings.epochs,
            seed=settings.seed,
            collate=collate_judged,
        )
        looks = read_weight(evenly(data.held_out.rows, EVALUATED), config, budget, True)
        whole = read_weight(data.held_out.rows, config, budget, True)
        return made._replace(held_out=looks, around=whole + made.around)

    return plan_training(TrainingJob("judge", settings, prepare), base, schedule)


@torch.no_grad()
def _margins(model: SideJudge, rows: Sequence[JudgedTokens], budget: int) -> tuple[list[float], list[float]]:
    """Log-odds for the reply that the judge preferred, and the judge's probability of it; ties count for neither."""
    device = causal_model(model.adapted).device
    margins, probabilities = [], []
    model.eval()
    for part in passes(row_tokens(rows, True), budget):
        batch = collate_judged([rows[at] for at in part], part, 0)
        odds = model(SideBatch(*(field.to(device) for field in batch))).float().cpu().tolist()
        for at, found in zip(part, odds, strict=True):
            probability = rows[at].probability
            if probability != 0.5:
                margins.append(found if probability > 0.5 else -found)
                probabilities.append(max(probability, 1 - probability))
    return margins, probabilities


def _gold(verdicts: Sequence[JudgedPair], held_out: EncodedVerdicts) -> list[Any]:
    """The pairs held out, each once, with the better reply by the verdicts on it; those without a winner left out."""
    kept = {row.id for row in held_out.rows}
    by_pair: dict[str, list[JudgedPair]] = {}
    for row in verdicts:
        if row.id in kept:
            by_pair.setdefault(row.id, []).append(row)
    gold = []
    for rows in by_pair.values():
        mean = sum(row.probability for row in rows) / len(rows)
        if mean != 0.5:
            gold.append(rows[0].pair.model_copy(update={"preferred": "a" if mean > 0.5 else "b"}))
    return gold
