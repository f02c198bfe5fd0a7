"""Steps that are asked one after another: their sums are those of the steps, and nothing is asked twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from preceptor.asking.step_bill import StepBill
from preceptor.judge.records import Pair
from preceptor.judge.settings import LabelSettings
from preceptor.settings import Asking
from tests.judge.canned import BOTH, prompt

JUDGE = "scripted/judge.jsonl"
PAIRS = [
    Pair(id=f"p{n}", prompt=prompt(), response_a=f"Good reply {n}.", response_b=f"Bad reply {n}.")
    for n in range(4)
]
WAY = LabelSettings(orders="original")


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("judge.jsonl").write_text(json.dumps({"match": "", "text": "Verdict: A"}) + "\n")


def bill_of(names: list[str]) -> StepBill:
    @contextmanager
    def bar(what: str) -> Iterator[Callable[[Any], None]]:
        names.append(what)
        yield lambda _: None

    return StepBill(Asking(ledger="ledger.db"), bar)


def test_the_sums_are_those_of_the_steps_and_what_was_asked_is_not_asked_again() -> None:
    names: list[str] = []
    bill = bill_of(names)
    one = bill.labels("one", PAIRS[:2], JUDGE, BOTH, WAY)
    two = bill.labels("two", PAIRS, JUDGE, BOTH, WAY)
    assert names == ["one", "two"]
    assert [label.id for label in (*one, *two)] == ["p0", "p1", "p0", "p1", "p2", "p3"]
    assert (bill.calls, bill.from_ledger) == (4, 2)
    assert {label.status for label in (*one, *two)} == {"ok"}
    assert bill.said() == "4 calls asked, 2 from the ledger, $0.00"
