"""Batches: half the price, every call answered once, whatever befalls a batch or its sender."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest
import sqlalchemy as sql

from preceptor.judge.asking import batch as batching
from preceptor.judge.asking.batch import Batches
from preceptor.judge.asking.fanout import Fanout, Limits
from preceptor.judge.asking.prices import Prices
from preceptor.judge.clock import SystemClock
from preceptor.judge.errors import BudgetReached, ProviderStopped
from preceptor.judge.ledger import batches as books
from preceptor.judge.ledger.ledger import Ledger, open_ledger
from preceptor.judge.models.batch_protocol import BatchLimits
from preceptor.judge.models.http import result_lines
from preceptor.judge.models.protocol import Completion, Dialogue, Failure, Outcome, Request
from preceptor.judge.models.registry import open_batches, open_model
from preceptor.judge.models.reply_limits import billed_tokens
from preceptor.judge.models.scripted import ScriptedModel
from preceptor.judge.settings import Price
from preceptor.prompts.records import Message
from tests.servers.batches import BatchServer, Plan
from tests.servers.llm import serve

OPENAI, ANTHROPIC = "openai/gpt-4o-mini", "anthropic/claude-haiku-4-5"
BOTH = pytest.mark.parametrize("name", [OPENAI, ANTHROPIC])
STEPS = [
    (OPENAI, "upload"),
    *((name, step) for name in (OPENAI, ANTHROPIC) for step in ("create", "results")),
]
"""Anthropic's API has no upload apart."""
PRICES = Prices.load({OPENAI: Price(input=100, output=200), ANTHROPIC: Price(input=100, output=200)})


class Quick(SystemClock):
    """Waits a five-hundredth of what it is told to."""

    async def sleep(self, seconds: float, /) -> None:
        await asyncio.sleep(seconds / 500)

    def timeout(self, seconds: float | None, /) -> contextlib.AbstractAsyncContextManager[object]:
        return asyncio.timeout(None if seconds is None else seconds / 500)


@contextlib.contextmanager
def server(**behaviour: Any) -> Iterator[BatchServer]:
    made = BatchServer(**behaviour)
    with serve(made):
        yield made


def limited(monkeypatch: pytest.MonkeyPatch, name: str, limits: BatchLimits) -> None:
    from preceptor.judge.models.anthropic.batch import AnthropicBatches
    from preceptor.judge.models.openai.batch import OpenAIBatches

    monkeypatch.setattr(OpenAIBatches if name == OPENAI else AnthropicBatches, "limits", limits)


@contextlib.asynccontextmanager
async def asker(
    here: BatchServer, name: str = OPENAI, then_sync: bool = False, **limits: float
) -> AsyncIterator[tuple[Batches, Ledger]]:
    provider = name.partition("/")[0]
    model = open_model(name, base_url=here.url if provider == "openai" else here.root)
    try:
        async with open_ledger("ledger.db") as ledger:
            direct = Fanout({name: model}, ledger, Limits.model_validate(limits), PRICES, clock=Quick())
            yield Batches(direct, {name: model}, ledger, PRICES, then_sync), ledger
    finally:
        await model.close()


def request(here: BatchServer, name: str, text: str) -> Request:
    endpoint = here.url if name == OPENAI else here.root
    messages = (Message(role="user", content=text),)
    return Request(model=name, endpoint=endpoint, messages=messages, max_tokens=50, stage="label")


def one(asked: Request) -> Dialogue[tuple[str, Outcome]]:
    (outcome,) = yield (asked,)
    return asked.messages[0].content, outcome


def two(first: Request, second: Callable[[str], Request]) -> Dialogue[tuple[str, str]]:
    """A second round that depends on the first one's answer."""
    (outcome,) = yield (first,)
    assert not isinstance(outcome, Failure)
    (last,) = yield (second(outcome.text),)
    assert not isinstance(last, Failure)
    return outcome.text, last.text


def make(here: BatchServer, name: str, count: int) -> Callable[[], Sequence[Dialogue[Any]]]:
    return lambda: [one(request(here, name, f"question {number}")) for number in range(count)]


async def gather(batches: Batches, dialogues: Callable[[], Sequence[Dialogue[Any]]], rows: list[Any]) -> None:
    """Into `rows`, so that those before an error are there."""
    async for row in batches.run(dialogues):
        rows.append(row)


async def rows_of(here: BatchServer, count: int, name: str = OPENAI, **options: Any) -> list[Any]:
    async with asker(here, name, **options) as (batches, _):
        return [row async for row in batches.run(make(here, name, count))]


@BOTH
async def test_rows_come_in_order_at_half_the_price(name: str) -> None:
    with server() as here:
        async with asker(here, name) as (batches, ledger):
            rows = [row async for row in batches.run(make(here, name, 7))]
            assert [text for text, _ in rows] == [f"question {number}" for number in range(7)]
            assert all(outcome.text.startswith("A hash decides") for _, outcome in rows)
            stats = here.stats()
            assert (stats["answered"], len(here.made)) == (7, 1)
            (line,) = await ledger.bill(("batch",))
            full = (stats["tokens_in"] * 100 + stats["tokens_out"] * 200) / 1e6
            assert line.cost_usd == pytest.approx(full / 2)
            assert batches.progress.cost_usd == pytest.approx(full / 2)
            (batch,) = await ledger.read(books.listed)
            assert line.of == {"batch": batch.token}
            assert (batch.state, batch.answered, batch.failed, batch.requests) == ("ended", 7, 0, 7)
            assert (batches.progress.asked, batches.progress.from_ledger) == (7, 0)
        async with asker(here, name) as (again, _):
            assert [row async for row in again.run(make(here, name, 7))] == rows
            assert (again.progress.asked, again.progress.from_ledger) == (0, 7)
        assert len(here.made) == 1


@BOTH
async def test_a_batch_and_the_direct_way_ask_the_same(name: str) -> None:
    with server() as here:
        await rows_of(here, 4, name)
        async with asker(here, name) as (batches, ledger):
            await ledger.write(lambda connection: connection.exec_driver_sql("DELETE FROM calls"))
            assert len([row async for row in batches._fanout.run(make(here, name, 4)())]) == 4
    in_batch, direct = (sorted(here.bodies[start : start + 4], key=str) for start in (0, 4))
    assert in_batch == direct


@BOTH
async def test_later_rounds_go_in_batches_of_their_own(name: str) -> None:
    with server() as here:

        def dialogues() -> list[Dialogue[Any]]:
            return [
                two(
                    request(here, name, f"first {number}"),
                    lambda text, number=number: request(here, name, f"{number}: {text}"),  # type: ignore[misc]
                )
                for number in range(3)
            ]

        async with asker(here, name) as (batches, _):
            rows = [row async for row in batches.run(dialogues)]
        assert len(rows) == 3
        assert [len(made.requests) for made in here.made.values()] == [3, 3]


@BOTH
@pytest.mark.parametrize("end", ["expired", "cancelled"])
async def test_what_a_batch_did_not_reach_goes_into_the_next(name: str, end: str) -> None:
    with server(plans=[Plan(end, undone=(1, 3)), Plan(faults={0: "500"})]) as here:
        rows = await rows_of(here, 5, name)
        assert not [row for row in rows if isinstance(row[1], Failure)]
        assert [len(made.requests) for made in here.made.values()] == [5, 2, 1]
        assert (here.stats()["answered"], here.stats()["answered_twice"]) == (5, 0)


@BOTH
async def test_or_it_is_asked_directly(name: str) -> None:
    with server(plans=[Plan("expired", undone=(1, 3), faults={0: "500"})]) as here:
        async with asker(here, name, then_sync=True) as (batches, ledger):
            rows = [row async for row in batches.run(make(here, name, 5))]
            bill = {line.of["batch"]: line.calls for line in await ledger.bill(("batch",))}
        assert not [row for row in rows if isinstance(row[1], Failure)]
        assert len(here.made) == 1
        assert bill.pop("") == 3
        assert list(bill.values()) == [2]
        assert (here.stats()["answered"], here.stats()["answered_twice"]) == (5, 0)


@BOTH
async def test_a_bad_request_is_its_rows_own_and_is_asked_once(name: str) -> None:
    with server(plans=[Plan(faults={2: "400"})]) as here:
        rows = await rows_of(here, 4, name)
        failures = [row[1] for row in rows if isinstance(row[1], Failure)]
        assert [failure.kind for failure in failures] == ["failed"]
        assert "planned 400" in failures[0].problem
        assert len(here.made) == 1


async def test_a_call_that_no_batch_answers_is_given_up() -> None:
    with server(plans=[Plan(faults={0: "500"})] * 5) as here:
        rows = await rows_of(here, 1)
        assert isinstance(rows[0][1], Failure)
        assert "no answer in 3 batches" in rows[0][1].problem
        assert len(here.made) == 3


@BOTH
async def test_a_line_that_is_lost_is_asked_again(name: str) -> None:
    with server(plans=[Plan(faults={1: "lost"})]) as here:
        rows = await rows_of(here, 3, name)
        assert not [row for row in rows if isinstance(row[1], Failure)]
        assert [len(made.requests) for made in here.made.values()] == [3, 1]


@BOTH
async def test_a_line_that_is_broken_is_asked_again(name: str) -> None:
    with server(plans=[Plan(faults={1: "broken"})]) as here:
        rows = await rows_of(here, 3, name)
        assert not [row for row in rows if isinstance(row[1], Failure)]
        assert [len(made.requests) for made in here.made.values()] == [3, 1]


@BOTH
async def test_a_line_that_is_too_long_is_paid_for_and_asked_once_more(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows what it cost: what it can have cost at most is on the bill."""
    monkeypatch.setattr(result_lines, "LARGEST_BODY", 10**5)
    with server(plans=[Plan(faults={1: "long"}), Plan(faults={0: "long"})]) as here:
        async with asker(here, name) as (batches, _):
            rows = [row async for row in batches.run(make(here, name, 3))]
            progress = batches.progress
        failures = [row[1] for row in rows if isinstance(row[1], Failure)]
        assert len(failures) == 1
        assert "a line of more than 32 MiB, which is not read" in failures[0].problem
        assert [len(made.requests) for made in here.made.values()] == [3, 1]
        assert progress.estimated == 2
        assert progress.tokens_out >= 2 * billed_tokens(request(here, name, "question 1"))


@BOTH
async def test_no_more_is_read_of_a_file_of_results_than_it_may_have(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preceptor.judge.models.http.transport.LARGEST_RESULTS", 10**5)
    said = "MiB, which is not read; they run on"
    with server(plans=[Plan(faults={0: "long"})]) as here, pytest.raises(ProviderStopped, match=said):
        await rows_of(here, 1, name)


@BOTH
async def test_a_parameter_that_is_refused_is_left_out_of_the_next(name: str) -> None:
    with server(plans=[Plan(faults={0: "refuses temperature", 1: "refuses temperature"})] * 3) as here:
        rows = await rows_of(here, 2, name)
        assert not [row for row in rows if isinstance(row[1], Failure)]
        assert len(here.made) == 2


async def test_a_batch_that_is_refused_whole_stops_the_run() -> None:
    said = "Quota: insufficient_quota, your credit balance is used up"
    with server(plans=[Plan("failed", message=said)]) as here:
        with pytest.raises(ProviderStopped, match="insufficient_quota"):
            await rows_of(here, 3)
        rows = await rows_of(here, 3)
        assert len(rows) == 3
        assert here.stats()["answered_twice"] == 0


async def test_a_batch_that_no_other_can_follow_stops_the_run() -> None:
    """Nothing says that its rows are at fault."""
    with server(most_requests=2) as here:
        with pytest.raises(ProviderStopped, match="took none of batch_0"):
            await rows_of(here, 3)
        assert len(here.made) == 1


async def test_an_account_with_little_room_gets_smaller_batches() -> None:
    with server(most_waiting=3) as here:
        rows = await rows_of(here, 10)
        assert not [row for row in rows if isinstance(row[1], Failure)]
        assert (here.stats()["answered"], here.stats()["answered_twice"]) == (10, 0)
        assert [len(made.requests) for made in here.made.values()][:3] == [10, 5, 5]


@BOTH
async def test_limits_are_kept_by_splitting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, name, BatchLimits(requests=3, bytes=10**6))
    with server(most_requests=3) as here:
        assert len(await rows_of(here, 8, name)) == 8
        assert [len(made.requests) for made in here.made.values()] == [3, 3, 2]


@BOTH
async def test_so_are_limits_of_size(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, name, BatchLimits(requests=100, bytes=700))
    with server(most_bytes=700) as here:
        assert len(await rows_of(here, 8, name)) == 8
        assert len(here.made) > 2
        assert here.stats()["answered_twice"] == 0


async def test_no_more_is_sent_than_the_cap_allows() -> None:
    """Twelve requests fit one after another as earlier ones cost less than their worst; then it is enough."""
    with server() as here:
        async with asker(here, max_cost_usd=0.02) as (batches, ledger):
            rows: list[Any] = []
            with pytest.raises(BudgetReached, match="higher --max-cost"):
                await gather(batches, make(here, OPENAI, 60), rows)
            (line,) = await ledger.bill(())
            spent = line.cost_usd
        stats = here.stats()
        assert 0 < len(rows) == stats["answered"] < 60
        assert spent == pytest.approx((stats["tokens_in"] * 100 + stats["tokens_out"] * 200) / 2e6)
        assert spent <= 0.02
        # one more might have passed it
        assert spent > 0.02 - 0.0055
        for made in here.made.values():
            assert len(made.requests) * (50 * 200 / 2e6) <= 0.02
        assert len(await rows_of(here, 60, max_cost_usd=1.0)) == 60
        assert here.stats()["answered_twice"] == 0


async def test_who_asks_directly_gets_the_budget_that_a_batch_of_another_run_gives_back() -> None:
    """That batch is nobody's wish any more, but it is paid for: its worst case is reserved until it has ended."""
    prices = Prices.load({OPENAI: Price(input=0, output=200), "paid/m": Price(input=0, output=200)})
    with server(plans=[Plan(looks=20)]) as here:
        async with asker(here, max_cost_usd=1.0) as (batches, _):
            first = asyncio.create_task(gather(batches, make(here, OPENAI, 1), []))
            while not here.made:  # noqa: ASYNC110 the server is another thread
                await asyncio.sleep(0.005)
            first.cancel()
            await asyncio.wait([first])
        model = open_model(OPENAI, base_url=here.url)
        models = {OPENAI: model, "paid/m": ScriptedModel(lambda _: "yes", name="paid/m")}
        asked = Request(model="paid/m", messages=request(here, OPENAI, "?").messages, max_tokens=50)
        async with open_ledger("ledger.db") as ledger:
            # 0.01 is a call's worst case, a half of it a batch's
            direct = Fanout(models, ledger, Limits(max_cost_usd=0.012), prices, clock=Quick())
            batches = Batches(direct, models, ledger, prices)
            async with asyncio.timeout(600):
                rows = [row async for row in batches.run(lambda: [one(asked)])]
        await model.close()
        assert [outcome.text for _, outcome in rows] == ["yes"]
        assert here.stats()["answered"] == 1
    assert direct.budget.room_usd < 0.012


@pytest.mark.parametrize(("name", "step"), STEPS)
async def test_a_reply_that_is_lost_on_the_line_sends_nothing_twice(name: str, step: str) -> None:
    with server(lose=[step], page=1) as here:
        assert len(await rows_of(here, 5, name)) == 5
        assert here.lose == []
        assert len(here.made) == 1
        assert (here.stats()["answered"], here.stats()["answered_twice"]) == (5, 0)


@BOTH
@pytest.mark.parametrize("befalls", ["lose", "deaf"])
async def test_a_batch_of_somebody_else_is_not_taken_for_ours(name: str, befalls: str) -> None:
    """The same account, the same number of requests, at the same time; ours has arrived without our hearing of it, or
    has not arrived."""
    with server() as here:
        model = open_model(name, base_url=here.url if name == OPENAI else here.root)
        provider = open_batches(model)
        assert provider is not None
        theirs = [provider.line(f"theirs-{n}", request(here, name, f"theirs {n}")) for n in range(4)]
        await provider.submit("theirs", "theirs", theirs)
        await model.close()
        setattr(here, befalls, ["create"])
        assert len(await rows_of(here, 4, name)) == 4
        assert (here.stats()["answered"], here.stats()["answered_twice"]) == (8, 0)
        assert len(here.made) == 2


@BOTH
async def test_a_batch_that_never_left_is_sent_by_the_next_run(name: str) -> None:
    """Its sender, on another machine, has not been heard of for an hour; until then it may still be sending."""
    with server() as here:
        asked = [request(here, name, f"question {number}") for number in range(3)]
        batch = intended(asked[0], time.time())
        async with asker(here, name) as (batches, ledger):
            await ledger.write(
                lambda connection: books.intend(connection, batch, asked, {one.key: 0.0 for one in asked})
            )
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(gather(batches, make(here, name, 3), []), 0.5)
            assert not here.made
            hour_ago = sql.text("UPDATE batches SET intended_at = intended_at - 3600")
            await ledger.write(lambda connection: connection.execute(hour_ago))
        assert len(await rows_of(here, 3, name)) == 3
        assert (len(here.made), here.stats()["answered"]) == (1, 3)
        async with asker(here, name) as (_, ledger):
            assert [one.state for one in await ledger.read(books.listed)] == ["ended", "unsent"]


def intended(first: Request, at_s: float) -> books.BatchRecord:
    return books.BatchRecord(
        token="0" * 12,
        model=first.model,
        endpoint=first.endpoint,
        run="first",
        owner="host:1:1:1",
        state="intended",
        remote=None,
        requests=0,
        worst_usd=0,
        intended_at=at_s,
    )


async def test_results_are_written_down_once_however_often_they_are_read(place: str) -> None:
    asked = [
        Request(model=OPENAI, messages=(Message(role="user", content=text),), max_tokens=5) for text in "ab"
    ]
    batch = intended(asked[0], time.time())
    completion = Completion(text="yes", finish_reason="stop", tokens_in=3, tokens_out=1)
    answers = [books.BatchAnswer(one.key, completion, 0.5) for one in asked]
    async with open_ledger(place, run="second") as ledger:
        worst = {one.key: 1.0 for one in asked}
        held = await ledger.write(
            lambda connection: books.intend(connection, batch, asked[:1], {asked[0].key: 1.0})
        )
        assert held == {asked[0].key}
        assert not await ledger.intend(asked[0]), "somebody else asks what is in a batch"
        other = batch.model_copy(update={"token": "1" * 12})
        held = await ledger.write(lambda connection: books.intend(connection, other, asked, worst))
        assert held == {asked[1].key}
        for _ in range(2):
            for token in ("0" * 12, "1" * 12):
                await ledger.write(
                    lambda connection, token=token: books.collect(connection, token, answers, {}, 0.0)
                )
                await ledger.write(lambda connection, token=token: books.end(connection, token, "", 0.0))
        (line,) = await ledger.bill(("run",))
        assert (line.of["run"], line.calls, line.cost_usd) == ("first", 2, 1.0)
        found = await ledger.read(books.listed)
        assert [(one.state, one.answered, one.requests) for one in found] == [("ended", 1, 1)] * 2


async def test_asking_directly_says_what_is_in_a_batch(caplog: pytest.LogCaptureFixture) -> None:
    with server(stall="create") as here:
        async with asker(here) as (batches, ledger):
            asking = asyncio.create_task(gather(batches, make(here, OPENAI, 3), []))
            assert await asyncio.to_thread(here.stalled.wait, 600)
            asking.cancel()
            await asyncio.wait([asking])
            with caplog.at_level(logging.WARNING):
                await batching.warn_of_batches(ledger, batches._models)
        assert "3 calls are being asked in batches" in caplog.text
