"""The plan: every round, on what the ledger holds and then on stand-ins."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from preceptor.judge.asking.fanout import Fanout, Limits
from preceptor.judge.asking.plan import plan
from preceptor.judge.asking.prices import Prices
from preceptor.judge.ledger.ledger import Ledger, open_ledger
from preceptor.judge.models.protocol import Completion, Dialogue, Request
from preceptor.judge.models.scripted import ScriptedModel
from preceptor.judge.settings import Price
from preceptor.prompts.records import Message

NAME = "openai/m"
PRICES = Prices.load({NAME: Price(input=1.0, output=10.0)})


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    async with open_ledger(tmp_path / "ledger.db") as opened:
        yield opened


def request(text: str, max_tokens: int = 50) -> Request:
    return Request(model=NAME, messages=(Message(role="user", content=text),), max_tokens=max_tokens)


def two_rounds(number: int) -> Dialogue[str]:
    """A draft, and another on top of it."""
    (draft,) = yield [request(f"row {number}")]
    assert isinstance(draft, Completion)
    (last,) = yield [request(f"mend: {draft.text}")]
    assert isinstance(last, Completion)
    return last.text


async def test_later_rounds_are_counted_with_replies_as_long_as_they_may_be(ledger: Ledger) -> None:
    (line,) = (await plan(map(two_rounds, range(3)), ledger, PRICES)).lines
    assert (line.in_ledger, line.to_ask, line.may_ask, line.tokens_out) == (0, 3, 3, 300)
    first, second = 6, 4 + (len("mend: ") + 4 * 50) // 4
    assert 3 * (first + second) - 6 <= line.tokens_in <= 3 * (first + second) + 6
    assert line.cost_usd == pytest.approx((line.tokens_in + 10 * 300) / 1e6)
    assert line.batch_cost_usd == pytest.approx(line.cost_usd / 2)


async def test_what_the_ledger_answers_is_walked_on_with_its_own_words(ledger: Ledger) -> None:
    """So that the plan of a finished run is nothing to ask, and that of a run broken off is the rest, certain."""
    model = ScriptedModel(lambda asked: asked.messages[0].content.upper(), name=NAME)
    asker = Fanout({NAME: model}, ledger, Limits(), PRICES)
    _ = [row async for row in asker.run(map(two_rounds, range(4)))]
    await asker.ask(request("row 4"))
    (line,) = (await plan(map(two_rounds, range(6)), ledger, PRICES)).lines
    assert (line.in_ledger, line.to_ask, line.may_ask) == (9, 2, 1)


async def test_two_stand_ins_differ(ledger: Ledger) -> None:
    """Else a comparison of two replies that are yet to come would count as one of equal replies."""
    seen: list[str] = []

    def dialogue() -> Dialogue[None]:
        for outcome in (yield [request("a"), request("b")]):
            assert isinstance(outcome, Completion)
            seen.append(outcome.text)

    await plan([dialogue()], ledger, PRICES)
    assert len(set(seen)) == 2
    assert all(195 <= len(text) <= 200 for text in seen)


async def test_an_unknown_price_is_unknown_and_no_batch_price_is_made_up(ledger: Ledger) -> None:
    (line,) = (await plan(map(two_rounds, range(1)), ledger, Prices.load())).lines
    assert line.cost_usd is line.batch_cost_usd is None
    own = Prices.load({"elsewhere/x": Price(input=1, output=1)})
    assert own.batch_worst("elsewhere/x", 10, 10) is None


async def test_a_plan_prices_each_call_by_itself(ledger: Ledger) -> None:
    """Two short prompts are no long one: the dearer tier is for calls that are long."""
    prices = Prices.load(
        {
            NAME: Price.model_validate(
                {"input": 1, "output": 10, "cache_write": 2, "flex_input": 0.5, "flex_output": 5}
                | {"long": {"above": 100, "input": 3, "output": 30}}
            )
        }
    )

    def asked(text: str) -> Dialogue[None]:
        yield [request(text)]

    (line,) = (await plan([asked("a" * 360), asked("b" * 360), asked("c" * 480)], ledger, prices)).lines
    short, long = 94 * 2 + 50 * 10, 124 * 3 + 50 * 30
    assert line.cost_usd == pytest.approx((2 * short + long) / 1e6)
    assert line.batch_cost_usd == pytest.approx(line.cost_usd / 2)
    assert line.flex_cost_usd == pytest.approx(line.cost_usd / 2)
