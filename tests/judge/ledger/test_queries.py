"""Reading the books: filters, the bill's breakdown, and pruning that keeps the bill, on both databases."""

from __future__ import annotations

import time

from preceptor.judge.ledger.ledger import open_ledger
from preceptor.judge.ledger.location import open_engines, reading
from preceptor.judge.ledger.queries import BY, Wanted, bill, calls, count, prune, to_prune
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
        assert monday == ({"run": "monday"}, 10, 0, 0, 70, 20, 0, 2.5, 0)
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
        engines = open_engines(place)
        assert prune(engines.writer, Wanted(stage="label")) == would
        assert prune(engines.writer, Wanted(stage="label")).calls == 0
        engines.writer.dispose()
        engines.reader.dispose()
        assert await ledger.find([request("monday 1").key, request("tuesday 1").key]) == {
            request("tuesday 1").key: ANSWER
        }
        with reading(place) as connection:
            assert bill(connection, BY) == before
        assert await ledger.answer(asking, ANSWER, 0.25) == ANSWER
        assert await ledger.intend(request("monday 1"))
