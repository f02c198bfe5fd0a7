"""Budget and gate together: whatever befalls the calls, a run ends, and what was spent is at most the cap."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from preceptor.judge.asking.budget import Spending, worst_usd
from preceptor.judge.asking.fanout import Fanout, Limits
from preceptor.judge.asking.prices import Prices
from preceptor.judge.asking.rate_limits import RateLimiter
from preceptor.judge.asking.shared import Keeper, KeeperConnection, SharedBudget, SharedRateLimiter, stop_of
from preceptor.judge.errors import BudgetReached, ModelError, ProviderStopped, Rejected, Transient
from preceptor.judge.models.http.faults import Throttled
from preceptor.judge.models.protocol import Capabilities, Completion, Dialogue, Failure, Outcome, Request
from preceptor.judge.settings import Price
from preceptor.prompts.records import Message
from tests.judge.memory_ledger import InMemory
from tests.judge.virtual_time import Deadlock, LoopClock, run

NAME = "openai/testing"
PRICES = Prices.load({NAME: Price(input=1.0, output=1.0)})
Event = Literal["ok", "empty", "cut", "transient", "throttled", "held", "silent", "rejected", "stopped"]
EVENTS: tuple[Event, ...] = ("ok", "empty", "cut", "transient", "throttled", "held", "silent", "rejected")


class Plan(NamedTuple):
    """A run and what befalls its calls."""

    concurrency: int
    cap: float
    """In worst cases of one call."""
    befalls: Sequence[Sequence[Event]]
    """For each row, what its tries meet in turn; after the last, an answer."""
    share: float
    """What an answer costs of its worst case's reply."""
    rpm: float | None = None


plans = st.builds(
    Plan,
    concurrency=st.integers(1, 4),
    cap=st.floats(0.0, 8.0),
    befalls=st.lists(st.lists(st.sampled_from([*EVENTS, "stopped"]), max_size=5), min_size=1, max_size=12),
    share=st.floats(0.1, 1.0),
    rpm=st.none() | st.floats(10, 1000),
)
FIRST_TRY_FAILS = Plan(1, 1.5, [["transient"]] * 3, 0.3)
"""The smallest run that once hung: a retry held budget and waited for the place of one who waited for budget."""


def request(row: int) -> Request:
    return Request(model=NAME, messages=(Message(role="user", content=f"row {row}"),), max_tokens=40)


WORST_USD = worst_usd(request(0), 1.0, PRICES)


class Befallen:
    """Answers as the plan says, and counts what it is paid."""

    name = NAME
    endpoint = dialect = ""
    capabilities = Capabilities()

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._tries: dict[int, int] = defaultdict(int)
        self.paid_usd = 0.0

    async def complete(self, request: Request) -> Completion:
        row = int(request.messages[0].content.split()[1])
        events = self._plan.befalls[row]
        event = events[self._tries[row]] if self._tries[row] < len(events) else "ok"
        self._tries[row] += 1
        await asyncio.sleep(0.2)
        match event:
            case "transient":
                raise Transient("broken")
            case "throttled":
                raise Throttled("busy")
            case "held":
                raise Throttled("busy", retry_after_s=3.0)
            case "silent":
                await asyncio.sleep(1e6)
            case "rejected":
                raise Rejected("never")
            case "stopped":
                raise ProviderStopped("the key is gone")
        tokens = max(1, round(self._plan.share * request.max_tokens))
        made = Completion(
            text="" if event == "empty" else "yes",
            finish_reason="length" if event == "cut" else "stop",
            tokens_in=5,
            tokens_out=min(tokens, request.max_tokens - 1) if event == "cut" else tokens,
        )
        self.paid_usd += PRICES.cost(NAME, made) or 0.0
        return made

    async def close(self) -> None:
        """Nothing is held."""


def limits_of(plan: Plan) -> Limits:
    cap_usd = plan.cap * WORST_USD
    return Limits(concurrency=plan.concurrency, max_cost_usd=cap_usd, attempts=4, deadline_s=20, rpm=plan.rpm)


def asking(row: int) -> Dialogue[tuple[int, Outcome]]:
    (outcome,) = yield [request(row)]
    return row, outcome


async def alone(plan: Plan, model: Befallen) -> tuple[list[int], Exception | None, float]:
    """(rows that came, why it stopped, USD that may still be reserved) of a run in one process."""
    fanout = Fanout({NAME: model}, InMemory(), limits_of(plan), PRICES, clock=LoopClock())
    rows: list[int] = []
    stopped: Exception | None = None
    try:
        async for row, outcome in fanout.run(map(asking, range(len(plan.befalls)))):
            assert isinstance(outcome, Completion | Failure)
            rows.append(row)
    except (BudgetReached, ModelError) as exc:
        stopped = exc
    return rows, stopped, fanout.budget.room_usd


async def together(plan: Plan, model: Befallen, workers: int) -> Keeper:
    """The same work by several fan-outs under one keeper, as workers of a cluster carry it out."""
    clock = LoopClock()
    keeper = Keeper(limits_of(plan), clock=clock)

    async def work(worker: int) -> None:
        def ask(method: str, *words: Any) -> Awaitable[Any]:
            return asyncio.ensure_future(getattr(keeper, method)(*words))

        line = KeeperConnection(str(worker), ask)
        spending: Spending = SharedBudget(line, capped=True)
        ways: Mapping[str, RateLimiter] = {NAME: SharedRateLimiter(line, NAME, clock)}
        fanout = Fanout(
            {NAME: model}, InMemory(), limits_of(plan), PRICES, spending=spending, limiters=ways, clock=clock
        )
        rows = map(asking, range(worker, len(plan.befalls), workers))
        made = await asyncio.gather(*map(fanout.run_dialogue, rows), return_exceptions=True)
        for error in (one for one in made if isinstance(one, BaseException)):
            stop = stop_of(error)
            assert stop is not None, error
            await keeper.stop(stop)

    await asyncio.gather(*map(work, range(workers)))
    return keeper


def stopped_at_a_second_look(events: Sequence[Event]) -> bool:
    """Whether a first answer could be taken before the run was stopped."""
    before = events[: events.index("stopped")] if "stopped" in events else ()
    return not {"cut", "empty"}.isdisjoint(before)


@settings(deadline=None, max_examples=150)
@given(plan=plans)
@example(plan=FIRST_TRY_FAILS)
@example(plan=Plan(1, 8.0, [["cut", "stopped"]], 0.3))
@example(plan=Plan(4, 2.5, [["transient"]] * 40, 0.3))
def test_a_run_ends_within_its_cap(plan: Plan) -> None:
    model = Befallen(plan)
    rows, stopped, room_usd = run(alone(plan, model))
    assert rows == list(range(len(rows)))
    whole = len(rows) == len(plan.befalls)
    # a row that has a first answer, cut or empty, keeps it where the second look for a better one stops the run
    assert (stopped is None) == whole or (whole and any(map(stopped_at_a_second_look, plan.befalls)))
    assert model.paid_usd <= plan.cap * WORST_USD
    assert room_usd == pytest.approx(plan.cap * WORST_USD - model.paid_usd, abs=1e-12), (
        "nothing stays reserved"
    )
    if isinstance(stopped, BudgetReached):
        assert room_usd < WORST_USD


@settings(deadline=None, max_examples=150)
@given(plan=plans, workers=st.integers(1, 3))
@example(plan=FIRST_TRY_FAILS, workers=2)
def test_workers_that_share_budget_and_gate_end_within_their_cap(plan: Plan, workers: int) -> None:
    model = Befallen(plan)

    async def told() -> Any:
        keeper = await together(plan, model, workers)
        await asyncio.sleep(0.1)  # until what was told has been heard
        return await keeper.try_reserve(
            "last", plan.cap * WORST_USD - model.paid_usd - 1e-12
        ), await keeper.stopped()

    free, stop = run(told())
    assert model.paid_usd <= plan.cap * WORST_USD
    assert free or stop is not None or plan.cap == 0, "nothing stays reserved"
    if all(event not in ("stopped", "silent", "transient") for events in plan.befalls for event in events):
        assert stop is None or stop.why == "budget" or "is down" in stop.said


async def waits_for_ever() -> None:
    await asyncio.get_running_loop().create_future()


def test_the_clock_tells_a_deadlock() -> None:
    with pytest.raises(Deadlock), suppress(asyncio.CancelledError):
        run(waits_for_ever())
