"""A slow server is told from a dead one, on a clock that jumps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from preceptor.judge.asking.rate_limits import LocalRateLimiter
from preceptor.judge.asking.retry import (
    FIRST_WAIT_S,
    LONGEST_DEADLINE_S,
    LONGEST_WAIT_S,
    Tries,
    wait_s,
)
from preceptor.judge.errors import ModelError, ProviderStopped, Transient
from preceptor.judge.models.http.faults import Throttled, TimedOut
from preceptor.judge.models.protocol import Capabilities, Completion, Request
from preceptor.prompts.records import Message
from tests.judge.virtual_time import LoopClock, run


class Slow:
    """Four at a time, each of which takes so long; whoever waits longer than it may has asked in vain."""

    name = "openai/slow"
    endpoint = dialect = ""
    capabilities = Capabilities()

    def __init__(self, takes_s: float, there: bool) -> None:
        self.timeout_s = 60.0
        self.asked = 0
        self.given: list[float] = []
        self._takes_s = takes_s
        self._there = there
        self._slots = asyncio.Semaphore(4)

    async def complete(self, request: Request) -> Completion:  # noqa: ARG002
        self.asked += 1
        try:
            async with asyncio.timeout(self.timeout_s), self._slots:
                await asyncio.sleep(self._takes_s)
        except TimeoutError:
            raise TimedOut("it did not answer in time") from None
        return Completion(text="yes", finish_reason="stop")

    async def gives_time(self) -> bool:
        if self._there:
            self.given.append(asyncio.get_running_loop().time())
            self.timeout_s *= 2
        return self._there

    async def close(self) -> None:
        return None


def request(number: int) -> Request:
    messages = (Message(role="user", content=str(number)),)
    return Request(model="openai/slow", messages=messages, max_tokens=8)


async def ask_all(model: Slow, calls: int) -> list[Completion | BaseException]:
    clock = LoopClock()
    limiter = LocalRateLimiter(calls, asyncio.sleep, clock)
    tries = Tries(model, limiter, 120.0, 12, asyncio.sleep, clock)

    async def one(number: int) -> Completion:
        async with limiter.slot(request(number)) as slot:
            return await tries.complete(request(number), slot)

    asked: list[Awaitable[Completion]] = [one(number) for number in range(calls)]
    return await asyncio.gather(*asked, return_exceptions=True)


def test_sixteen_calls_to_four_slots_are_all_answered_in_the_end() -> None:
    async def main() -> tuple[Slow, list[Completion | BaseException]]:
        model = Slow(40.0, there=True)
        return model, await ask_all(model, 16)

    model, ended = run(main())
    assert all(isinstance(one, Completion) for one in ended), ended
    assert 1 <= len(model.given) <= 3, "one burst of time-outs gives time once"


@pytest.mark.parametrize("there", [True, False])
def test_a_server_that_never_answers_is_down_in_the_end(there: bool) -> None:
    async def main() -> tuple[Slow, list[Completion | BaseException], float]:
        model = Slow(1e9, there)
        return model, await ask_all(model, 5), asyncio.get_running_loop().time()

    model, ended, took_s = run(main())
    assert all(isinstance(one, ModelError) for one in ended)
    assert isinstance(ended[-1], ProviderStopped) or any(isinstance(one, ProviderStopped) for one in ended)
    assert took_s < (20 * LONGEST_DEADLINE_S if there else 20 * 120)
    assert bool(model.given) is there


@pytest.mark.parametrize("wished", [None, 0.0, 1e-7, 2.0, 600.0])
def test_a_wait_is_the_larger_of_the_wish_and_of_one_that_grows(
    wished: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that says "at once", or names a time that has passed, is not asked twelve times within a second."""
    monkeypatch.setattr("random.uniform", lambda _least, most: most)
    for tries in range(1, 13):
        grows = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (tries - 1))
        assert wait_s(tries, Throttled("busy", wished)) >= max(grows, wished or 0.0)
    monkeypatch.setattr("random.uniform", lambda least, _most: least)
    assert wait_s(1, Transient("busy", wished)) >= (wished or 0.0)
