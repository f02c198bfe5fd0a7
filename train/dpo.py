"""Direct preference optimisation of a LoRA policy, with the judge's probabilities as labels.

    dpo        Rafailov et al. 2023 (arXiv 2305.18290), equation 7; with label_smoothing it is cDPO
    dpo-norm   the same per token of each reply, as in Tulu 3 (Lambert et al. 2024, arXiv 2411.15124, section 5)
    ld-dpo     the longer reply's surplus counts less (Liu et al. 2024, arXiv 2409.06411)
    robust     corrected for a share of flipped labels (Chowdhury et al. 2024, arXiv 2403.00409)
    hinge      a margin and no more (Zhao et al. 2023, arXiv 2305.10425)
    ipo        a finite target for the log-ratio (Azar et al. 2023, arXiv 2310.12036)
    simpo      no reference (Meng et al. 2024, arXiv 2405.14734)
    geometric  the judge's probability scales the log-odds (GDPO, Furuta et al. 2024, arXiv 2409.06691)

The reference is the base with its adapters off or, where training goes on from an SFT adapter or on top of
one, that adapter frozen; `reference_adapter` names another. Its log-probabilities never change, so they are
computed once, before the first step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from preceptor.judge.records import Preference
from preceptor.train import distributed, losses
from preceptor.train.data.collate_pairs import PairBatch, check_attention, set_attention
from preceptor.train.data.counts import check_rows, pair_counts
from preceptor.train.data.pairs import Encoded, PairTokens, encode_sides
from preceptor.train.estimate.dry_run import skeleton
from preceptor.train.estimate.plan import TrainingJob, TrainingPlan, plan_pairs
from preceptor.train.forward.layout_check import choose_layout
from preceptor.train.forward.reference_cache import cached_logprobs, weights_fingerprint
from preceptor.train.forward.reply_logprobs import Policy, ReplyLogprobs, pair_logprobs
from preceptor.train.loop.output_folder import Trained
from preceptor.train.loop.pair_trainer import Losses, PairTrainer, PairTraining, take_best
from preceptor.train.loop.run import OnTrainingProgress, trainer_options
from preceptor.train.loop.session import start_training
from preceptor.train.models.adapters import (
    adapted_by,
    as_reference,
    hold_reference,
    reference_of,
    restore_adapter,
    save_adapter,
    save_part,
)
from preceptor.train.models.base import Base
from preceptor.train.models.devices import load_dtype, pass_tokens
from preceptor.train.pair_losses import Options, PairLoss, pair_loss
from preceptor.train.settings import BARE, DpoSettings

if TYPE_CHECKING:
    from peft import PeftModel

__all__ = ["train_dpo"]


def train_dpo(
    preferences: Sequence[Preference],
    settings: DpoSettings,
    out: str | Path,
    *,
    watch: OnTrainingProgress | None = None,
    read: Mapping[str, Any] | None = None,
    cache: Path | None = None,
) -> Trained:
    """Train a policy on preferences; run again, it goes on from the last checkpoint.

    `read` says what reading the rows set aside and which files they came from, for the manifest; in the folder
    `cache` the reference's log-probabilities are kept for other runs.
    Raises TrainDataError where no pair can be trained on, CheckpointError and RunFolderError for model and
    folder.
    """
    started = start_training("dpo", preferences, settings, Path(out))
    if isinstance(started, Trained):
        return started
    base = started.base
    train, held_out = _encoded(preferences, base, settings)
    rows = pair_counts(train, held_out)
    pairs = [*train.rows, *held_out.rows]
    session = started.planned(_plan(base, train, held_out, settings))
    settings = session.settings
    set_attention(base.model, settings.attention)
    adapted, bare = _policy_and_reference(base, settings)
    session.begin()
    args = TrainingArguments(**trainer_options(settings, session.folder, bool(held_out.rows)))
    adapted.to(args.device)
    tokens = pass_tokens(settings.pass_tokens, args.device)
    layout = choose_layout(adapted, train.rows, base.pad_id, with_logits=True)
    policy = Policy(adapted, layout.whole_logits)

    identity = {
        "weights": "" if cache is None else weights_fingerprint(adapted, reference_of(adapted, bare)),
        "dtype": str(torch.bfloat16 if args.bf16 else adapted.dtype),
    }

    def compute(pairs: Sequence[PairTokens]) -> ReplyLogprobs:
        half = torch.autocast(args.device.type, dtype=torch.bfloat16, enabled=bool(args.bf16))
        with as_reference(adapted, bare), half:  # as the trainer computes the policy
            return pair_logprobs(policy, pairs, base.pad_id, tokens, layout.shared)

    has_reference = pair_loss(settings.loss).needs_reference
    reference = cached_logprobs(pairs, identity, cache, compute) if has_reference else None
    stage = PairTraining(
        pairs=pairs,
        trained=len(train.rows),
        pad_id=base.pad_id,
        shared=layout.shared,
        pass_tokens=tokens,
        loss=partial(policy_loss, reference=reference, **objective(settings)),
        save=lambda folder: save_part(adapted, folder),
        restore=lambda folder: restore_adapter(adapted, folder),
    )
    trainer = PairTrainer(policy, stage, args=args)
    ran = session.run(trainer, watch)
    if not distributed.first():
        return session.handed_back(rows, ran)
    taken = take_best(trainer) if settings.final_checkpoint == "best" else ()
    save_adapter(adapted, session.folder)
    return session.finish(rows, ran._replace(notes=(*layout.reasons, *ran.notes, *taken)), read)


def plan_dpo(preferences: Sequence[Preference], settings: DpoSettings) -> TrainingPlan:
    """What `train_dpo` would take; reads config and tokenizer, and writes nothing."""
    base = skeleton(settings.model, load_dtype(settings.precision))
    return _plan(base, *_encoded(preferences, base, settings), settings)


def _encoded(preferences: Sequence[Preference], base: Base, settings: DpoSettings) -> tuple[Encoded, Encoded]:
    """Tokens of the pairs to train on, and of those held out; TrainDataError where none is left to train on."""
    train, held_out = encode_sides(
        preferences,
        base,
        held_out=settings.held_out,
        seed=settings.seed,
        max_length=settings.max_length,
    )
    check_rows(pair_counts(train, held_out))
    return train, held_out


def _policy_and_reference(base: Base, settings: DpoSettings) -> tuple[PeftModel, bool]:
    """The policy with its reference, and whether that is the bare base though an adapter is there."""
    named = settings.reference_adapter
    adapted = adapted_by(base, settings, frozen_reference=named is None, stacked=settings.stack_adapter)
    if named is not None and named != BARE:
        hold_reference(adapted, base, Path(named))
    return adapted, named == BARE


def _plan(base: Base, train: Encoded, held_out: Encoded, settings: DpoSettings) -> TrainingPlan:
    """The reference reads all pairs once, unless an earlier run has."""
    check_attention(settings.attention)
    wanted = pair_loss(settings.loss).needs_reference
    pairs = [*train.rows, *held_out.rows]

    def prepare(adapted: PeftModel) -> Any:
        policy = Policy(adapted)
        lengths = torch.tensor(
            [len(pair.chosen) for pair in pairs] + [len(pair.rejected) for pair in pairs], device="cpu"
        )  # (2P,)
        likely = (
            -math.log(base.model.config.get_text_config().vocab_size) * lengths.float()
        )  # of random weights
        reference = ReplyLogprobs(likely, likely, lengths) if wanted else None

        def run(fields: Mapping[str, Tensor]) -> Tensor:
            return policy_loss(policy, PairBatch(**fields), reference, **objective(settings))[0].sum()

        return policy, run

    job = TrainingJob("dpo", settings, prepare, frozen_reference=True, stacked=settings.stack_adapter)
    return plan_pairs(job, base, train.rows, held_out.rows, pairs if wanted else ())


def policy_loss(
    model: nn.Module,
    batch: PairBatch,
    reference: ReplyLogprobs | None,
    loss: PairLoss,
    beta: float,
    *,
    rpo_alpha: float = 0.0,
    **options: float,
) -> Losses:
    """Losses and figures (B,) of a batch, given the reference's log-probabilities of all pairs of the data set.

    `options`: as those of `pair_losses`. `chosen_reward` and `rejected_reward` are DPO's implicit rewards, whichever
    loss is taken; where it has no reference, SimPO's: beta times the log-probability a token. `kl_nats` is the mean of
    log pi_ref - log pi over the two replies: an estimate of KL(reference || policy) as far as the replies are the
    reference's own samples, and of how far the policy has moved in any case.
    """
    logps = cast(ReplyLogprobs, model(batch))
    known = None if reference is None else _of_batch(reference, batch)
    figures: dict[str, Tensor] = {}
    values = pair_losses(logps, known, batch, loss, beta, **options)
    rewards = (
        beta * losses.per_token(logps.total, logps.lengths)
        if known is None
        else losses.implicit_rewards(logps.total, known.total, beta)
    )  # (2B,)
    chosen, rejected = rewards.chunk(2)
    if known is not None:
        figures["kl_nats"] = (known.total - logps.total).view(2, -1).mean(dim=0)
    if rpo_alpha:
        anchored = losses.negative_log_likelihood(logps.total.chunk(2)[0], logps.lengths.chunk(2)[0])
        values = values + rpo_alpha * anchored
        figures["chosen_nll"] = anchored
    return values * batch.weight, {
        "accuracy": chosen > rejected,
        "chosen_reward": chosen,
        "rejected_reward": rejected,
        "margin": chosen - rejected,
        **figures,
    }


def pair_losses(
    policy: ReplyLogprobs,
    reference: ReplyLogprobs | None,
    batch: PairBatch,
    loss: PairLoss,
    beta: float,
    *,
    label_smoothing: float = 0.0,
    margin: float = 0.0,
    gamma: float = 0.0,
    length_alpha: float = 1.0,
) -> Tensor:
    """The loss (B,) of an entry of `train.pair_losses` on the judge's probability, without rpo_alpha's term and weight.

    policy, reference: log-probabilities (2B,) of the chosen replies and then the rejected ones. Of the options, those
    that the loss has are read; all are as in DpoSettings. A reference is not looked at where the loss has none.
    """
    options: Options = {
        "beta": beta,
        "label_smoothing": label_smoothing,
        "margin": margin * batch.margin,  # (B,)
        "gamma": gamma,
        "length_alpha": length_alpha,
    }
    scores = loss.score(policy, options)  # (2B,)
    if loss.needs_reference:
        if reference is None:
            raise ValueError(f"loss {loss.name} needs the reference's log-probabilities")
        scores = scores - loss.score(reference, options)
    chosen, rejected = scores.chunk(2)
    probability = batch.probability
    if "label_smoothing" not in loss.options:
        probability = losses.smoothed(probability, label_smoothing)
    bring_in = losses.geometric if loss.geometric else losses.expected
    return bring_in(lambda gap: loss.loss(gap, options), chosen - rejected, probability)


def objective(settings: DpoSettings) -> dict[str, Any]:
    """What the settings say of the loss, as arguments of `policy_loss`."""
    return {
        "loss": pair_loss(settings.loss),
        "beta": settings.beta,
        "rpo_alpha": settings.rpo_alpha,
        "label_smoothing": settings.label_smoothing,
        "margin": settings.margin,
        "gamma": settings.gamma,
        "length_alpha": settings.length_alpha,
    }


def _of_batch(reference: ReplyLogprobs, batch: PairBatch) -> ReplyLogprobs:
    number = batch.number.cpu()
    return ReplyLogprobs(
        *(
            column.view(2, -1)[:, number].flatten().to(batch.number.device, non_blocking=True)
            for column in reference
        )
    )
