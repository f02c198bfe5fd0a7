"""A call is asked by one at a time: an intent is its owner's until it is answered, given back, run out, or its owner is
known to have ended."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from preceptor.judge.asking.fanout import Fanout, Limits
from preceptor.judge.asking.prices import Prices
from preceptor.judge.ledger import ledger as ledger_module
from preceptor.judge.ledger.ledger import LEASE_S, RENEW_S, open_ledger
from preceptor.judge.ledger.location import reading
from preceptor.judge.ledger.owner import is_gone, new_owner
from preceptor.judge.models.protocol import Completion, Dialogue, Outcome, Request
from preceptor.judge.models.scripted import ScriptedModel
from tests.judge.ledger.test_ledger import ANSWER, request
from tests.judge.virtual_time import TurnedClock

OTHER = Completion(text="no", finish_reason="stop", tokens_in=3, tokens_out=1)
NAME = "scripted/script"


async def test_an_intent_is_one_owners_until_it_ends(place: str) -> None:
    async with open_ledger(place) as one, open_ledger(place) as other:
        assert await one.intend(request())
        assert not await other.intend(request())
        await one.fail(request(), "said")
        assert await other.intend(request())
        assert not await one.intend(request())
        await other.answer(request(), ANSWER, 0.5)
        assert not await one.intend(request())
        assert await one.find([request().key]) == {request().key: ANSWER}


async def test_many_at_once_are_shared_out_and_none_twice(place: str) -> None:
    asked = [request(str(number)) for number in range(300)]
    async with open_ledger(place) as one, open_ledger(place) as other:
        got = await asyncio.gather(
            *(ledger.intend(each) for each in asked for ledger in (one, other)),
        )
    assert sum(got) == 300
    assert all(first != second for first, second in zip(got[::2], got[1::2], strict=True))


async def test_a_ledger_that_is_closed_gives_back_what_it_held(place: str) -> None:
    async with open_ledger(place) as other:
        async with open_ledger(place) as one:
            assert await one.intend(request())
        assert await other.intend(request())
        (bill,) = await other.bill(())
        assert (bill.calls, bill.lost) == (0, 1)


async def test_a_lease_that_runs_out_is_taken_over_and_both_answers_are_paid(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a machine slept: whoever answers first is kept, and both get that answer."""
    async with open_ledger(place) as one, open_ledger(place) as other:
        monkeypatch.setattr(ledger_module, "LEASE_S", -1.0)
        assert await one.intend(request())
        monkeypatch.undo()
        assert await other.intend(request())
        assert not await one.intend(request())
        assert await one.answer(request(), ANSWER, 0.5) == ANSWER
        assert await other.answer(request(), OTHER, 0.25) == ANSWER
        assert await other.find([request().key]) == {request().key: ANSWER}
        (bill,) = await other.bill(())
    assert bill == ({}, 2, 0, 1, 10, 3, 0, 0.75, 0, 0)


async def test_a_failure_takes_no_lease_from_another(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_ledger(place) as one, open_ledger(place) as other, open_ledger(place) as third:
        monkeypatch.setattr(ledger_module, "LEASE_S", -1.0)
        assert await one.intend(request())
        monkeypatch.undo()
        assert await other.intend(request())
        await one.fail(request(), "said")
        assert not await third.intend(request())


async def test_a_lease_is_its_owners_for_a_minute_from_its_last_renewal(tmp_path: Path) -> None:
    """By a clock that the test turns: of this machine's file alone, because a server has a clock of its own."""
    # a clock each: an owner whose clock stands still renews no more
    place, ours, theirs = str(tmp_path / "ledger.db"), TurnedClock(), TurnedClock()
    async with open_ledger(place, clock=ours) as one, open_ledger(place, clock=theirs) as other:
        assert await one.intend(request())
        first = leased_until(place)
        ours.now_s += RENEW_S + 1
        while leased_until(place) == first:  # it is renewed after what is written next
            await one.reconcile()
        theirs.now_s = ours.now_s + LEASE_S - 1
        assert not await other.intend(request())
        theirs.now_s += 2
        assert await other.intend(request())


async def test_leases_are_renewed_while_a_long_call_goes_on(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease that was over when it was given is nobody else's once it was renewed."""
    monkeypatch.setattr(ledger_module, "LEASE_S", -1.0)
    monkeypatch.setattr(ledger_module, "RENEW_S", 0.01)
    async with open_ledger(place) as one, open_ledger(place) as other, asyncio.timeout(600):
        assert await one.intend(request())
        monkeypatch.setattr(ledger_module, "LEASE_S", 60.0)
        while leased_until(place) < time.time():  # noqa: ASYNC110 - a database tells nobody
            await asyncio.sleep(0.005)
        assert not await other.intend(request())


def leased_until(place: str) -> float:
    with reading(place) as connection:
        return float(connection.exec_driver_sql("SELECT MAX(leased_until) FROM calls").scalar_one())


async def test_an_answer_to_a_call_that_was_pruned_meanwhile_is_kept(place: str) -> None:
    async with open_ledger(place) as ledger:
        assert await ledger.answer(request(), ANSWER, 0.5) == ANSWER
        assert await ledger.find([request().key]) == {request().key: ANSWER}


async def test_a_fanout_waits_for_the_answer_of_another(place: str) -> None:
    """Two fan-outs with ledgers of their own, as two processes have: each call is asked once and both have all."""
    asked: list[str] = []

    class Slow(ScriptedModel):
        async def complete(self, request: Request) -> Completion:
            asked.append(request.key)
            await asyncio.sleep(0.02)
            return await super().complete(request)

    def row(number: int) -> Dialogue[Outcome]:
        (outcome,) = yield [request(str(number), model=NAME)]
        return outcome

    async def whole() -> list[Outcome]:
        async with open_ledger(place) as ledger:
            model = Slow(lambda request: request.messages[0].content, name=NAME)
            run = Fanout({NAME: model}, ledger, Limits(concurrency=4), Prices.load())
            return [outcome async for outcome in run.run(map(row, range(40)))]

    first, second = await asyncio.gather(whole(), whole())
    assert first == second
    assert [one.text for one in first if isinstance(one, Completion)] == [str(number) for number in range(40)]
    assert len(asked) == len(set(asked)) == 40


def test_an_owner_is_gone_when_its_process_is() -> None:
    mine = new_owner()
    assert mine != new_owner()
    assert not is_gone(mine)
    host, pid, started, chance = mine.rsplit(":", 3)
    assert pid == str(os.getpid())
    ended = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    theirs = f"{host}:{ended.pid}::{chance}"
    ended.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    if Path("/proc/self/stat").exists():
        assert is_gone(theirs), "it has ended though nobody has asked how"
        assert is_gone(f"{host}:{pid}:{started}0:{chance}"), "another process had this number before"
    ended.wait()
    assert is_gone(theirs)
    assert not is_gone(f"elsewhere:{ended.pid}:{started}:{chance}"), "nothing is known of another host"
