"""Reward models that are served from one base in memory."""

from __future__ import annotations

import asyncio
from pathlib import Path

from preceptor.serve.auth import ANYBODY
from preceptor.serve.config import RewardEntry
from preceptor.serve.reward_bases import RewardBases
from preceptor.serve.rewards import TrainedReward
from preceptor.train.evaluation.rating import rated
from preceptor.train.forward.reward_model import RewardModel
from tests.preceptor.serve.test_trained_reward import TEXTS, replies
from tests.train.tiny import save_reward


def test_models_on_one_base_share_it_and_answer_as_each_does_alone(tmp_path: Path) -> None:
    """Whichever adapter answered before, and whoever else asks at the same time."""
    folder, other = (save_reward(tmp_path, name, seed) for name, seed in (("one", 1), ("other", 2)))
    alone = {
        place: [row.reward for row in rated(RewardModel.load(place), replies(TEXTS), "", batch_size=1)]
        for place in (folder, other)
    }
    assert alone[folder] != alone[other]

    async def served() -> None:
        bases = RewardBases()
        rewards = {place: TrainedReward(RewardEntry(reward_model=place), bases) for place in (folder, other)}
        for order in ((folder, other), (other, folder), (folder, folder, other)):
            for place in order:
                rows = await rewards[place].of(replies(TEXTS), ANYBODY)
                assert [row.reward for row in rows] == alone[place]
        turns = [place for _ in TEXTS for place in (folder, other)]
        asked = [replies([TEXTS[number // 2]]) for number in range(len(turns))]
        rows = await asyncio.gather(
            *(rewards[place].of(one, ANYBODY) for place, one in zip(turns, asked, strict=True))
        )
        told = [row.reward for (row,) in rows]
        assert told == [alone[place][number // 2] for number, place in enumerate(turns)]
        assert bases.of(folder) is bases.of(other)
        await bases.close()

    asyncio.run(served())
