"""The same asked once more: which look is the next."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.judge.label import label
from preceptor.judge.ledger.ledger import Ledger, open_ledger
from preceptor.judge.ledger.looks import next_look
from preceptor.judge.models.protocol import Dialogue
from preceptor.judge.records import Pair
from preceptor.judge.settings import LabelSettings
from preceptor.prompts.template import load
from tests.judge.canned import BOTH, Absent, drive, pair, says

ROWS = [
    pair("same", "same"),
    *(pair(f"reply {n}", "another").model_copy(update={"id": f"p{n}"}) for n in range(3)),
]
TEMPLATE = load("compare")


def asks(rows: list[Pair], look: int) -> Iterator[Dialogue[Any]]:
    return (label(row, BOTH, Absent(), TEMPLATE, LabelSettings(sample=look)) for row in rows)


async def carry_out(ledger: Ledger, rows: list[Pair], look: int, failing: bool) -> None:
    for dialogue in asks(rows, look):
        _, asked = drive(dialogue, lambda _: says("Verdict: A"))
        for request in asked:
            assert await ledger.intend(request)
            if failing:
                await ledger.fail(request, "context too long")
            else:
                await ledger.answer(request, says("Verdict: A"), 0.0)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 4), st.integers(0, 3), st.booleans())
async def test_a_look_is_new_after_one_that_ended_and_else_the_one_that_did_not(
    whole: int, begun: int, failing: bool
) -> None:
    """A row that asks nothing tells nothing, and an ask that failed has ended."""
    with tempfile.TemporaryDirectory() as folder:
        await one_look_after_another(Path(folder) / "ledger.db", whole, begun, failing)


async def one_look_after_another(place: Path, whole: int, begun: int, failing: bool) -> None:
    async with open_ledger(place) as ledger:
        for look in range(1, whole + 1):
            await carry_out(ledger, ROWS, look, failing)
        await carry_out(ledger, ROWS[: begun + 1], whole + 1, failing)
        assert await next_look(ledger, lambda look: asks(ROWS, look)) == whole + 1 + (begun == 3)


async def test_where_nothing_is_ever_asked_there_is_a_look_all_the_same(tmp_path: Path) -> None:
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        assert await next_look(ledger, lambda look: asks(ROWS[:1], look)) >= 1
