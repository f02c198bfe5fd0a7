"""The ledger's writer without its thread: its transactions are the real ones, and every boundary of a write may be the
last thing that a process does, or may fail."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable
from typing import Any

import sqlalchemy as sql
from sqlalchemy.engine import Connection, Engine

from preceptor.judge.clock import SYSTEM, Clock
from preceptor.judge.ledger.writer import MOST_AT_ONCE, LedgerThread, RunJobs, _settle, _Waiting
from tests.simulation import world as here
from tests.simulation.machine import Killed

WRITES = ("INSERT", "UPDATE", "DELETE")


class SimulatedWriter(LedgerThread):
    """As LedgerThread, in its process's own loop."""

    def __init__(
        self,
        engine: Engine,
        carry_out: RunJobs,
        explain: Callable[[Exception], Any],
        every: tuple[float, Callable[[Connection], None]] | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self._clock = clock
        self._engine = engine
        self._carry_out = carry_out
        self._explain = explain
        self._every = every
        self._jobs: deque[_Waiting] = deque()
        self._due = False
        self._world = here.world()
        process = self._world.machine.current
        assert process is not None
        self._process = process
        self._loop = process.loop
        self._world.engines.append(engine)
        self._timer: asyncio.TimerHandle | None = None
        if every is not None:
            self._timer = self._loop.call_later(every[0], self._do_again)

    async def do(self, job: Any) -> Any:
        """As LedgerThread's."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._jobs.append(_Waiting(job, future, self._loop))
        self._wake()
        return await asyncio.shield(future)

    async def close(self) -> None:
        """As LedgerThread's."""
        while self._jobs:
            await asyncio.sleep(0.001)
        if self._timer is not None:
            self._timer.cancel()

    def _wake(self) -> None:
        if not self._due and self._jobs:
            self._due = True
            self._loop.call_later(self._world.disk_s(), self._carry_out_some)

    def _carry_out_some(self) -> None:
        most = self._world.random.choice((1, 2, MOST_AT_ONCE))
        some = [self._jobs.popleft() for _ in range(min(most, len(self._jobs)))]
        try:
            self._world.boundary("before a transaction")
            results = self._results([one.job for one in some])
            self._world.boundary("after a transaction")
        except Killed:
            return
        self._loop.call_soon(_settle, list(zip(some, results, strict=True)))
        self._due = False
        self._wake()

    def _do_again(self) -> None:
        assert self._every is not None
        try:
            self._transact(self._every[1])
        except Killed:
            return
        self._timer = self._loop.call_later(self._every[0], self._do_again)


def failed(said: str) -> sql.exc.OperationalError:
    """As SQLAlchemy raises what SQLite says."""
    return sql.exc.OperationalError("", {}, sqlite3.OperationalError(said))


def _connected(connection: sqlite3.Connection, _: object) -> None:
    if (running := here.running()) is not None and running.machine.current is not None:
        running.machine.current.open_files.append(connection)


def _before_statement(*event: Any) -> None:
    if (running := here.running()) is not None and event[2].lstrip()[:6].upper() in WRITES:
        running.boundary("before a statement")
        if running.disk_fails():
            raise failed("disk I/O error")


def _before_commit(connection: Connection) -> None:
    if (running := here.running()) is not None:
        running.boundary("before a commit")
        if running.disk_fails():
            driver: Any = connection.connection.driver_connection
            driver.rollback()  # as SQLite itself does where a commit cannot be written
            raise failed("database or disk is full")


sql.event.listen(Engine, "connect", _connected)
sql.event.listen(Engine, "before_cursor_execute", _before_statement)
sql.event.listen(Engine, "commit", _before_commit)
