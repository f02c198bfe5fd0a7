"""What a reward function may say of itself, and what becomes of one that says nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from preceptor.judge.reward import JudgeReward
from preceptor.prompts.records import Message, Prompt
from preceptor.train.rollout.rewards import Closing, Replied, by_function, function_identity
from tests.train.rewards import vowels

ROWS = [Replied(Prompt(id="p", messages=(Message(role="user", content="Hi."),)), ([1], [2]), "abc")]


class Connected:
    """A reward over a connection, which belongs to the event loop of its calls."""

    identity = "connected, version 2"

    def __init__(self) -> None:
        self.loops: list[Any] = []
        self.closed_in: list[Any] = []

    async def __call__(
        self, _prompts: Sequence[Any], completions: Sequence[str], **_columns: Any
    ) -> list[float]:
        self.loops.append(asyncio.get_running_loop())
        return [1.0 for _ in completions]

    async def close(self) -> None:
        self.closed_in.append(asyncio.get_running_loop())


class Plain:
    """Its `identity` and `close` are something else."""

    identity = 3

    def __call__(self, _prompts: Sequence[Any], completions: Sequence[str], **_columns: Any) -> list[float]:
        return [1.0 for _ in completions]

    def close(self, door: str) -> None:
        raise AssertionError(door)


def test_a_reward_that_says_its_identity_is_known_by_it() -> None:
    assert function_identity(Connected()) == "connected, version 2"
    assert function_identity(vowels).startswith("tests.train.rewards:vowels#")
    assert function_identity(Plain()).startswith(f"{__name__}:Plain#")


def test_a_reward_is_closed_in_the_loop_of_its_calls() -> None:
    reward = Connected()
    scorer = by_function(reward, "connected")
    assert [scorer.score(ROWS), scorer.score(ROWS)] == [[1.0], [1.0]]
    scorer.close()
    assert len({*reward.loops, *reward.closed_in}) == len(reward.closed_in) == 1


def test_what_is_no_such_close_is_let_be() -> None:
    scorer = by_function(Plain(), "plain")
    assert scorer.score(ROWS) == [1.0]
    scorer.close()


def test_the_judge_says_both() -> None:
    assert issubclass(JudgeReward, Closing)
    assert isinstance(JudgeReward.identity, property), "as `Identified` has it"
