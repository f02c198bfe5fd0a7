"""No order of two workers' steps, with a crash anywhere, pays for a call twice."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import sqlalchemy as sql

from preceptor.judge.ledger import ledger as ledgers
from tests.simulation.interleavings import Interleavings, in_memory, on_postgres


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_three_calls() -> None:
    counted = Interleavings(in_memory(), calls=3).count()
    assert counted.orders > 10_000_000
    assert (counted.double_payments, counted.stuck) == (0, 0)


def test_one_call_on_postgres(postgres_place: str) -> None:
    engine = on_postgres(postgres_place)
    try:
        counted = Interleavings(engine, calls=1).count()
    finally:
        engine.dispose()
    assert counted.orders == Interleavings(in_memory(), calls=1).count().orders
    assert (counted.double_payments, counted.stuck) == (0, 0)


def test_a_statement_that_shares_a_call_out_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    text = ledgers.INTEND.text
    changed = text.replace("AND calls.owner = excluded.owner", "")
    assert changed != text
    monkeypatch.setattr(ledgers, "INTEND", sql.text(changed))
    assert Interleavings(in_memory(), calls=1).count().double_payments > 0


def test_a_dead_owner_whose_calls_nobody_takes_over_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers.Ledger, "_lose_the_dead", lambda *_: 0)
    assert Interleavings(in_memory(), calls=1).count().stuck > 0
