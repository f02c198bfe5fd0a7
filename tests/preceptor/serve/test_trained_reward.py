"""A trained reward model, served: its scores are the command's, and depend on nobody else's replies."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from preceptor.judge.score import ReplyToScore
from preceptor.prompts.records import Message, Prompt
from preceptor.serve.auth import ANYBODY
from preceptor.serve.config import RewardEntry
from preceptor.serve.problems import Problem
from preceptor.serve.reward_bases import RewardBases
from preceptor.serve.rewards import Reward, TrainedReward
from preceptor.train.evaluation.rating import rated
from preceptor.train.forward.reward_model import RewardModel
from tests.train.tiny import save_reward

PROMPT = Prompt(id="p", messages=(Message(role="user", content="Where is the pool?"),))
TEXTS = (
    "On the roof.",
    "No.",
    "On the roof, next to the bar, from eight until ten in the evening.",
    "no " * 400,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_reward(tmp_path_factory.mktemp("trained"), "reward", 1)


def replies(texts: Sequence[str]) -> list[ReplyToScore]:
    return [ReplyToScore(str(number), PROMPT, text) for number, text in enumerate(texts)]


def test_scores_are_the_commands_and_alone_or_together_the_same(folder: Path) -> None:
    async def served() -> tuple[list[Reward], list[Reward]]:
        bases = RewardBases()
        reward = TrainedReward(RewardEntry(reward_model=folder), bases)
        together = await reward.of(replies(TEXTS), ANYBODY)
        # at once, as trainers ask that send one sample a request
        alone = await asyncio.gather(*(reward.of(replies([text]), ANYBODY) for text in TEXTS))
        await reward.close()
        await bases.close()
        return together, [row for rows in alone for row in rows]

    together, alone = asyncio.run(served())
    assert [row.reward for row in together] == [row.reward for row in alone]
    command = list(rated(RewardModel.load(folder), replies(TEXTS), "name", batch_size=1))
    assert [row.reward for row in together] == [row.reward for row in command]
    assert len({row.reward for row in together[:3]}) == 3
    assert (together[3].reward, together[3].status) == (None, "too_long")


def test_a_folder_that_is_no_reward_model_is_unavailable(tmp_path: Path) -> None:
    async def served() -> None:
        await TrainedReward(RewardEntry(reward_model=tmp_path), RewardBases()).of(replies(TEXTS[:1]), ANYBODY)

    with pytest.raises(Problem) as raised:
        asyncio.run(served())
    assert raised.value.status == 503
