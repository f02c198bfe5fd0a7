"""The reward model: learns, loads back exactly, scores alike in any batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from preceptor.prompts.records import Message
from preceptor.train.errors import CheckpointError, TrainDataError
from preceptor.train.forward.reward_model import RewardModel
from preceptor.train.reward import train_reward
from preceptor.train.settings import RewardModelSettings
from tests.train.tiny import preference

PAIRS = [preference(number) for number in range(80)]
CONVERSATIONS = [[*pair.prompt, *reply] for pair in PAIRS[:12] for reply in (pair.chosen, pair.rejected)]


@pytest.fixture(scope="module")
def folder(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reward") / "rm"
    settings = RewardModelSettings(
        model=str(tiny), epochs=3, learning_rate=5e-3, batch_size=8, held_out=0.25, rank=4
    )
    trained = train_reward(PAIRS, settings, out)
    card = trained.metrics["held_out"]
    assert card["n"] == trained.rows["held_out"] > 8
    assert card["accuracy"] > 0.9
    assert card["ci95"][0] > 0.6
    return out


@pytest.mark.parametrize("batch_size", [1, 5, 24])
def test_scores_depend_on_neither_batch_nor_padding(folder: Path, batch_size: int) -> None:
    model = RewardModel.load(folder)
    alone = [model.score([conversation])[0] for conversation in CONVERSATIONS]
    assert model.score(CONVERSATIONS, batch_size) == pytest.approx(alone, abs=1e-5)
    assert max(alone) - min(alone) > 0.5


def test_loads_back_to_the_bit(folder: Path, tmp_path: Path) -> None:
    model = RewardModel.load(folder)
    model.save(tmp_path / "copy")
    assert RewardModel.load(tmp_path / "copy").score(CONVERSATIONS) == model.score(CONVERSATIONS)
    assert model.head.weight.dtype == torch.float32
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_the_adapter_loads_with_plain_peft(folder: Path, tiny: Path) -> None:
    with pytest.warns(FutureWarning, match="is_gradient_checkpointing"):  # peft 0.21 asks by the old name
        plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), folder)
    ours = RewardModel.load(folder).adapted
    ids = torch.arange(5, 25)[None]
    assert torch.equal(plain(input_ids=ids).logits, ours(input_ids=ids).logits)


def test_a_conversation_that_cannot_be_scored_is_refused_by_number(folder: Path) -> None:
    model = RewardModel.load(folder)
    with pytest.raises(TrainDataError, match="conversation 1 does not end in an assistant's reply"):
        model.score([CONVERSATIONS[0], list(PAIRS[0].prompt)])
    endless = [*PAIRS[0].prompt, Message(role="assistant", content="x" * 2000)]
    with pytest.raises(TrainDataError, match="the reply of conversation 0 has 2001 tokens"):
        model.score([endless])


def test_a_folder_that_is_no_reward_model_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no reward model folder"):
        RewardModel.load(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"it has no score_head\.safetensors"):
        RewardModel.load(tmp_path / "empty")
    (tmp_path / "empty/score_head.safetensors").write_bytes(
        (folder / "score_head.safetensors").read_bytes()[:20]
    )
    with pytest.raises(CheckpointError, match="cannot be read"):
        RewardModel.load(tmp_path / "empty")
