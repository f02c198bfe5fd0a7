"""Our losses and tokens against TRL 1.16's own trainers, on the same model, rows and batch; hard labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, LlamaForCausalLM
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

from preceptor.train.data.collate_pairs import PairBatch, collate_pairs
from preceptor.train.data.pairs import encode_pairs
from preceptor.train.dpo import objective, policy_loss
from preceptor.train.forward.reply_logprobs import Policy, batch_hidden, pair_logprobs
from preceptor.train.forward.reward_heads import Heads, targets
from preceptor.train.pair_losses import pair_loss
from preceptor.train.reward import reward_loss
from preceptor.train.settings import DpoSettings
from tests.train.tiny import preference, tiny_tokenizer

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:`.*gradient_checkpointing.*` is deprecated"
    ),  # TRL asks by the old name
    pytest.mark.filterwarnings("ignore:`pin_memory`:UserWarning"),
]
PAIRS = [preference(number) for number in range(6)]
BETA = 0.3


def rows() -> Dataset:
    return Dataset.from_list(
        [
            {name: [m.model_dump() for m in getattr(pair, name)] for name in ("prompt", "chosen", "rejected")}
            for pair in PAIRS
        ]
    )


def options(folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": len(PAIRS),
        "report_to": "none",
        "disable_tqdm": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "max_length": None,
        "dataloader_pin_memory": False,
    }


def by_length(batch: dict[str, torch.Tensor]) -> list[list[int]]:
    """The rows of a batch without their padding."""
    return [
        ids[mask.bool()].tolist()
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]


def trl_dpo(folder: Path, model: Path, **more: Any) -> DPOTrainer:
    """Their trainer with a policy that has moved away from its reference."""
    torch.manual_seed(0)
    policy, reference = LlamaForCausalLM.from_pretrained(model), LlamaForCausalLM.from_pretrained(model)
    for parameter in policy.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return DPOTrainer(
        model=policy,
        ref_model=reference,
        args=DPOConfig(**{**options(folder), "beta": BETA, **more}),
        train_dataset=rows(),
        processing_class=tiny_tokenizer(),
    )


ANCHOR = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.7]}
DPO_LOSSES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "dpo": ({}, {}),
    "ipo": ({"loss": "ipo"}, {"loss_type": "ipo"}),
    "hinge": ({"loss": "hinge"}, {"loss_type": "hinge"}),
    "robust": ({"loss": "robust", "label_smoothing": 0.2}, {"loss_type": "robust", "label_smoothing": 0.2}),
    "ld-dpo": ({"loss": "ld-dpo", "length_alpha": 0.3}, {"ld_alpha": 0.3}),
    "ld-dpo-1": ({"loss": "ld-dpo", "length_alpha": 1.0}, {}),
    "cdpo": ({"label_smoothing": 0.2}, {"loss_type": "aot_unpaired", "label_smoothing": 0.2}),
    "anchor": ({"rpo_alpha": 0.7}, ANCHOR),
}
"""Ours and theirs. On hard labels and one pair a batch, so that their sorting (aot) and their mean over the
batch's tokens (sft) are those of one pair; cDPO itself is no longer in TRL."""


@pytest.mark.parametrize("name", DPO_LOSSES)
def test_dpo_losses_equal_trls(tiny: Path, tmp_path: Path, name: str) -> None:
    """Same tokens, same reference, p = 1: loss and gradient differ by less than 1e-5."""
    ours, theirs = DPO_LOSSES[name]
    trainer = trl_dpo(tmp_path, tiny, **theirs)
    policy: Any = trainer.model
    encoded = encode_pairs(PAIRS, tiny_tokenizer(), 512).rows
    reference = pair_logprobs(Policy(trainer.ref_model.eval()), encoded, 0, 300, shared=True)
    settings = DpoSettings(beta=BETA, **ours)
    for number in (1, 4):
        batch = trainer.data_collator([trainer.train_dataset[number]])
        mine = collate_pairs([encoded[number]], [number], pad_id=0)
        assert by_length(batch) == [
            encoded[number].prompt + encoded[number].chosen,
            encoded[number].prompt + encoded[number].rejected,
        ]
        gradients = []
        for loss in (
            policy_loss(Policy(policy), mine, reference, **objective(settings))[0].mean(),
            trainer.compute_loss(policy, batch),
        ):
            policy.zero_grad()
            loss.backward()
            gradients.append(torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None]))
            assert abs(loss.item() - 0.6931) > 1e-3  # the policy is not the reference
            gradients.append(loss.detach())
        torch.testing.assert_close(gradients[1], gradients[3], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(gradients[0], gradients[2], rtol=1e-4, atol=1e-5)


def test_the_batch_and_its_rewards_equal_trls(tiny: Path, tmp_path: Path) -> None:
    """The mean over a batch, and the implicit rewards told beside it."""
    trainer = trl_dpo(tmp_path, tiny)
    encoded = encode_pairs(PAIRS, tiny_tokenizer(), 512).rows
    theirs = trainer.data_collator([trainer.train_dataset[number] for number in range(len(PAIRS))])
    reference = pair_logprobs(Policy(trainer.ref_model.eval()), encoded, 0, 300, shared=True)
    policy: Any = trainer.model
    wanted = trainer.compute_loss(policy, theirs)
    for shared in (True, False):
        ours = collate_pairs(encoded, range(len(PAIRS)), 0, shared)
        loss, figures = policy_loss(Policy(policy), ours, reference, pair_loss("dpo"), BETA)
        torch.testing.assert_close(loss.mean(), wanted, rtol=0, atol=1e-5)
        metrics = trainer._metrics["eval"]  # the model as loaded is in evaluation mode
        assert figures["margin"].mean().item() == pytest.approx(metrics["rewards/margins"][0], abs=1e-5)


@pytest.mark.parametrize(("margin", "centre"), [(0.0, None), (1.5, None), (0.0, 0.01)])
def test_reward_losses_equal_trls(tiny: Path, tmp_path: Path, margin: float, centre: float | None) -> None:
    """Same backbone and score on the same tokens, p = 1: the mean loss differs by less than 1e-5."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=1)
    model.score.weight.data.normal_(std=0.2)
    tokenizer = tiny_tokenizer()
    data = rows().add_column("margin", [margin] * len(PAIRS)) if margin else rows()
    config = RewardConfig(**options(tmp_path), center_rewards_coefficient=centre)
    trainer = RewardTrainer(model=model, args=config, train_dataset=data, processing_class=tokenizer)
    theirs = trainer.data_collator([trainer.train_dataset[number] for number in range(len(PAIRS))])
    pairs = encode_pairs(PAIRS, tokenizer, 512).rows
    assert by_length(theirs) == [p.prompt + p.chosen for p in pairs] + [p.prompt + p.rejected for p in pairs]

    def scores(batch: PairBatch) -> torch.Tensor:
        return model.score(batch_hidden(model, batch)[batch.last])

    ours = collate_pairs([pair._replace(margin=margin) for pair in pairs], range(len(PAIRS)), pad_id=0)
    pieces = {"heads": Heads(), "wanted": targets(pairs, Heads(), seed=0)}
    loss = reward_loss(scores, ours, **pieces, margin=1.0, center_rewards_coefficient=centre or 0.0)[0].mean()  # type: ignore[arg-type]
    torch.testing.assert_close(loss, trainer.compute_loss(model, theirs), rtol=0, atol=1e-5)
    assert abs(loss.item() - 0.6931) > 1e-3
