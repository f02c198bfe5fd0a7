"""Steps that are asked one after another have one cap, and their sums are those of the steps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from preceptor.asking.step_bill import StepBill
from preceptor.constitution.files import load
from preceptor.judge.errors import BudgetReached
from preceptor.judge.records import Pair
from preceptor.judge.settings import LabelSettings, Price
from preceptor.settings import Asking
from tests.judge.canned import prompt

JUDGE = "scripted/judge.jsonl"
PAIRS = [
    Pair(id=f"p{n}", prompt=prompt(), response_a=f"Good reply {n}.", response_b=f"Bad reply {n}.")
    for n in range(4)
]
WAY = LabelSettings(orders="original")


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("judge.jsonl").write_text(json.dumps({"match": "", "text": "A"}) + "\n")


def bill_of(names: list[str], **more: Any) -> StepBill:
    @contextmanager
    def bar(what: str) -> Iterator[Callable[[Any], None]]:
        names.append(what)
        yield lambda _: None

    asking = Asking(ledger="ledger.db", prices={"": Price(input=1000, output=1000)}, **more)
    return StepBill(asking, bar)


def test_the_sums_are_those_of_the_steps_and_what_was_asked_is_not_asked_again() -> None:
    names: list[str] = []
    rules, bill = load("style"), bill_of(names)
    one = bill.labels("one", PAIRS[:2], JUDGE, rules, WAY)
    first_usd = bill.cost_usd
    two = bill.labels("two", PAIRS, JUDGE, rules, WAY)
    assert names == ["one", "two"]
    assert [label.id for label in (*one, *two)] == ["p0", "p1", "p0", "p1", "p2", "p3"]
    assert (bill.calls, bill.from_ledger) == (4, 2)
    assert bill.cost_usd == pytest.approx(2 * first_usd)
    assert bill.cost_usd > 0
    assert bill.said() == f"4 calls asked, 2 from the ledger, ${bill.cost_usd:.2f}"


def test_a_cap_is_one_for_all_steps_and_what_stops_a_step_is_raised() -> None:
    rules, spent = load("style"), bill_of([])
    spent.labels("one", PAIRS[:1], JUDGE, rules, WAY)
    cap = 4 * spent.cost_usd
    Path("ledger.db").unlink()
    bill = bill_of([], max_cost_usd=cap, concurrency=1)
    others = [[pair.model_copy(update={"response_a": f"Reply {n}."}) for pair in PAIRS] for n in range(40)]
    with pytest.raises(BudgetReached):
        _ = [bill.labels("step", pairs, JUDGE, rules, WAY) for pairs in others]
    assert 0 < bill.cost_usd <= cap
