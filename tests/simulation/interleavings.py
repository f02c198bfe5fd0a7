"""Every order in which two workers can go through the ledger, with one crash anywhere: `python -m
tests.simulation.interleavings`.

The statements are the ledger's own, on SQLite and on a PostgreSQL that is started for it. What is walked is the graph
of all states, from which the number of orders follows without walking each of them. A worker that waits takes its turn
when the ledger has changed.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple
from unittest.mock import patch

import sqlalchemy as sql
from sqlalchemy.engine import Connection, Engine

from preceptor.judge.clock import SystemClock
from preceptor.judge.ledger import ledger as ledgers
from preceptor.judge.ledger.ledger import Ledger, _Answer, _Intent, asked_row, spent
from preceptor.judge.ledger.location import Engines, LedgerLocation
from preceptor.judge.ledger.schema import migrate
from preceptor.judge.models.protocol import Completion, Request
from preceptor.prompts.records import Message
from tests.judge import postgres

WORKERS = 2
ANSWER = Completion(text="yes", finish_reason="stop", tokens_in=1, tokens_out=1)
Rows = tuple[tuple[Any, ...], ...]


class _Still(SystemClock):
    """No lease runs out here."""

    def time(self) -> float:
        return 1_800_000_000.0


class _Worker(NamedTuple):
    name: str
    """Its owner in the ledger; the one that takes a dead one's place has another."""
    at: int = 0
    """Which call."""
    step: str = "open"
    seen: tuple[Rows, Rows] | None = None
    """What the ledger held when it began to wait."""


class _State(NamedTuple):
    ledger: tuple[Rows, Rows]
    workers: tuple[_Worker, ...]
    paid: tuple[int, ...]
    """By call, how often the provider answered it."""
    dead: str = ""
    """Who crashed."""


class Counted(NamedTuple):
    """All orders from the first state on."""

    orders: int
    double_payments: int
    """Orders at whose end a call was paid for more often than once and once for each time that the ledger lost it."""
    stuck: int
    """Orders that end with a worker that waits for ever."""
    states: int = 0


class Interleavings:
    """The graph over one database, whose tables it empties and fills."""

    def __init__(self, engine: Engine, calls: int) -> None:
        self._engine = engine
        self._calls = calls
        self._asked = [
            Request(model="m", messages=(Message(role="user", content=str(number)),), max_tokens=9)
            for number in range(calls)
        ]
        self._is_dead = ""
        self._transacted = cache(self._transact)
        place = LedgerLocation(engine.url, "", None if engine.dialect.name == "postgresql" else Any)  # type: ignore[arg-type]
        with patch.object(ledgers, "LedgerThread", lambda *_: None):
            self._ledger = Ledger(Engines(engine, engine, place), "run", _Still())
        with engine.begin() as connection:
            migrate(connection, "the graph")

    def count(self) -> Counted:
        """Walk it."""
        empty: tuple[Rows, Rows] = ((), ())
        first = _State(empty, tuple(_Worker(f"h:{n}:0:0") for n in range(WORKERS)), (0,) * self._calls)
        states = 0

        @cache
        def after(state: _State) -> Counted:
            nonlocal states
            states += 1
            following = list(self._following(state))
            if not following:
                whole = all(one.at == self._calls for one in state.workers)
                return Counted(1, int(self._paid_twice(state)), int(not whole))
            ends = [after(one) for one in following]
            return Counted(*(sum(column) for column in list(zip(*ends, strict=True))[:3]))

        with (
            patch.object(ledgers, "is_gone", lambda owner: owner == self._is_dead),
            # a server's clock goes on while the graph is walked
            patch.object(ledgers, "LEASE_S", 1e6),
        ):
            return after(first)._replace(states=states)

    def _following(self, state: _State) -> Iterator[_State]:
        for number, worker in enumerate(state.workers):
            if worker.at < self._calls and worker.seen != state.ledger:
                yield self._stepped(state, number, worker)
            if worker.at < self._calls and not state.dead and worker.step != "open":
                heir = _Worker(worker.name + "'")
                yield state._replace(workers=_with(state.workers, number, heir), dead=worker.name)

    def _stepped(self, state: _State, number: int, worker: _Worker) -> _State:
        """After the worker's next step: a transaction, or the provider's answer."""
        if worker.step == "asking":
            paid = tuple(count + (at == worker.at) for at, count in enumerate(state.paid))
            return state._replace(
                paid=paid, workers=_with(state.workers, number, worker._replace(step="answered"))
            )
        ledger, step, at = self._transacted(state.ledger, worker.name, worker.step, worker.at, state.dead)
        waits = state.ledger if worker.step == "look" and at == worker.at else None
        worker = worker._replace(step=step, at=at, seen=waits)
        return state._replace(ledger=ledger, workers=_with(state.workers, number, worker))

    def _transact(
        self, ledger: tuple[Rows, Rows], name: str, step: str, at: int, dead: str
    ) -> tuple[tuple[Rows, Rows], str, int]:
        """(what the ledger holds after a worker's transaction, its next step, its next call)."""
        request = self._asked[at]
        self._ledger._owner = name
        self._is_dead = dead
        with self._engine.begin() as connection:
            _fill(connection, ledger)
            match step:
                case "open":
                    self._ledger._lose_the_dead(connection)
                    step = "intend"
                case "intend":
                    (mine,) = self._ledger._write(connection, [_Intent(asked_row(request) | {"run": name})])
                    step = "asking" if mine else "look"
                case "look":
                    at += bool(connection.execute(ledgers._FIND, {"keys": [request.key]}).all())
                    step = "intend"
                case _:
                    row = ledgers._named(request) | {"run": name} | spent(ANSWER, 1.0)
                    row |= {"completion": ANSWER.model_dump_json()}
                    self._ledger._write(connection, [_Answer(row, request)])
                    step, at = "intend", at + 1
            return _held(connection), step, at

    def _paid_twice(self, state: _State) -> bool:
        lost = [row for row in state.ledger[1] if "lost" in row]
        per_call = [sum(request.key in row for row in lost) for request in self._asked]
        return any(paid > 1 + gone for paid, gone in zip(state.paid, per_call, strict=True)) or len(lost) > 1


def _with(workers: tuple[_Worker, ...], number: int, worker: _Worker) -> tuple[_Worker, ...]:
    return (*workers[:number], worker, *workers[number + 1 :])


_CALLS = ("key", "model", "endpoint", "stage", "principle", "request", "status", "completion", "asked_at")
_CALLS = (*_CALLS, "attempts", "run", "owner", "leased_until", "batch")
_CHARGES = ("key", "run", "model", "stage", "principle", "outcome", "ended_at", "tokens_in", "tokens_out")
_CHARGES = (*_CHARGES, "tokens_cached", "cost_usd", "usage")
_TABLES = (("calls", _CALLS), ("charges", _CHARGES))


def _held(connection: Connection) -> tuple[Rows, Rows]:
    calls, charges = (
        tuple(sorted((tuple(row) for row in connection.execute(_select(table, names))), key=repr))
        for table, names in _TABLES
    )
    return calls, charges


def _fill(connection: Connection, held: tuple[Rows, Rows]) -> None:
    for (table, names), rows in zip(_TABLES, held, strict=True):
        # PostgreSQL's deleted rows stay until they are swept up, and each statement would pass over all of them
        emptied = "TRUNCATE" if connection.dialect.name == "postgresql" else "DELETE FROM"
        connection.exec_driver_sql(f"{emptied} {table}")
        if rows:
            values = ", ".join(f":{name}" for name in names)
            connection.execute(
                sql.text(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({values})"),
                [dict(zip(names, row, strict=True)) for row in rows],
            )


@cache
def _select(table: str, names: tuple[str, ...]) -> Any:
    return sql.text(f"SELECT {', '.join(names)} FROM {table}")


def in_memory() -> Engine:
    """SQLite, as a ledger opens it."""
    return sql.create_engine("sqlite://", poolclass=sql.StaticPool)


def on_postgres(address: str) -> Engine:
    """An empty database, `postgresql://…`, through the driver that a ledger uses."""
    return sql.create_engine(address.replace("postgresql:", "postgresql+psycopg:", 1))


def walked(engine: Engine) -> bool:
    """Whether no order pays twice or ends with one that waits for ever; the figures are printed."""
    counted = Interleavings(engine, calls=3).count()
    engine.dispose()
    print(
        f"{engine.dialect.name}: {WORKERS} workers, 3 calls, 1 crash: {counted.orders:,} orders over "
        f"{counted.states:,} states, {counted.double_payments} double payments, {counted.stuck} stuck",
        flush=True,
    )
    return not (counted.double_payments or counted.stuck)


def main() -> int:
    """0 where `walked` says so of SQLite and, where it is installed, of PostgreSQL."""
    logging.disable(logging.CRITICAL)
    holds = walked(in_memory())
    if postgres.program("initdb") is None:
        print("PostgreSQL is not installed: not walked on it")
        return 0 if holds else 1
    with postgres.server() as url:
        on_server = walked(on_postgres(url.format(database="postgres")))
    return 0 if holds and on_server else 1


if __name__ == "__main__":
    sys.exit(main())
