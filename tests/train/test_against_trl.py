"""Our losses and tokens against TRL 1.16's own trainers, on the same model, rows and batch; hard labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, LlamaForCausalLM
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

from tests.train.tiny import preference, tiny_tokenizer
from train.dpo import _dpo_loss
from train.logprobs import Policy, last_hidden, pair_logprobs
from train.losses import soft_bradley_terry
from train.pairs import collate_pairs, encode_pairs

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


def test_dpo_loss_equals_trls(tiny: Path, tmp_path: Path) -> None:
    """Same tokens, same reference, p = 1: the mean loss differs by less than 1e-5, and so do the rewards."""
    torch.manual_seed(0)
    policy, reference = LlamaForCausalLM.from_pretrained(tiny), LlamaForCausalLM.from_pretrained(tiny)
    for parameter in policy.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    tokenizer = tiny_tokenizer()
    trainer = DPOTrainer(
        model=policy,
        ref_model=reference,
        args=DPOConfig(**options(tmp_path), beta=BETA),
        train_dataset=rows(),
        processing_class=tokenizer,
    )
    theirs = trainer.data_collator([trainer.train_dataset[number] for number in range(len(PAIRS))])
    encoded = encode_pairs(PAIRS, tokenizer, 512)
    ours = collate_pairs(encoded.rows, range(len(PAIRS)), pad_id=0)
    assert by_length(theirs) == by_length(ours._asdict())

    reference_logps = pair_logprobs(reference.eval(), encoded.rows, pad_id=0, batch_size=2)
    loss, figures = _dpo_loss(reference_logps, BETA)(Policy(policy), ours)  # type: ignore[arg-type]
    wanted = trainer.compute_loss(policy, theirs)
    torch.testing.assert_close(loss.mean(), wanted, rtol=0, atol=1e-5)
    assert abs(loss.mean().item() - 0.6931) > 1e-3  # the policy is not the reference
    metrics = trainer._metrics["eval"]  # the model as loaded is in evaluation mode
    assert figures["margin"].mean().item() == pytest.approx(metrics["rewards/margins"][0], abs=1e-5)


def test_reward_loss_equals_trls(tiny: Path, tmp_path: Path) -> None:
    """Same backbone and score on the same tokens, p = 1: the mean loss differs by less than 1e-5."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=1)
    model.score.weight.data.normal_(std=0.2)
    tokenizer = tiny_tokenizer()
    trainer = RewardTrainer(
        model=model, args=RewardConfig(**options(tmp_path)), train_dataset=rows(), processing_class=tokenizer
    )
    theirs = trainer.data_collator([trainer.train_dataset[number] for number in range(len(PAIRS))])
    ours = collate_pairs(encode_pairs(PAIRS, tokenizer, 512).rows, range(len(PAIRS)), pad_id=0)
    assert by_length(theirs) == by_length(ours._asdict())

    hidden = last_hidden(model, ours.input_ids, ours.attention_mask)
    scores = model.score(hidden[torch.arange(len(ours.last)), ours.last])[:, 0]
    chosen, rejected = scores.chunk(2)
    loss = soft_bradley_terry(chosen, rejected, ours.probability).mean()
    torch.testing.assert_close(loss, trainer.compute_loss(model, theirs), rtol=0, atol=1e-5)
    assert abs(loss.item() - 0.6931) > 1e-3
