"""What a door gives for replies that nobody could judge."""

from __future__ import annotations

import pytest

from preceptor.serve.config import Fallback
from preceptor.serve.doors.asking import Refusals
from preceptor.serve.rewards import Reward


def row(name: str, reward: float | None = None) -> Reward:
    return Reward(id=name, reward=reward, status="ok" if reward is not None else "failed", reason="")


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_stated_number_follows_after_as_many_requests_however_many_rows_one_has(size: int) -> None:
    refusals, stated = Refusals(), Fallback(reward=-1.0, after=3)
    rows = [row(f"r{n}") for n in range(size)]
    for _ in range(3):
        assert refusals.fallbacks(rows, stated) == [None] * size
    assert refusals.fallbacks(rows, stated) == [-1.0] * size
    assert refusals.fallbacks([*rows, row("new")], stated) == [*[-1.0] * size, None]


def test_a_reward_is_left_as_it_is_and_without_a_stated_number_there_is_none() -> None:
    assert Refusals().fallbacks([row("a", 0.5), row("b")], None) == [0.5, None]


def test_one_reply_twice_in_a_request_counts_once() -> None:
    refusals, stated = Refusals(), Fallback(reward=0.0, after=1)
    assert refusals.fallbacks([row("a"), row("a")], stated) == [None, None]
