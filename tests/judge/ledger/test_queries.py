"""Reading the books: filters, the bill's breakdown, and pruning that keeps the bill, on both databases."""

from __future__ import annotations

import asyncio
import time

import pytest
from sqlalchemy.engine import Connection

from preceptor.judge.errors import LedgerError
from preceptor.judge.ledger.ledger import open_ledger
from preceptor.judge.ledger.location import reading
from preceptor.judge.ledger.queries import BY, Wanted, bill, calls, count, to_prune
from tests.judge.ledger.test_ledger import ANSWER, request


async def filled(place: str) -> None:
    """20 answered calls of two stages and principles, 3 failed, 2 lost, by two runs."""
    for run, stage in (("monday", "label"), ("tuesday", "revise")):
        async with open_ledger(place, run=run) as ledger:
            for number in range(10):
                one = request(f"{run} {number}", stage=stage, principle=f"p{number % 2}")
                assert await ledger.intend(one)
                await ledger.answer(one, ANSWER, 0.25)
    async with open_ledger(place, run="tuesday") as ledger:
        for number in range(3):
            one = request(f"failed {number}", stage="revise")
            assert await ledger.intend(one)
            await ledger.fail(one, "the server https://me:hidden@host/v1?key=hidden said no\0")
        assert await ledger.intend(request("lost 0"))
        assert await ledger.intend(request("lost 1"))


async def test_filters_and_the_bill_agree_with_what_was_asked(place: str) -> None:
    await filled(place)
    with reading(place) as connection:
        assert count(connection, Wanted()) == {"answered": 20, "failed": 3, "lost": 2}
        assert count(connection, Wanted(run="monday")) == {"answered": 10}
        assert count(connection, Wanted(stage="revise", principle="p1")) == {"answered": 5}
        assert count(connection, Wanted(statuses=("failed", "lost"))) == {"failed": 3, "lost": 2}
        assert count(connection, Wanted(model="openai/other")) == {}
        assert count(connection, Wanted(before=time.time() - 3600)) == {}
        one = request("monday 3", stage="label")
        (found,) = calls(connection, Wanted(key=one.key[:16]))
        assert (found.key, found.run, found.completion) == (one.key, "monday", ANSWER.model_dump(mode="json"))
        assert [row.key for row in calls(connection, Wanted())][:7] == [
            row.key for row in calls(connection, Wanted(), 7)
        ]
        for failed in calls(connection, Wanted(statuses=("failed",))):
            assert "said no" in (failed.problem or "")
            assert "hidden" not in failed.line()
        for by in ((), *((name,) for name in BY), BY):
            lines = bill(connection, by)
            assert (sum(line.calls for line in lines), sum(line.cost_usd for line in lines)) == (20, 5.0)
            assert sum(line.failed for line in lines) == 3
            assert sum(line.lost for line in lines) == 2
        (monday,) = bill(connection, ("run",), run="monday")
        assert monday == ({"run": "monday"}, 10, 0, 0, 70, 20, 0, 2.5, 0, 0)
        assert bill(connection, (), run="never") == []


async def test_pruning_leaves_the_bill_and_what_is_in_flight(place: str) -> None:
    await filled(place)
    with reading(place) as connection:
        before = bill(connection, BY)
        would = to_prune(connection, Wanted(stage="label"))
    assert (would.calls, would.answered, would.cost_usd) == (10, 10, 2.5)
    async with open_ledger(place) as ledger:
        asking = request("in flight", stage="label")
        assert await ledger.intend(asking)
        assert await ledger.prune(Wanted(stage="label")) == would
        assert (await ledger.prune(Wanted(stage="label"))).calls == 0
        assert await ledger.find([request("monday 1").key, request("tuesday 1").key]) == {
            request("tuesday 1").key: ANSWER
        }
        with reading(place) as connection:
            assert bill(connection, BY) == before
        assert await ledger.answer(asking, ANSWER, 0.25) == ANSWER
        assert await ledger.intend(request("monday 1"))


async def test_pruning_takes_its_turn_among_the_writes_of_its_ledger(place: str) -> None:
    """One connection writes, whatever is asked of it at once; afterwards it still writes in transactions."""
    await filled(place)
    async with open_ledger(place) as ledger:

        async def ask(number: int) -> None:
            one = request(f"new {number}", stage="revise")
            assert await ledger.intend(one)
            assert await ledger.answer(one, ANSWER, 0.25) == ANSWER

        pruned, *_ = await asyncio.gather(ledger.prune(Wanted(stage="label")), *map(ask, range(50)))
        assert pruned.calls == 10
        assert len(await ledger.find([request(f"new {number}").key for number in range(50)])) == 50

        def half_done(connection: Connection) -> None:
            connection.exec_driver_sql("DELETE FROM calls")
            raise LedgerError("stopped half-way")

        with pytest.raises(LedgerError, match="half-way"):
            await ledger.write(half_done)
        with reading(place) as connection:
            assert count(connection, Wanted(statuses=("answered",))) == {"answered": 60}


async def test_what_hinders_the_disk_s_room_is_said(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing waits for ever; what was thrown away is gone all the same."""

    def refused(_: object) -> None:
        raise OSError("No space left on device")

    await filled(place)
    async with open_ledger(place) as ledger:
        monkeypatch.setattr("preceptor.judge.ledger.ledger.compact", refused)
        with pytest.raises(LedgerError, match="make room on the disk"):
            await ledger.prune(Wanted(stage="label"))
        assert await ledger.find([request("monday 1").key]) == {}
