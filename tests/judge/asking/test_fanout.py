"""Fan-out: order, once-only, retries, the budget, and stopping cleanly."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing
from email.utils import formatdate
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from preceptor.constitution.errors import UserError
from preceptor.judge.asking.fanout import DRAWN, Fanout, Limits, Progress
from preceptor.judge.asking.plan import plan
from preceptor.judge.asking.prices import Prices
from preceptor.judge.asking.rate_limits import LocalRateLimiter, SentMark
from preceptor.judge.asking.retry import CONSECUTIVE_FAILURES, FIRST_WAIT_S
from preceptor.judge.clock import SYSTEM
from preceptor.judge.errors import BudgetReached, ProviderStopped, Rejected, Transient
from preceptor.judge.ledger.ledger import Ledger, open_ledger
from preceptor.judge.models.anthropic import model as anthropic
from preceptor.judge.models.http.faults import Throttled
from preceptor.judge.models.openai import model as openai
from preceptor.judge.models.protocol import Completion, Dialogue, Failure, Model, Outcome, Request
from preceptor.judge.models.scripted import ScriptedModel, ScriptedReply
from preceptor.judge.settings import Price
from preceptor.prompts.records import Message
from tests.judge.memory_ledger import InMemory
from tests.judge.virtual_time import LoopClock, run
from tests.servers.llm import LLMServer

ROOT = Path(__file__).parents[3]
NAME = "scripted/script"


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    async with open_ledger(tmp_path / "ledger.db") as opened:
        yield opened


def request(text: str, **fields: object) -> Request:
    messages = (Message(role="user", content=text),)
    return Request.model_validate({"model": NAME, "messages": messages, "max_tokens": 8, **fields})


def one(number: int, **fields: object) -> Dialogue[tuple[int, Outcome]]:
    """A row that asks once."""
    (outcome,) = yield [request(f"row {number}", **fields)]
    return number, outcome


def two_rounds(number: int) -> Dialogue[str]:
    """A row that asks two at once and then one that depends on both."""
    left, right = yield [request(f"row {number}"), request(f"row {number}", sample=1)]
    assert isinstance(left, Completion)
    assert isinstance(right, Completion)
    (last,) = yield [request(f"{left.text}+{right.text}")]
    assert isinstance(last, Completion)
    return last.text


def fanout(ledger: Ledger, model: Model, prices: Prices | None = None, **limits: float) -> Fanout:
    return Fanout({model.name: model}, ledger, Limits.model_validate(limits), prices or Prices.load())


def on_a_clock_that_jumps(model: Model, text: str, **limits: float) -> tuple[Outcome, float]:
    """(what one request brought, how many seconds it would have taken)."""

    async def asked() -> tuple[Outcome, float]:
        clock = LoopClock()
        chosen = Limits.model_validate(limits)
        asker = Fanout({model.name: model}, InMemory(), chosen, Prices.load(), clock=clock)
        return await asker.ask(request(text)), clock.monotonic()

    return run(asked())


def script(answer: Callable[[str], ScriptedReply], name: str = NAME) -> ScriptedModel:
    return ScriptedModel(lambda asked: answer(asked.messages[0].content), name=name)


async def test_rows_come_in_the_order_of_their_dialogues(ledger: Ledger) -> None:
    """Although later ones are done earlier, and never more are asked at once than allowed."""
    running = peak = 0

    class Slow(ScriptedModel):
        async def complete(self, asked: Request) -> Completion:
            nonlocal running, peak
            running += 1
            peak = max(peak, running)
            await asyncio.sleep(0.02 if asked.messages[0].content.endswith("0") else 0)
            running -= 1
            return await super().complete(asked)

    asker = fanout(ledger, Slow(lambda asked: asked.messages[0].content.upper()), concurrency=4)
    rows = [row async for row in asker.run(two_rounds(number) for number in range(40))]
    assert rows == [f"ROW {number}+ROW {number}" for number in range(40)]
    assert peak == 4


async def test_a_second_run_asks_nothing(ledger: Ledger) -> None:
    model = script(str.upper)
    runs = []
    for _ in range(2):
        asker = fanout(ledger, model)
        runs.append([row async for row in asker.run(map(two_rounds, range(20)))])
    assert runs[0] == runs[1]
    assert len(model.requests) == 60
    assert asker.progress == Progress(20, None, 0, 60, 0, 0.0, 0, 0)


async def test_the_same_request_in_flight_is_asked_once(ledger: Ledger) -> None:
    model = script(str.upper)
    asker = fanout(ledger, model)
    outcomes = await asyncio.gather(*(asker.ask(request("same", stage=stage)) for stage in "abcd"))
    assert len(model.requests) == 1
    assert {outcome.text for outcome in outcomes if isinstance(outcome, Completion)} == {"SAME"}


async def test_dialogues_are_drawn_only_as_room_is_free(ledger: Ledger) -> None:
    drawn = 0

    def dialogues() -> Iterator[Dialogue[tuple[int, Outcome]]]:
        nonlocal drawn
        for number in range(1000):
            drawn += 1
            yield one(number)

    async with aclosing(fanout(ledger, script(str.upper), concurrency=2).run(dialogues())) as rows:
        async for _ in rows:
            break
    assert drawn < 5 * DRAWN


async def test_one_bad_row_touches_no_other(ledger: Ledger) -> None:
    model = script(
        lambda text: Rejected("too long", refused=text == "row 7") if text in ("row 3", "row 7") else "ok"
    )
    rows = [outcome async for _, outcome in fanout(ledger, model).run(map(one, range(10)))]
    bad = {number: outcome for number, outcome in enumerate(rows) if isinstance(outcome, Failure)}
    assert bad == {
        3: Failure(kind="failed", problem="too long"),
        7: Failure(kind="refused", problem="too long"),
    }
    assert len(model.requests) == 10
    again = script(lambda _: "ok now")
    rows = [outcome async for _, outcome in fanout(ledger, again).run(map(one, range(10)))]
    assert [asked.messages[0].content for asked in again.requests] == ["row 3", "row 7"], (
        "failures are asked again"
    )


def test_what_can_be_mended_is_tried_again_after_the_wait_that_was_asked_for() -> None:
    lines: list[ScriptedReply] = [
        Transient("busy", retry_after_s=20.0),
        Transient("busy", retry_after_s=20.0),
        "ok",
    ]
    outcome, took_s = on_a_clock_that_jumps(script(lambda _: lines.pop(0)), "x")
    assert isinstance(outcome, Completion)
    assert 40.0 <= took_s <= 40.0 + 2 * FIRST_WAIT_S


@pytest.mark.parametrize("limits", [{"attempts": 2}, {"deadline_s": 30}])
def test_tries_end_in_a_failure_of_this_row(limits: dict[str, float]) -> None:
    model = script(lambda _: Transient("busy", retry_after_s=10.0))
    outcome, took_s = on_a_clock_that_jumps(model, "x", **limits)
    assert isinstance(outcome, Failure)
    assert "busy" in outcome.problem
    assert "2 tries" in outcome.problem or "deadline_s" in limits
    assert 10.0 <= took_s <= 30.0, "the last wait, which would end after the deadline, is not waited"


def test_a_model_that_hangs_ends_at_the_deadline() -> None:
    class Hung(ScriptedModel):
        async def complete(self, asked: Request) -> Completion:
            await asyncio.sleep(3600)
            return await super().complete(asked)

    outcome, took_s = on_a_clock_that_jumps(Hung([], name=NAME), "x", deadline_s=90)
    assert isinstance(outcome, Failure)
    assert "no answer within 90 s" in outcome.problem
    assert took_s == pytest.approx(90)


async def _until_stopped(rows: AsyncIterator[tuple[int, Outcome]]) -> tuple[list[int], BaseException]:
    """The numbers of the rows that came, and what stopped them."""
    got: list[int] = []
    try:
        async for number, _ in rows:
            got.append(number)
    except (ProviderStopped, BudgetReached) as exc:
        return got, exc
    raise AssertionError("the run came to its end")


async def test_a_provider_that_stops_stops_the_run_and_keeps_what_is_done(ledger: Ledger) -> None:
    model = script(lambda text: ProviderStopped("bad key") if text == "row 50" else "ok")
    asker = fanout(ledger, model, concurrency=4)
    got, error = await _until_stopped(asker.run(map(one, range(1000))))
    assert got == list(range(50))
    assert "bad key" in str(error)
    assert len(model.requests) < 70, "rows were burnt through"
    asked = len(model.requests)
    rest = script(lambda _: "ok")
    rows = [number async for number, _ in fanout(ledger, rest).run(map(one, range(asked)))]
    assert rows == list(range(asked))
    assert [one.messages[0].content for one in rest.requests] == ["row 50"], (
        "only what was not answered is asked"
    )


async def test_a_provider_that_is_down_for_good_stops_the_run(ledger: Ledger) -> None:
    model = script(lambda _: Transient("overloaded"))
    got, error = await _until_stopped(
        fanout(ledger, model, attempts=1, concurrency=1).run(map(one, range(1000)))
    )
    assert "is down" in str(error)
    assert len(got) < CONSECUTIVE_FAILURES
    assert len(model.requests) == CONSECUTIVE_FAILURES


async def test_a_stages_own_error_ends_the_run_as_it_is(ledger: Ledger) -> None:
    def broken(number: int) -> Dialogue[int]:
        yield [request(f"row {number}")]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        _ = [row async for row in fanout(ledger, script(str.upper)).run(map(broken, range(5)))]


async def test_the_cap_holds_and_what_is_paid_is_recorded(ledger: Ledger) -> None:
    """A call really costs 1 USD (1 token out), its worst case 8: no more than the cap is ever spent."""
    prices = Prices.load({"paid/m": Price(input=0, output=1_000_000)})
    model = script(lambda _: "ok", name="paid/m")

    def paid(number: int) -> Dialogue[tuple[int, Outcome]]:
        return one(number, model="paid/m")

    asker = fanout(ledger, model, prices, max_cost_usd=20.5, concurrency=8)
    got, error = await _until_stopped(asker.run(map(paid, range(100))))
    assert "13.0000 of 20.5 USD is spent and the next call may cost 8" in str(error)
    asked = {request.messages[-1].content for request in model.requests}
    assert len(asked) == len(model.requests) == 13
    assert got == list(takewhile(lambda number: f"row {number}" in asked, range(100)))
    assert asker.progress.cost_usd == 13
    (line,) = await ledger.bill()
    assert (line.calls, line.cost_usd) == (13, 13)
    richer = fanout(ledger, model, prices, max_cost_usd=20.5)
    # whose turn it is at the cap is not the rows' order
    answered = sorted(int(content.removeprefix("row ")) for content in asked)
    fresh = [number for number in range(100) if number not in answered][:7]
    rows = [number async for number, _ in richer.run(map(paid, answered + fresh))]
    assert rows == answered + fresh
    assert richer.progress.from_ledger == 13


async def test_a_cap_without_a_price_is_an_error_that_says_so(ledger: Ledger) -> None:
    model = script(str.upper, name="openai/unheard-of")
    with pytest.raises(UserError, match="price of openai/unheard-of is not known"):
        await fanout(ledger, model, max_cost_usd=1.0).ask(request("x", model="openai/unheard-of"))
    assert model.requests == []


async def test_what_was_in_flight_at_a_cancellation_is_written_down(ledger: Ledger) -> None:
    started = asyncio.Event()

    class Slow(ScriptedModel):
        async def complete(self, asked: Request) -> Completion:
            started.set()
            await asyncio.sleep(0.2)
            return await super().complete(asked)

    async def consume() -> None:
        async with aclosing(
            fanout(ledger, Slow(lambda _: "ok"), concurrency=3).run(map(one, range(50)))
        ) as rows:
            async for _ in rows:
                pass

    task = asyncio.create_task(consume())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(await ledger.find([request(f"row {number}").key for number in range(50)])) == 3


async def test_the_plan_counts_what_is_known_and_what_is_to_ask(ledger: Ledger) -> None:
    _ = [row async for row in fanout(ledger, script(str.upper)).run(map(one, range(3)))]
    made = await plan((one(number % 5) for number in range(10)), ledger, Prices.load())
    (line,) = made.lines
    assert (made.rows, line.in_ledger, line.to_ask, line.tokens_out, line.cost_usd) == (10, 3, 2, 16, 0)


# --- over real HTTP
# --------------------------------------------------------------------------------------------------


async def _over_http(place: Path, url: str, rows: int, **limits: float) -> list[Outcome]:
    model = openai.open_model("openai/m", base_url=url)
    try:
        async with open_ledger(place) as ledger:
            asker = fanout(ledger, model, **limits)
            made = (one(number, model="openai/m") for number in range(rows))
            return [outcome async for _, outcome in asker.run(made)]
    finally:
        await model.close()


async def test_faults_over_http_are_mended_and_nothing_is_answered_twice(
    tmp_path: Path, start_server: Callable[..., LLMServer]
) -> None:
    faults = ["429", "500", "ok", "drop", "badjson", "529", "html", "503"]
    server = start_server(faults=faults, retry_after=lambda: formatdate(usegmt=True))
    for _ in range(2):
        outcomes = await _over_http(tmp_path / "l.db", server.url, 12)
        assert all(isinstance(outcome, Completion) for outcome in outcomes)
    stats = server.stats()
    assert (stats["answered"], stats["answered_twice"], stats["requests"]) == (12, 0, 12 + len(faults) - 1)


async def test_an_empty_or_early_end_gets_a_second_try_and_both_are_billed(
    tmp_path: Path, start_server: Callable[..., LLMServer]
) -> None:
    server = start_server(faults=["empty", "ok", "truncate", "ok", "empty", "empty"])
    for rows in range(1, 5):  # one after another, so that each row meets its own faults
        outcomes = await _over_http(tmp_path / "l.db", server.url, rows)
    texts = [outcome.text for outcome in outcomes if isinstance(outcome, Completion)]
    assert ["Verdict" in text for text in texts] == [True, True, False, True], "a second try, and no third"
    stats = server.stats()
    assert stats["requests"] == 4 + 3
    async with open_ledger(tmp_path / "l.db") as ledger:
        (line,) = await ledger.bill()
    assert (line.tokens_in, line.tokens_out) == (stats["tokens_in"], stats["tokens_out"])


async def test_a_reply_as_long_as_it_may_be_is_not_asked_for_again(ledger: Ledger) -> None:
    class Cut(ScriptedModel):
        async def complete(self, asked: Request) -> Completion:
            made = await super().complete(asked)
            return made.model_copy(update={"finish_reason": "length", "tokens_out": asked.max_tokens})

    model = Cut(lambda _: "and so on and")
    await fanout(ledger, model).ask(request("x"))
    assert len(model.requests) == 1


async def test_a_second_try_never_passes_the_cap(ledger: Ledger) -> None:
    """The worst case of a call is 8 USD and an empty answer costs 0: under a cap of 15 there is no room for two."""
    prices = Prices.load({"paid/m": Price(input=0, output=1_000_000)})
    for cap, tries in ((15.0, 1), (16.0, 2)):
        model = script(lambda _: "", name="paid/m")
        asked = request(f"cap {cap}", model="paid/m")
        outcome = await fanout(ledger, model, prices, max_cost_usd=cap).ask(asked)
        assert isinstance(outcome, Completion)
        assert len(model.requests) == tries


async def test_a_call_that_was_broken_off_may_have_cost_its_worst(ledger: Ledger) -> None:
    """Nobody knows what it cost: its 8 USD are not free again."""

    class Hung(ScriptedModel):
        async def complete(self, asked: Request) -> Completion:
            self.requests.append(asked)
            return await asyncio.Future()

    prices = Prices.load({"paid/m": Price(input=0, output=1_000_000)})
    model = Hung([], name="paid/m")
    asker = fanout(ledger, model, prices, max_cost_usd=16.0)
    asking = asyncio.create_task(asker.ask(request("x", model="paid/m")))
    while not model.requests:  # noqa: ASYNC110 a scripted model tells nobody
        await asyncio.sleep(0)
    for call in asker._asking.values():
        call.cancel()
    await asyncio.wait([asking])
    assert asker.budget.room_usd == pytest.approx(8.0)


async def test_a_second_try_is_booked_once(ledger: Ledger) -> None:
    """Two answers of 2 USD each leave 12 of 16."""
    prices = Prices.load({"paid/m": Price(input=0, output=1_000_000)})
    empty = Completion(text=" ", finish_reason="stop", tokens_out=2)
    asker = fanout(ledger, script(lambda _: empty, name="paid/m"), prices, max_cost_usd=16.0)
    await asker.ask(request("twice", model="paid/m"))
    assert asker.progress.cost_usd == pytest.approx(4.0)
    assert asker.budget.room_usd == pytest.approx(12.0)


def test_a_second_try_takes_its_share_of_the_minute() -> None:
    """Of two requests a minute the second leaves half a minute after the first."""
    lines: list[ScriptedReply] = ["", "ok"]
    outcome, took_s = on_a_clock_that_jumps(script(lambda _: lines.pop(0)), "x", rpm=2)
    assert isinstance(outcome, Completion)
    assert outcome.text == "ok"
    assert took_s == pytest.approx(30.0)


async def test_the_first_answer_is_kept_where_the_run_stops_before_the_second_leaves(ledger: Ledger) -> None:
    model = script(lambda _: "")
    asker = fanout(ledger, model, rpm=1)
    asking = asyncio.create_task(asker.ask(request("once")))
    while not model.requests:  # noqa: ASYNC110 a scripted model tells nobody
        await asyncio.sleep(0)
    asker.stop(BudgetReached("the money is gone"))
    assert isinstance(await asking, Completion)
    assert await ledger.find([request("once").key])


async def test_a_call_that_waits_for_its_next_try_when_the_run_stops_is_not_lost(ledger: Ledger) -> None:
    model = script(lambda _: Transient("busy"))
    asker = fanout(ledger, model)
    asking = asyncio.create_task(asker.ask(request("once")))
    while not model.requests:  # noqa: ASYNC110 a scripted model tells nobody
        await asyncio.sleep(0)
    asker.stop(BudgetReached("the money is gone"))
    with pytest.raises(BudgetReached):
        await asking
    assert await ledger.intend(request("once"))  # nobody holds it
    (line,) = await ledger.bill(())
    assert (line.calls, line.lost) == (0, 0)


async def test_the_first_answer_is_kept_and_billed_where_the_second_try_stops_the_run(ledger: Ledger) -> None:
    lines: list[ScriptedReply] = ["", ProviderStopped("the key is gone")]
    asker = fanout(ledger, script(lambda _: lines.pop(0)))
    kept = await asker.ask(request("once"))
    assert isinstance(kept, Completion)
    assert await ledger.find([request("once").key])
    with pytest.raises(ProviderStopped, match="the key is gone"):
        await asker.ask(request("another"))


def test_the_wait_that_a_rate_limit_asks_for_is_not_counted() -> None:
    """So that a limit of so many a minute fails no row that only has to wait."""
    lines: list[ScriptedReply] = [Throttled("slow down", retry_after_s=60.0)] * 4 + ["ok"]
    outcome, took_s = on_a_clock_that_jumps(script(lambda _: lines.pop(0)), "x", deadline_s=90)
    assert isinstance(outcome, Completion)
    assert took_s >= 240


async def test_a_wait_of_hours_stops_the_run(ledger: Ledger) -> None:
    model = script(lambda _: Throttled("daily limit", retry_after_s=7200))
    with pytest.raises(ProviderStopped, match="left alone for 7200 s"):
        await fanout(ledger, model).ask(request("x"))


async def test_waiting_between_tries_takes_up_no_room(ledger: Ledger) -> None:
    """One place, and a row that has to wait in it: the others are asked meanwhile."""
    order: list[str] = []

    def answer(text: str) -> ScriptedReply:
        order.append(text)
        return Transient("busy", retry_after_s=0.3) if order.count("row 0") == 1 and text == "row 0" else "ok"

    asker = fanout(ledger, script(answer), concurrency=1)
    _ = [row async for row in asker.run(map(one, range(4)))]
    assert order == ["row 0", "row 1", "row 2", "row 3", "row 0"]


async def test_a_slow_row_does_not_keep_the_others_from_being_asked(ledger: Ledger) -> None:
    all_others = asyncio.Event()

    class Held(ScriptedModel):
        async def complete(self, asked: Request) -> Completion:
            if asked.messages[0].content == "row 0":
                await asyncio.wait_for(all_others.wait(), 600)
            elif len(self.requests) == 98:
                all_others.set()
            return await super().complete(asked)

    held = Held(lambda asked: asked.messages[0].content)
    rows = [number async for number, _ in fanout(ledger, held, concurrency=4).run(map(one, range(100)))]
    assert rows == list(range(100))


async def test_the_headers_of_a_server_set_the_pace(
    tmp_path: Path, start_server: Callable[..., LLMServer]
) -> None:
    """Of 1200 a minute three are left: what comes after them is spread out, and none is turned away."""
    left = iter(range(3, -100, -1))
    server = start_server(
        headers=lambda: {
            "X-RateLimit-Limit-Requests": "1200",
            "X-RateLimit-Remaining-Requests": str(max(0, next(left))),
            "X-RateLimit-Reset-Requests": "59.85s",
        }
    )
    loop = asyncio.get_running_loop()
    started = loop.time()
    outcomes = await _over_http(tmp_path / "l.db", server.url, 12, concurrency=1)
    assert all(isinstance(outcome, Completion) for outcome in outcomes)
    assert loop.time() - started >= 0.05 * 6, "one in 50 ms, once the three are used up"


@pytest.mark.parametrize("provider", [openai, anthropic])
async def test_runs_that_share_a_model_hear_the_headers_of_their_own_replies_alone(
    provider: Any, tmp_path: Path, start_server: Callable[..., LLMServer]
) -> None:
    """Errors too, and each with the mark under which its request left."""
    left = iter(range(1000, 0, -1))
    headers = {"X-RateLimit-Limit-Requests": "60000", "X-RateLimit-Reset-Requests": "1s"}
    server = start_server(
        headers=lambda: headers | {"X-RateLimit-Remaining-Requests": str(next(left))},
        faults=["ok", "500", "ok"],
        latency_s=0.01,
    )
    name = "openai/gpt-4o-mini" if provider is openai else "anthropic/claude-haiku-4-5"
    model = provider.open_model(name, base_url=server.url if provider is openai else server.root)

    class Listening(LocalRateLimiter):
        heard: list[tuple[str, int]]

        def observe(self, headers: Mapping[str, str], mark: SentMark) -> None:
            self.heard.append((headers["x-ratelimit-remaining-requests"], mark.requests))
            super().observe(headers, mark)

    def limiter() -> Listening:
        made = Listening(2, asyncio.sleep, SYSTEM)
        made.heard = []
        return made

    limiters = [limiter(), limiter()]
    async with open_ledger(tmp_path / "l.db") as ledger:
        runs = [
            Fanout({name: model}, ledger, Limits(), Prices.load(), limiters={name: one}) for one in limiters
        ]
        asked = [[request(f"run {run} row {row}", model=name) for row in range(5)] for run in range(2)]
        await asyncio.gather(*(run.ask(one) for run, mine in zip(runs, asked, strict=True) for one in mine))
    await model.close()
    assert len(server.bodies) == 11
    assert sorted(len(one.heard) for one in limiters) == [5, 6]
    assert len({said for one in limiters for said, _ in one.heard}) == 11
    for one in limiters:
        assert sorted(mark for _, mark in one.heard) == list(range(1, len(one.heard) + 1))


async def test_a_bad_key_and_a_closed_port_stop_the_run_at_once(
    tmp_path: Path, start_server: Callable[..., LLMServer], unused_tcp_port: int
) -> None:
    server = start_server(faults=["401"] * 500)
    with pytest.raises(ProviderStopped, match="OPENAI_API_KEY"):
        await _over_http(tmp_path / "l.db", server.url, 500, concurrency=4)
    assert len(server.bodies) <= 8
    with pytest.raises(ProviderStopped, match="nothing answers at"):
        await _over_http(tmp_path / "l.db", f"http://127.0.0.1:{unused_tcp_port}/v1", 500, concurrency=4)


async def test_a_kill_between_intent_and_answer_asks_once_again(
    tmp_path: Path, start_server: Callable[..., LLMServer]
) -> None:
    """SIGKILL while the server is answering: afterwards every row is there, and at most what was in flight at
    the kill is answered a second time."""
    server = start_server(latency_s=0.05, reach=20)
    program = f"""
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from tests.judge.asking.test_fanout import _over_http
asyncio.run(_over_http(Path("l.db"), {server.url!r}, 100, concurrency=4))
"""
    running = await asyncio.create_subprocess_exec(sys.executable, "-c", program, cwd=tmp_path)
    await asyncio.to_thread(server.reached.wait, 60)
    running.send_signal(signal.SIGKILL)
    await running.wait()
    assert running.returncode == -signal.SIGKILL
    outcomes = await _over_http(tmp_path / "l.db", server.url, 100, concurrency=4)
    assert len(outcomes) == 100
    assert all(isinstance(outcome, Completion) for outcome in outcomes)
    assert server.stats()["answered_twice"] <= 4
    assert len(server.bodies) <= 104
