"""The rate limiter: slots that follow the throttling, and paces on a clock that the test turns."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from preceptor.judge.asking.rate_limits import DENIALS, LocalRateLimiter
from preceptor.judge.models.protocol import Request
from preceptor.prompts.records import Message
from tests.judge.virtual_time import TurnedClock

REQUEST = Request(model="openai/m", messages=(Message(role="user", content="x" * 360),), max_tokens=6)
"""100 tokens: 90 and 4 in, 6 out."""


def limiter(clock: TurnedClock, width: int = 8, **paces: float) -> LocalRateLimiter:
    return LocalRateLimiter(width, clock.sleep, clock, **paces)


async def pass_through(through: LocalRateLimiter, headers: Mapping[str, str] | None = None) -> None:
    """One request and its reply, at once."""
    async with through.slot(REQUEST) as slot:
        if headers:
            slot.observe(headers)
        through.answered()


async def test_without_limits_nothing_waits_for_a_clock() -> None:
    clock = TurnedClock()
    through = limiter(clock)
    for _ in range(1000):
        await pass_through(through, {"x-ratelimit-limit-requests": "60"})
    assert clock.waits == []


@pytest.mark.parametrize("rpm", [6, 60, 600])
async def test_no_more_than_so_many_requests_a_minute(rpm: float) -> None:
    """From the first minute on, and no slower than allowed."""
    clock = TurnedClock()
    through = limiter(clock, rpm=rpm)
    left = []
    for _ in range(int(3 * rpm)):
        await pass_through(through)
        left.append(clock.now_s)
    most = max(sum(start <= at < start + 60 for at in left) for start in left)
    assert most <= rpm + max(1, rpm / 60)
    assert left[-1] - left[0] == pytest.approx(180, rel=0.2)


async def test_no_more_than_so_many_tokens_a_minute() -> None:
    """Though each request is larger than what flows in a second."""
    clock = TurnedClock()
    through = limiter(clock, tpm=600)
    for _ in range(31):
        await pass_through(through)
    assert clock.now_s - 1000 == pytest.approx(30 * 100 / 600 * 60, rel=0.05)


async def test_the_pace_is_learnt_from_the_headers() -> None:
    """Sixty a minute of which two are left: two leave at once, and then one a second."""
    clock = TurnedClock()
    through = limiter(clock)
    said = {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "2",
        "x-ratelimit-reset-requests": "58s",
    }
    await pass_through(through, said)
    await pass_through(through)
    await pass_through(through)
    assert clock.waits == []
    for _ in range(5):
        await pass_through(through)
    assert clock.waits == pytest.approx([1.0] * 5)


async def test_a_limit_for_a_day_is_known_by_its_reset() -> None:
    clock = TurnedClock()
    through = limiter(clock)
    said = {
        "x-ratelimit-limit-requests": "200",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "24h0m0s",
    }
    await pass_through(through, said)
    await pass_through(through)
    assert clock.waits == pytest.approx([86400 / 200])


async def test_what_left_after_a_reply_s_request_is_not_forgotten() -> None:
    """Ten are in flight when the first reply says that nine are left: none of the nine is there any more."""
    clock = TurnedClock()
    through = limiter(clock, width=20)
    ready = asyncio.Event()
    done = asyncio.Event()

    async def slow(headers: Mapping[str, str]) -> None:
        async with through.slot(REQUEST) as slot:
            await ready.wait()
            slot.observe(headers)
            await done.wait()

    said = {"x-ratelimit-limit-requests": "600", "x-ratelimit-reset-requests": "1s"}
    tasks = [
        asyncio.create_task(slow(said | {"x-ratelimit-remaining-requests": str(9 - number)}))
        for number in range(10)
    ]
    await asyncio.sleep(0)
    ready.set()
    await asyncio.sleep(0)
    await pass_through(through)
    assert len(clock.waits) == 1, "the eleventh waits for its share"
    done.set()
    await asyncio.gather(*tasks)


async def test_half_the_room_where_it_is_crowded_and_more_with_every_answer() -> None:
    clock = TurnedClock()
    through = limiter(clock, width=64)
    through.throttled(clock.now_s, None)
    assert through.width == 32
    through.throttled(clock.now_s - 1, None)
    assert through.width == 32, "it left before the cut and says nothing new"
    for left in (16, 8, 4, 2, 1, 1):
        clock.now_s += 1
        through.throttled(clock.now_s, None)
        assert through.width == left
    for _ in range(100):
        through.answered()
    assert through.width == 64


async def test_never_more_at_once_than_there_is_room_and_first_come_first_served() -> None:
    clock = TurnedClock()
    through = limiter(clock, width=4)
    running = peak = 0
    order: list[int] = []

    async def ask(number: int) -> None:
        nonlocal running, peak
        async with through.slot(REQUEST) as slot:
            order.append(number)
            for _ in range(2):
                running += 1
                peak = max(peak, running)
                await asyncio.sleep(0)
                running -= 1
                if number % 3 == 0:
                    through.throttled(clock.now_s, None)
                await slot.release_during(clock.sleep(0.1))
            through.answered()

    tasks = [asyncio.create_task(ask(number)) for number in range(40)]
    await asyncio.sleep(0)
    tasks[20].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert peak <= 4
    assert order == [number for number in range(40) if number != 20]
    await asyncio.wait_for(pass_through(through), 600)


async def test_a_wait_asked_of_several_in_a_row_is_kept_by_all() -> None:
    """One that is turned away may be chance; the others go on."""
    clock = TurnedClock()
    through = limiter(clock)
    for _ in range(DENIALS - 1):
        through.throttled(clock.now_s, 30.0)
    await pass_through(through)
    assert clock.waits == []
    for _ in range(DENIALS):
        through.throttled(clock.now_s, 30.0)
    await pass_through(through)
    assert clock.waits == [30.0]
    await pass_through(through)
    assert clock.waits == [30.0], "and then no more"
