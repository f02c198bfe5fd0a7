"""The reward model: a LoRA adapter on the frozen base, and linear scores on the last reply token.

    Christiano et al. 2017 (arXiv 1706.03741) for the idea, Ouyang et al. 2022 (arXiv 2203.02155) for language
    models, Bai et al. 2022 (arXiv 2212.08073) for probabilities of an AI judge as labels.

Left out of the papers: several pairs of one prompt in one loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from preceptor.judge.records import Preference, Response
from preceptor.prompts.manifest import write_json, write_text
from preceptor.prompts.records import Message
from preceptor.train import distributed
from preceptor.train.data.batching import evenly
from preceptor.train.data.collate_pairs import PairBatch, check_attention, set_attention
from preceptor.train.data.counts import check_rows, pair_counts
from preceptor.train.data.pairs import Encoded, PairTokens, encode_sides
from preceptor.train.errors import TrainDataError
from preceptor.train.estimate.dry_run import skeleton
from preceptor.train.estimate.plan import TrainingJob, TrainingPlan, plan_pairs
from preceptor.train.evaluation.report_card import CARD, Judged, card, sample_figures
from preceptor.train.evaluation.report_card_page import page
from preceptor.train.evaluation.reward_figures import BeforeDebias, RewardFigures
from preceptor.train.forward.layout_check import choose_layout
from preceptor.train.forward.length_debias import length_part
from preceptor.train.forward.reward_heads import Heads, Targets, rewards, spread, targets
from preceptor.train.forward.reward_model import RewardModel
from preceptor.train.loop.output_folder import Trained
from preceptor.train.loop.pair_trainer import Losses, PairTrainer, PairTraining, take_best
from preceptor.train.loop.run import OnTrainingProgress, trainer_options
from preceptor.train.loop.session import start_training
from preceptor.train.losses import off_centre, smoothed, soft_bradley_terry
from preceptor.train.models.adapters import adapted_by, seeded
from preceptor.train.models.base import Base
from preceptor.train.models.devices import load_dtype, pass_tokens
from preceptor.train.settings import RewardModelSettings

if TYPE_CHECKING:
    from peft import PeftModel

__all__ = ["train_reward"]

CARD_PAGE = "report_card.html"
FITTED_PAIRS = 4096
"""Pairs, evenly from all, on which offsets and the length direction are fitted after training."""
UNHEARD = "no principle was asked about on its own"


def train_reward(
    preferences: Sequence[Preference],
    settings: RewardModelSettings,
    out: str | Path,
    *,
    watch: OnTrainingProgress | None = None,
    read: Mapping[str, Any] | None = None,
    samples: Sequence[Response] = (),
) -> Trained:
    """Train a reward model on preferences; run again, it goes on from the last checkpoint.

    `read` says what reading the rows set aside and which files they came from, for the manifest; on `samples`,
    replies of a policy, the report card says how far the rewards vary.
    Raises TrainDataError where no pair can be trained on, CheckpointError and RunFolderError for model and
    folder.
    """
    started = start_training("reward", preferences, settings, Path(out))
    if isinstance(started, Trained):
        return started
    base = started.base
    train, held_out = _encoded(preferences, base, settings)
    rows = pair_counts(train, held_out)
    heads = heads_for(settings, train.rows)
    session = started.planned(_plan(base, train, held_out, settings))
    settings = session.settings
    set_attention(base.model, settings.attention)
    adapted = adapted_by(base, settings, frozen_reference=False)
    with seeded(settings.seed):
        model = RewardModel(adapted, base, settings.max_length, heads)
    session.begin()
    args = TrainingArguments(**trainer_options(settings, session.folder, bool(held_out.rows)))
    model.to(args.device)
    tokens = pass_tokens(settings.pass_tokens, args.device)
    layout = choose_layout(adapted, train.rows, base.pad_id, with_logits=False)
    sides = (targets(some.rows, heads, settings.seed) for some in (train, held_out) if some.rows)
    wanted = Targets(*map(torch.cat, zip(*sides, strict=True)))
    stage = PairTraining(
        pairs=[*train.rows, *held_out.rows],
        trained=len(train.rows),
        pad_id=base.pad_id,
        shared=layout.shared,
        pass_tokens=tokens,
        loss=_loss(heads, wanted, settings),
        save=model.save,
        restore=model.restore,
    )
    trainer = PairTrainer(model, stage, args=args)
    ran = session.run(trainer, watch)
    if not distributed.first():
        return session.handed_back(rows, ran)
    taken = take_best(trainer) if settings.final_checkpoint == "best" else ()
    figures = _finish(model, train.rows, held_out.rows, settings, (tokens, layout.shared))
    if samples:
        figures["samples"] = sample_figures(_sampled(model, samples))
    model.save(session.folder)
    write_json(session.folder / CARD, figures)
    write_text(session.folder / CARD_PAGE, page(figures, settings.model_dump(mode="json"), rows))
    shown = {
        key: value for key, value in figures.items() if not isinstance(value, list | dict) or key == "ci95"
    }
    ran = ran._replace(
        metrics={**ran.metrics, "held_out": shown}, notes=(*layout.reasons, *ran.notes, *taken)
    )
    return session.finish(rows, ran, read)


def plan_reward(preferences: Sequence[Preference], settings: RewardModelSettings) -> TrainingPlan:
    """What `train_reward` would take; reads config and tokenizer, and writes nothing."""
    base = skeleton(settings.model, load_dtype(settings.precision))
    return _plan(base, *_encoded(preferences, base, settings), settings)


def _encoded(
    preferences: Sequence[Preference], base: Base, settings: RewardModelSettings
) -> tuple[Encoded, Encoded]:
    """Tokens of the pairs to train on, and of those held out; TrainDataError where none is left to train on."""
    check_attention(settings.attention)
    train, held_out = encode_sides(
        preferences,
        base,
        held_out=settings.held_out,
        seed=settings.seed,
        max_length=settings.max_length,
    )
    if settings.per_principle:
        train, held_out = _heard(train), _heard(held_out)
    check_rows(pair_counts(train, held_out))
    return train, held_out


def _plan(base: Base, train: Encoded, held_out: Encoded, settings: RewardModelSettings) -> TrainingPlan:
    heads = heads_for(settings, train.rows)

    def prepare(adapted: PeftModel) -> Any:
        model = RewardModel(adapted, base, settings.max_length, heads)
        column = torch.ones(len(train.rows), len(heads.names), device="cpu")  # (P, K)
        wanted = Targets(column, column, column)
        loss = _loss(heads, wanted, settings)
        return model, lambda fields: loss(model, PairBatch(**fields))[0].sum()

    fitted = evenly(train.rows, FITTED_PAIRS) if _fits(settings.length_debias, heads) else ()
    job = TrainingJob("reward", settings, prepare)
    return plan_pairs(job, base, train.rows, held_out.rows, [*held_out.rows, *fitted])


def heads_for(settings: RewardModelSettings, pairs: Sequence[PairTokens]) -> Heads:
    """The scores that the settings ask for; of principles, those on which some pair has an opinion.

    Raises TrainDataError where the pairs speak of a principle that the settings' weights do not know.
    """
    if settings.per_principle:
        said = {name for pair in pairs for name, _ in pair.opinions}
        weights = settings.weights or dict.fromkeys(sorted(said), 1.0)
        if strange := sorted(said - set(weights)):
            raise TrainDataError(
                f"the rows have opinions on the principle {strange[0]!r}, which the constitution does not "
                f"have; it has {', '.join(weights)}. Give the constitution by which the rows were labelled"
            )
        names = tuple(name for name in weights if name in said)
        return Heads(
            kind="principles",
            names=names,
            weights=tuple(weights[name] for name in names),
            applies_to=tuple(settings.applies_to.get(name, ()) for name in names),
        )
    if settings.ensemble > 1:
        names = tuple(str(number) for number in range(settings.ensemble))
        return Heads(kind="ensemble", names=names, penalty=settings.spread_penalty)
    return Heads()


def reward_loss(
    model: nn.Module,
    batch: PairBatch,
    heads: Heads,
    wanted: Targets,
    *,
    label_smoothing: float = 0.0,
    margin: float = 0.0,
    center_rewards_coefficient: float = 0.0,
) -> Losses:
    """Losses and figures (B,) of a batch, given what the heads are to learn of all pairs of the data set. The numbers
    are as in `RewardModelSettings`."""
    chosen, rejected = model(batch).chunk(2)  # (B, K) each
    mine = wanted.of(batch.number)
    probability = smoothed(mine.probability, label_smoothing)
    values = soft_bradley_terry(chosen, rejected, probability, margin * batch.margin[:, None])
    if center_rewards_coefficient:
        values = values + center_rewards_coefficient * off_centre(chosen, rejected)
    first, second = (rewards(side, heads, mine.share) for side in (chosen, rejected))  # (B,) each
    figures = {
        "accuracy": first > second,
        "chosen_reward": first,
        "rejected_reward": second,
        "margin": first - second,
    }
    if heads.kind == "ensemble":
        figures["spread"] = spread(chosen - rejected)
    return (values * mine.weight).sum(dim=1) * batch.weight, figures


def _loss(
    heads: Heads, wanted: Targets, settings: RewardModelSettings
) -> Callable[[nn.Module, PairBatch], Losses]:
    """`reward_loss` with the numbers of the settings."""
    return partial(
        reward_loss,
        heads=heads,
        wanted=wanted,
        label_smoothing=settings.label_smoothing,
        margin=settings.margin,
        center_rewards_coefficient=settings.center_rewards_coefficient,
    )


def _heard(encoded: Encoded) -> Encoded:
    """The pairs with an opinion on some principle; the others set aside."""
    unheard = [pair.id for pair in encoded.rows if not pair.opinions]
    rows = [pair for pair in encoded.rows if pair.opinions]
    ids = {**encoded.ids_aside, **({UNHEARD: unheard} if unheard else {})}
    return encoded._replace(
        rows=rows, ids_aside=ids, set_aside={reason: len(some) for reason, some in ids.items()}
    )


def _fits(length_debias: bool, heads: Heads) -> bool:
    """Whether offsets or the length direction are to be fitted after training."""
    return length_debias or heads.kind == "ensemble"


def _finish(
    model: RewardModel,
    train: Sequence[PairTokens],
    held_out: Sequence[PairTokens],
    settings: RewardModelSettings,
    passing: tuple[int, bool],
) -> RewardFigures:
    """Fit what is fitted after training, offsets and length direction, and the report card."""
    seen = model.pair_features(held_out, *passing)  # (2, P, H)
    before: BeforeDebias | None = None
    if _fits(settings.length_debias, model.heads):
        some = evenly(train, FITTED_PAIRS)
        fitted = model.pair_features(some, *passing)
        if settings.length_debias:
            plain = card(_judged(model, held_out, seen))
            before = {
                "accuracy": plain.get("accuracy"),
                "ci95": plain.get("ci95"),
                "nll": plain.get("nll"),
                "length": plain.get("length"),
            }
            _take_length(model, some, fitted)
        if model.heads.kind == "ensemble":
            with torch.no_grad():
                scores = model.scores(fitted.flatten(0, 1).to(model.offset.device))  # (2P, K)
                model.offset.copy_(scores.mean(dim=0))
    figures = card(_judged(model, held_out, seen), model.heads.kind == "ensemble")
    if before is not None:
        figures["before_debias"] = before
    return figures


@torch.no_grad()
def _take_length(model: RewardModel, pairs: Sequence[PairTokens], features: Tensor) -> None:
    lengths = torch.tensor([len(pair.chosen) - len(pair.rejected) for pair in pairs])
    part = length_part(model.head.weight, features[0] - features[1], lengths)
    model.length.copy_(part)
    model.head.weight.sub_(part.to(model.head.weight.device))


def _judged(model: RewardModel, pairs: Sequence[PairTokens], features: Tensor) -> list[Judged]:
    """The pairs as the report card wants them, by their features (2, P, H)."""
    if not pairs:
        return []
    chosen, rejected = model.pair_rewards(pairs, features)  # (P,) each
    with torch.no_grad():
        gaps = model.scores((features[0] - features[1]).to(model.offset.device)).cpu() + model.offset.cpu()
    several = model.heads.kind == "principles"
    parts = [tuple(zip(model.heads.names, row, strict=True)) if several else () for row in gaps.tolist()]
    return [
        Judged(
            margin,
            pair.probability,
            (len(pair.chosen), len(pair.rejected)),
            pair.tags,
            pair.opinions,
            pair.gold,
            deviation,
            own,
        )
        for margin, deviation, own, pair in zip(
            (chosen - rejected).tolist(), spread(gaps).tolist(), parts, pairs, strict=True
        )
    ]


def _sampled(model: RewardModel, samples: Sequence[Response]) -> list[list[float]]:
    """Rewards of a policy's usable replies, together by prompt; one too long for the model is left out."""
    usable: list[Response] = []
    rows: list[tuple[list[int], list[int]]] = []
    for one in sorted(samples, key=lambda one: one.prompt.id):
        reply = Message(role="assistant", content=one.text)
        if one.status == "ok" and (row := model.taken([*one.prompt.messages, reply])) is not None:
            usable.append(one)
            rows.append(row)
    if not rows:  # every reply was cut off, say
        return []
    made = model.rate_rows(rows, [one.prompt.tags for one in usable])
    by_prompt = groupby(zip(usable, made, strict=True), key=lambda row: row[0].prompt.id)
    return [[rating.reward for _, rating in group] for _, group in by_prompt]
