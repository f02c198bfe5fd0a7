"""A thread that owns a connection: what waits while it works is done together next, in one transaction."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import sqlalchemy as sql
from sqlalchemy.engine import Connection, Engine
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from preceptor.judge.clock import SYSTEM, Clock
from preceptor.judge.errors import LedgerError, own

MOST_AT_ONCE = 500
"""Jobs in one transaction, and keys in one look-up."""
PATIENCE_S = 30.0
"""How long a lost connection or a deadlock is tried again."""


class RunJobs(Protocol):
    """Jobs -> their results, in their order."""

    def __call__(self, connection: Connection, jobs: Sequence[Any]) -> list[Any]: ...


class OnEngine(NamedTuple):
    """A job that takes no part in a transaction, such as one that the database refuses there."""

    work: Callable[[Engine], Any]


class _Waiting(NamedTuple):
    job: Any
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


class LedgerThread:
    """A thread that carries out jobs, to write or to read, one transaction at a time for any number of event loops."""

    def __init__(
        self,
        engine: Engine,
        carry_out: RunJobs,
        explain: Callable[[Exception], LedgerError],
        every: tuple[float, Callable[[Connection], None]] | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        """explain: what the database said -> what the user is told. every: (seconds, what is done as often)."""
        self._engine = engine
        self._carry_out = carry_out
        self._explain = explain
        self._every = every
        self._clock = clock
        self._due_s = self._clock.monotonic() + every[0] if every else float("inf")
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()

    async def do(self, job: Any) -> Any:
        """The job's result. Raises LedgerError where its transaction failed."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._queue.put(_Waiting(job, future, loop))
        # a write that was begun is finished even if whoever asked for it is cancelled
        return await asyncio.shield(future)

    async def close(self) -> None:
        """Finish what waits."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self._engine.dispose)

    def _work(self) -> None:
        going = True
        while going:
            taken = self._taken()
            waiting = [one for one in taken if one is not None]
            going = len(waiting) == len(taken)
            if waiting:
                results = self._results([one.job for one in waiting])
                for loop in {one.loop for one in waiting}:
                    mine = [pair for pair in zip(waiting, results, strict=True) if pair[0].loop is loop]
                    if not loop.is_closed():
                        loop.call_soon_threadsafe(_settle, mine)
            if self._every is not None and self._clock.monotonic() >= self._due_s:
                self._transact(
                    self._every[1]
                )  # where it fails, so does what comes next, and somebody hears of it
                self._due_s = self._clock.monotonic() + self._every[0]

    def _results(self, jobs: Sequence[Any]) -> list[Any]:
        """Those of one transaction together; after it, one by one, the jobs that go in none."""
        together = [job for job in jobs if not isinstance(job, OnEngine)]
        done = self._transact(partial(self._carry_out, jobs=together)) if together else []
        results = iter([done] * len(together) if isinstance(done, LedgerError) else done)
        return [self._outside(job) if isinstance(job, OnEngine) else next(results) for job in jobs]

    def _outside(self, job: OnEngine) -> Any:
        try:
            return job.work(self._engine)
        except Exception as exc:  # whatever it is, who waits must hear of it
            return self._explain(exc)

    def _taken(self) -> list[_Waiting | None]:
        """What waits, after waiting for the first of it; nothing where the time for `every` comes before."""
        try:
            wait_s = None if self._every is None else max(0.0, self._due_s - self._clock.monotonic())
            taken = [self._queue.get(timeout=wait_s)]
        except queue.Empty:
            return []
        while len(taken) < MOST_AT_ONCE and not self._queue.empty():
            taken.append(self._queue.get())
        return taken

    def _transact(self, work: Callable[[Connection], Any]) -> Any:
        """What `work` returns, committed; a LedgerError where it cannot be.

        Tried again where nothing can have been committed: two processes that waited for each other, or a server that
        went away before the commit. One that goes away in the commit has perhaps done it: the run ends, and the next
        sees.
        """
        again = Retrying(
            retry=retry_if_exception(_passes),
            stop=stop_after_delay(PATIENCE_S),
            wait=wait_random_exponential(multiplier=0.05, max=1.0),
            reraise=True,
        )
        try:
            return again(self._committed, work)
        except Exception as exc:  # whatever it is, those who wait must hear of it
            told = exc.cause if isinstance(exc, _InCommitError) else exc
            return told if isinstance(told, LedgerError) else self._explain(told)

    def _committed(self, work: Callable[[Connection], Any]) -> Any:
        with self._engine.connect() as connection, connection.begin() as transaction:
            result = work(connection)
            try:
                transaction.commit()
            except Exception as exc:
                raise _InCommitError(exc) from exc
            return result


class _InCommitError(Exception):
    """What went wrong in a commit, which is perhaps done."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _passes(exc: BaseException) -> bool:
    """Whether the same again may succeed: PostgreSQL's deadlock or serialization failure, or a connection lost."""
    if not isinstance(exc, sql.exc.DBAPIError):
        return False
    return exc.connection_invalidated or getattr(exc.orig, "sqlstate", None) in ("40001", "40P01")


def _settle(answered: Iterable[tuple[_Waiting, Any]]) -> None:
    for waiting, result in answered:
        if waiting.future.done():
            continue
        if isinstance(result, LedgerError):
            waiting.future.set_exception(own(result))
        else:
            waiting.future.set_result(result)
