"""Direct preference optimisation of a LoRA policy, with the judge's probabilities as labels.

    Rafailov et al. 2023 (arXiv 2305.18290), equation 7, with soft labels as `train.losses` has it.

The reference is the base with its adapters off or, where training goes on from an SFT adapter, a frozen copy
of that adapter. Its log-probabilities never change, so they are computed once, before the first step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import TrainingArguments

from judge.records import Preference
from train.folder import Result, Trained, begin_folder, finish_folder, found_finished, start_folder
from train.logprobs import Policy, pair_logprobs
from train.loop import (
    PairTrainer,
    Watch,
    adapted_by,
    check_rows,
    load_dtype,
    run_loop,
    trainer_options,
)
from train.losses import implicit_rewards, soft_dpo
from train.pairs import PairBatch, encode_pairs
from train.roles import as_reference, load_base, restore_adapter, save_adapter
from train.settings import DpoSettings


def train_dpo(
    preferences: Sequence[Preference],
    settings: DpoSettings,
    out: str | Path,
    *,
    watch: Watch | None = None,
    read: Mapping[str, Any] | None = None,
) -> Trained:
    """Train a policy on preferences; run again, it goes on from the last checkpoint.

    `read` says what reading the rows set aside and which files they came from, for the manifest.
    Raises TrainDataError where no pair can be trained on, CheckpointError and RunFolderError for model and
    folder.
    """
    began_s = time.monotonic()
    opened = start_folder("dpo", preferences, settings, Path(out))
    if (finished := found_finished(opened)) is not None:
        return finished
    base = load_base(settings.model, load_dtype(settings.precision))
    encoded = encode_pairs(preferences, base.tokenizer, settings.max_length, base.generation_eos)
    rows = {
        "in": len(preferences),
        "used": len(encoded.rows),
        "held_out": 0,
        "set_aside": encoded.set_aside,
        "shortened": encoded.shortened,
    }
    check_rows(rows)
    adapted = adapted_by(base, settings, frozen_reference=True)
    begin_folder(opened)
    reference: list[Tensor] = []
    trainer = PairTrainer(
        model=Policy(adapted),
        pairs=encoded.rows,
        pad_id=base.pad_id,
        loss=_dpo_loss(reference, settings.beta),
        save=lambda folder: save_adapter(adapted, folder),
        restore=lambda folder: restore_adapter(adapted, folder),
        args=TrainingArguments(**trainer_options(settings, opened.path)),
    )
    with as_reference(adapted):  # after the trainer has put the model on its device
        reference += pair_logprobs(adapted, encoded.rows, base.pad_id, settings.batch_size)
    last = run_loop(trainer, opened, "dpo", settings, watch)
    save_adapter(adapted, opened.path)
    base.tokenizer.save_pretrained(str(opened.path))
    result = Result(rows, last, trainer.state.global_step, time.monotonic() - began_s, dict(read or {}))
    return finish_folder(opened, result)


def _dpo_loss(
    reference: Sequence[Tensor], beta: float
) -> Callable[[nn.Module, PairBatch], tuple[Tensor, dict[str, Tensor]]]:
    """The loss of a batch, given the reference's log-probabilities of all chosen and all rejected replies.

    `kl_nats` is the mean of log pi_ref - log pi over the batch's replies: an estimate of KL(reference ||
    policy) as far as the replies are the reference's own samples, and of how far the policy has moved in any
    case.
    """

    def loss(model: nn.Module, batch: PairBatch) -> tuple[Tensor, dict[str, Tensor]]:
        logps = model(batch.input_ids, batch.attention_mask, batch.reply_mask)  # (2B,)
        chosen, rejected = logps.chunk(2)  # (B,) each
        ref_chosen, ref_rejected = (
            column[batch.number.cpu()].to(logps.device) for column in reference
        )  # (B,)
        losses = soft_dpo(chosen, rejected, ref_chosen, ref_rejected, batch.probability, beta)
        chosen_reward = implicit_rewards(chosen, ref_chosen, beta)
        rejected_reward = implicit_rewards(rejected, ref_rejected, beta)
        return losses, {
            "loss": losses,
            "accuracy": chosen_reward > rejected_reward,
            "chosen_reward": chosen_reward,
            "rejected_reward": rejected_reward,
            "margin": chosen_reward - rejected_reward,
            "kl_nats": (ref_chosen + ref_rejected - chosen - rejected) / 2,
        }

    return loss
