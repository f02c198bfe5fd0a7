"""One budget and one rate for several workers: what is kept, and what becomes of a worker that is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from preceptor.constitution.errors import UserError
from preceptor.judge.asking.fanout import Limits, Progress, RunInterruptedError
from preceptor.judge.asking.shared import (
    SILENT_S,
    Keeper,
    KeeperConnection,
    KeeperNote,
    SharedBudget,
    SharedRateLimiter,
    Stop,
    stop_of,
)
from preceptor.judge.errors import BudgetReached, ProviderStopped
from preceptor.judge.models.protocol import Request
from preceptor.prompts.records import Message
from tests.judge.virtual_time import TurnedClock

MODEL = "openai/m"
REQUEST = Request(model=MODEL, messages=(Message(role="user", content="?"),), max_tokens=5)
NOTHING = Progress(0, None, 0, 0, 0, 0.0, 0, 0)


class Worker:
    """A line to a keeper in this process."""

    def __init__(self, keeper: Keeper, name: str) -> None:
        def ask(method: str, *words: Any) -> Awaitable[Any]:
            return asyncio.ensure_future(getattr(keeper, method)(*words))

        self.line = KeeperConnection(name, ask)
        self.budget = SharedBudget(self.line, capped=True)
        self.gate = SharedRateLimiter(self.line, MODEL)


async def settled() -> None:
    """Until what was told has been heard."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_workers_share_the_room() -> None:
    keeper = Keeper(Limits(concurrency=3))
    one, other = Worker(keeper, "one"), Worker(keeper, "other")
    for gate in (one.gate, one.gate, other.gate):
        await gate.enter(REQUEST)
    fourth = asyncio.create_task(other.gate.enter(REQUEST))
    await settled()
    assert not fourth.done()
    one.gate.leave()
    await fourth


async def test_a_crowd_at_one_worker_slows_the_other() -> None:
    keeper = Keeper(Limits(concurrency=4))
    one, other = Worker(keeper, "one"), Worker(keeper, "other")
    await one.gate.enter(REQUEST)
    one.gate.throttled(asyncio.get_running_loop().time(), None)
    await other.gate.enter(REQUEST)
    third = asyncio.create_task(other.gate.enter(REQUEST))
    await settled()
    assert not third.done()
    one.gate.answered()
    await third


async def test_a_limit_that_one_hears_of_holds_for_the_other() -> None:
    keeper = Keeper(Limits(concurrency=8))
    one, other = Worker(keeper, "one"), Worker(keeper, "other")
    mark = await one.gate.enter(REQUEST)
    said = {"limit-requests": "60", "remaining-requests": "0", "reset-requests": "60s"}
    one.gate.observe(
        {"content-type": "text/plain", **{f"x-ratelimit-{name}": value for name, value in said.items()}}, mark
    )
    await settled()
    second = asyncio.create_task(other.gate.enter(REQUEST))
    await settled()
    assert not second.done()
    await keeper.stop(Stop("interrupted", "enough"))
    with pytest.raises(RunInterruptedError):
        await second


async def test_the_cap_is_one_for_all_and_its_end_stops_all() -> None:
    keeper = Keeper(Limits(max_cost_usd=1.0))
    one, other = Worker(keeper, "one"), Worker(keeper, "other")
    await one.budget.reserve(0.6)
    waiting = asyncio.create_task(other.budget.reserve(0.6))
    await settled()
    assert not waiting.done()
    assert not await other.budget.try_reserve(0.6)
    one.budget.settle(0.6, 0.1)
    await waiting
    other.budget.settle(0.6, 0.5)
    with pytest.raises(BudgetReached, match=r"0\.6000 of 1 USD"):
        await one.budget.reserve(0.6)
    with pytest.raises(BudgetReached):
        await other.gate.enter(REQUEST)
    assert (await keeper.stopped()) is not None


async def test_what_a_lost_worker_had_reserved_is_spent_and_its_room_is_free() -> None:
    clock = TurnedClock()
    keeper = Keeper(Limits(max_cost_usd=1.0, concurrency=1), clock=clock)
    lost, other = Worker(keeper, "lost"), Worker(keeper, "other")
    await lost.gate.enter(REQUEST)
    await lost.budget.reserve(0.6)
    entering = asyncio.create_task(other.gate.enter(REQUEST))
    await settled()
    clock.now_s += SILENT_S + 1
    await settled()
    assert not entering.done()
    assert await other.line.ask("beat", NOTHING) is None
    await entering
    with pytest.raises(BudgetReached, match=r"0\.6000 of 1 USD"):
        await other.budget.reserve(0.6)
    # it was only slow: its room is given back once, and its call stays booked at its worst
    lost.gate.leave()
    lost.budget.settle(0.6, 0.0)
    await settled()
    assert not await other.budget.try_reserve(0.6)


async def test_progress_is_the_sum_and_keeps_the_lost() -> None:
    keeper = Keeper(Limits())
    for name, asked in (("one", 2), ("other", 3)):
        await keeper.beat(name, NOTHING._replace(asked=asked, cost_usd=0.5))
    await keeper.beat("one", NOTHING._replace(asked=4, cost_usd=0.75))
    assert await keeper.progress() == NOTHING._replace(asked=7, cost_usd=1.25)


async def test_without_a_cap_the_keeper_is_not_asked() -> None:
    def never(method: str, *_: Any) -> Awaitable[Any]:
        raise AssertionError(method)

    budget = SharedBudget(KeeperConnection("one", never), capped=False)
    await budget.reserve(5.0)
    assert await budget.try_reserve(5.0)
    budget.settle(5.0, 1.0)


async def test_what_is_told_together_goes_together() -> None:
    heard: list[tuple[KeeperNote, ...]] = []

    def ask(method: str, _: str, notes: tuple[KeeperNote, ...]) -> Awaitable[Any]:
        assert method == "tell"
        heard.append(notes)
        return asyncio.ensure_future(asyncio.sleep(0))

    gate = SharedRateLimiter(KeeperConnection("one", ask), MODEL)
    gate.answered()
    gate.leave()
    await settled()
    assert [[note.what for note in notes] for notes in heard] == [["answered", "leave"]]


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (BudgetReached("b"), "budget"),
        (ProviderStopped("p"), "provider"),
        (UserError("u"), "user"),
        (RunInterruptedError("i"), "interrupted"),
    ],
)
def test_a_stop_comes_back_as_the_error_that_it_was(error: Exception, why: str) -> None:
    stop = stop_of(error)
    assert stop is not None
    assert (stop.why, type(stop.error), str(stop.error)) == (why, type(error), str(error))


def test_a_fault_is_no_stop() -> None:
    assert stop_of(ZeroDivisionError()) is None
