"""Reward models that share a base: each answers as it does alone, and none harms another."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from preceptor.prompts.records import Message
from preceptor.train.errors import CheckpointError
from preceptor.train.forward.reward_model import RewardModel
from preceptor.train.forward.shared_base import SharedBase, source_of_base
from tests.train.tiny import save_reward

TURNS = [
    [Message(role="user", content="Where is the pool?"), Message(role="assistant", content=text)]
    for text in ("On the roof.", "No.")
]


def test_whichever_answered_before_scores_are_those_of_each_alone(tmp_path: Path) -> None:
    folders = [save_reward(tmp_path, f"reward{seed}", seed) for seed in range(3)]
    assert len({source_of_base(folder) for folder in folders}) == 1
    alone = [RewardModel.load(folder).score(TURNS) for folder in folders]
    shared = SharedBase()
    held = [shared.hold(folder) for folder in folders]
    assert len({id(model.base.model) for model in held}) == 1  # the weights are there once
    for number in (0, 2, 1, 1, 0):
        assert held[number].score(TURNS) == alone[number]
    assert len({tuple(scores) for scores in alone}) == 3


def test_a_folder_that_is_none_harms_no_other_on_its_base(tmp_path: Path) -> None:
    folder = save_reward(tmp_path, "reward", 1)
    shared = SharedBase()
    broken = folder.parent / "broken"
    shutil.copytree(folder, broken)
    (broken / "adapter_model.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError):
        shared.hold(broken)
    before = shared.hold(folder)
    with pytest.raises(CheckpointError):
        shared.hold(broken)
    again = shared.hold(folder)
    assert before.base.model is again.base.model  # the weights are there once
    assert before.score(TURNS) == again.score(TURNS) == RewardModel.load(folder).score(TURNS)
