"""Every call to a model, in one database: the intent before it leaves, the answer after it arrives.

The cache, the bill and the resume are this one thing: a file (SQLite), or a PostgreSQL database that many machines
share. One thread writes; what waits while it commits is committed together next, so that many callers share one write.
Another thread reads, and waits for no writer.

An intent is a lease: until its owner answers, or is gone, nobody else asks the same. A lease is renewed while its
owner lives. Where an owner is known to have ended, or its lease has run out, its intents are `lost`: on the bill as
calls that may have been paid for, and asked again by whoever wants them.

SQLite: WAL with synchronous=NORMAL. A killed process loses nothing that was acknowledged, the file is never torn, and
only a power cut can lose the last commits (those few calls are then asked again). FULL would wait for the disk at every
commit to close that gap.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sql
from sqlalchemy.engine import Connection

from preceptor.judge.clock import SYSTEM, Clock
from preceptor.judge.ledger.location import Engines, ledger_error, open_engines
from preceptor.judge.ledger.owner import is_gone, new_owner
from preceptor.judge.ledger.queries import BillLine, By, Pruned, Wanted, bill, compact, prune
from preceptor.judge.ledger.writer import MOST_AT_ONCE, LedgerThread, OnEngine
from preceptor.judge.models.protocol import Completion, Request
from preceptor.prompts.secrets import redacted

__all__ = ["Ledger", "open_ledger"]

LEASE_S = 60.0
"""How long an intent is its owner's without being renewed."""
RENEW_S = 15.0
"""How often leases are renewed."""
RUN_VARIABLE = "PRECEPTOR_RUN"
"""Environment variable that names the run on the bill."""

_log = logging.getLogger(__name__)

# `attempts` counts intents. An answer is never taken back, nor an intent that another may still be asking.
INTEND = sql.text(
    """INSERT INTO calls (key, model, endpoint, stage, principle, request, status, asked_at, attempts, run, owner,
        leased_until, batch)
    VALUES (:key, :model, :endpoint, :stage, :principle, :request, 'intent', :asked_at, 1, :run, :owner, :leased_until,
        :batch)
    ON CONFLICT (key) DO UPDATE SET status = 'intent', asked_at = excluded.asked_at, attempts = calls.attempts + 1,
        stage = excluded.stage, principle = excluded.principle, run = excluded.run, owner = excluded.owner,
        leased_until = excluded.leased_until, batch = excluded.batch
    WHERE calls.status NOT IN ('answered', 'intent') OR (calls.status = 'intent' AND calls.owner = excluded.owner)"""
)
_ANSWER = sql.text(
    """UPDATE calls SET status = 'answered', completion = :completion, problem = NULL, tokens_in = :tokens_in,
        tokens_out = :tokens_out, tokens_cached = :tokens_cached, cost_usd = :cost_usd, answered_at = :ended_at,
        run = :run, owner = NULL, leased_until = NULL
    WHERE key = :key AND status <> 'answered'"""
)
_FAIL = sql.text(
    """UPDATE calls SET status = 'failed', problem = :problem, answered_at = :ended_at, owner = NULL,
        leased_until = NULL
    WHERE key = :key AND status = 'intent' AND owner = :owner"""
)
_CHARGE = sql.text(
    """INSERT INTO charges (key, run, model, stage, principle, outcome, ended_at, tokens_in, tokens_out, tokens_cached,
        cost_usd, usage)
    VALUES (:key, :run, :model, :stage, :principle, :outcome, :ended_at, :tokens_in, :tokens_out, :tokens_cached,
        :cost_usd, :usage)"""
)
_FIND = sql.text("SELECT key, completion FROM calls WHERE status = 'answered' AND key IN :keys").bindparams(
    sql.bindparam("keys", expanding=True)
)
_COSTS = sql.text("SELECT key, cost_usd FROM calls WHERE status = 'answered' AND key IN :keys").bindparams(
    sql.bindparam("keys", expanding=True)
)
_HOLDERS = sql.text("SELECT key, owner FROM calls WHERE key IN :keys AND status = 'intent'").bindparams(
    sql.bindparam("keys", expanding=True)
)
_OWNERS = sql.text("SELECT owner, MAX(leased_until) FROM calls WHERE status = 'intent' GROUP BY owner")
_OPEN = "SELECT key, run, model, stage, principle FROM calls WHERE status = 'intent' AND owner = :owner"
_LOSE = sql.text(
    "UPDATE calls SET status = 'lost', owner = NULL, leased_until = NULL WHERE status = 'intent' AND owner = :owner"
)
_RENEW = sql.text("UPDATE calls SET leased_until = :until WHERE status = 'intent' AND owner = :owner")
UNPAID: dict[str, Any] = {
    "tokens_in": 0,
    "tokens_out": 0,
    "tokens_cached": 0,
    "cost_usd": None,
    "usage": "reported",
}
"""The line on the bill of a call for which nothing came."""

CallRow = dict[str, Any]
ResultT = TypeVar("ResultT")


class _Intent(NamedTuple):
    row: CallRow


class _Answer(NamedTuple):
    row: CallRow
    request: Request


class _Fail(NamedTuple):
    row: CallRow


class _Find(NamedTuple):
    keys: Sequence[str]


class Ledger:
    """The calls in one database; made by `open_ledger`."""

    def __init__(self, engines: Engines, run: str, clock: Clock = SYSTEM) -> None:
        self.run = run
        """Names what is asked through this object on the bill."""
        self._clock = clock
        self._owner = new_owner()
        self._server = engines.place.path is None
        self._open: set[str] = set()
        """What this ledger has leased; only the writing thread looks at it."""
        self._ahead_s = 0.0
        """How far the database server's clock is ahead of ours: leases are by its clock, for all machines."""
        explain = partial(ledger_error, engines.place)
        self._writer = LedgerThread(engines.writer, self._write, explain, (RENEW_S, self._renew), clock)
        self._reader = LedgerThread(engines.reader, _read, explain)

    async def find(self, keys: Sequence[str]) -> dict[str, Completion]:
        """The answers that there are; a key without one is absent."""
        found: dict[str, Completion] = {}
        for start in range(0, len(keys), MOST_AT_ONCE):
            found |= await self._reader.do(_Find(keys[start : start + MOST_AT_ONCE]))
        return found

    async def costs(self, keys: Sequence[str]) -> dict[str, float | None]:
        """USD of the answers that there are; None where the price was not known."""
        rows: Sequence[Any] = await self._reader.do(
            lambda connection: connection.execute(_COSTS, {"keys": list(keys)}).all()
        )
        return {str(key): cost for key, cost in rows}

    async def intend(self, request: Request) -> bool:
        """Write down that the request is about to leave; on True the intent survives a kill, and nobody else asks it.

        False: it is answered, or another process is asking it. Look for the answer and try again.
        """
        return bool(await self._writer.do(_Intent(asked_row(request) | {"run": self.run})))

    async def answer(self, request: Request, completion: Completion, cost_usd: float | None) -> Completion:
        """Write the answer down; on return it survives a kill. cost_usd None: the price is not known.

        Returns the answer that the ledger keeps: the first, where somebody else had answered after all. Both are on
        the bill.
        """
        row = (
            self._call_row(request)
            | spent(completion, cost_usd)
            | {"completion": completion.model_dump_json()}
        )
        kept: str | None = await self._writer.do(_Answer(row, request))
        return completion if kept is None else Completion.model_validate_json(kept)

    async def fail(
        self,
        request: Request,
        problem: str,
        paid: Completion | None = None,
        cost_usd: float | None = None,
    ) -> None:
        """Write down why there is no answer. It is not one: the next run asks again. paid: what came and was paid for,
        though it is none."""
        bill = UNPAID if paid is None else spent(paid, cost_usd)
        # PostgreSQL's text takes no NUL
        await self._writer.do(
            _Fail(self._call_row(request) | bill | {"problem": redacted(problem.replace("\0", ""))})
        )

    async def bill(self, by: Sequence[By] = ("model", "stage")) -> list[BillLine]:
        """Totals of all runs, dearest first."""
        lines: list[BillLine] = await self._reader.do(partial(bill, by=by))
        return lines

    async def write(self, work: Callable[[Connection], ResultT]) -> ResultT:
        """What `work` returns, committed: for tables and ways of writing that are another module's."""
        result: ResultT = await self._writer.do(work)
        return result

    async def read(self, work: Callable[[Connection], ResultT]) -> ResultT:
        """What `work` finds; it waits for no writer."""
        result: ResultT = await self._reader.do(work)
        return result

    async def prune(self, wanted: Wanted) -> Pruned:
        """Throw calls away, give their room back to the disk, and say what it was. The bill stays as it is."""
        pruned = await self.write(partial(prune, wanted=wanted))
        await self._writer.do(OnEngine(compact))
        return pruned

    async def close(self) -> None:
        """Finish what waits, give back what is still leased, and close the database."""
        try:
            await self._writer.do(self._give_back)
        finally:
            await self._writer.close()
            await self._reader.close()

    async def reconcile(self) -> int:
        """Find intents whose owner is gone, and say how many calls those are."""
        return int(await self._writer.do(self._lose_the_dead))

    def _call_row(self, request: Request) -> CallRow:
        return _named(request) | {"run": self.run}

    def _now_s(self) -> float:
        return self._clock.time() + self._ahead_s

    def _write(self, connection: Connection, jobs: Sequence[Any]) -> list[Any]:
        """Jobs of one kind together, an intent before its answer, by key, so that processes seldom meet crosswise."""
        results: dict[int, Any] = {}
        for kind, carry_out in ((_Intent, self._intend), (_Answer, self._answer), (_Fail, self._fail)):
            mine = sorted((job.row["key"], at) for at, job in enumerate(jobs) if isinstance(job, kind))
            if mine:
                made = carry_out(connection, [jobs[at] for _, at in mine])
                results |= dict(zip((at for _, at in mine), made, strict=True))
        for at, job in enumerate(jobs):
            if callable(job):
                results[at] = job(connection)
        return [results[at] for at in range(len(jobs))]

    def _intend(self, connection: Connection, jobs: Sequence[_Intent]) -> list[bool]:
        now_s = self._now_s()
        lease = {"asked_at": now_s, "owner": self._owner, "leased_until": now_s + LEASE_S, "batch": ""}
        rows = [job.row | lease for job in jobs]
        mine = {row["key"] for row in rows}
        if connection.execute(INTEND, rows).rowcount != len(rows):
            mine = self._held(connection, rows)
            rest = [row for row in rows if row["key"] not in mine]
            if rest and self._lose_the_dead(connection):
                connection.execute(INTEND, rest)
                mine = self._held(connection, rows)
        self._open |= mine
        return [row["key"] in mine for row in rows]

    def _held(self, connection: Connection, rows: Sequence[CallRow]) -> set[str]:
        """Those of the rows that this ledger has leased."""
        holders = connection.execute(_HOLDERS, {"keys": [row["key"] for row in rows]})
        return {key for key, owner in holders if owner == self._owner}

    def _answer(self, connection: Connection, jobs: Sequence[_Answer]) -> list[str | None]:
        """The answers that were there before; None where the job's own is kept."""
        rows = [job.row | {"ended_at": self._now_s(), "outcome": "answered"} for job in jobs]
        keys = [job.row["key"] for job in jobs]
        self._open.difference_update(keys)
        connection.execute(_CHARGE, rows)
        if connection.execute(_ANSWER, rows).rowcount == len(rows):
            return [None] * len(rows)
        kept: dict[str, str] = {row.key: row.completion for row in connection.execute(_FIND, {"keys": keys})}
        for job, row in zip(jobs, rows, strict=True):
            if row["key"] not in kept:  # its call was lost and then pruned
                self._intend(connection, [_Intent(row | asked_row(job.request))])
                connection.execute(_ANSWER, row)
        return [
            kept[row["key"]] if kept.get(row["key"], row["completion"]) != row["completion"] else None
            for row in rows
        ]

    def _fail(self, connection: Connection, jobs: Sequence[_Fail]) -> list[None]:
        end = {"ended_at": self._now_s(), "outcome": "failed", "owner": self._owner}
        rows = [job.row | end for job in jobs]
        connection.execute(_FAIL, rows)
        connection.execute(_CHARGE, rows)
        self._open.difference_update(row["key"] for row in rows)
        return [None] * len(rows)

    def _lose_the_dead(self, connection: Connection) -> int:
        if self._server:
            told = connection.exec_driver_sql("SELECT EXTRACT(EPOCH FROM clock_timestamp())").scalar_one()
            self._ahead_s = float(told) - self._clock.time()
        now_s = self._now_s()
        owners = connection.execute(_OWNERS).all()
        gone = [
            owner for owner, until in owners if owner != self._owner and (until < now_s or is_gone(owner))
        ]
        lost = sum(self._lose(connection, owner) for owner in gone)
        if lost:
            calls = "1 call was" if lost == 1 else f"{lost} calls were"
            _log.warning(
                "%s in flight when another run ended without an answer, asked again where wanted", calls
            )
        return lost

    def _lose(self, connection: Connection, owner: str) -> int:
        wanted = sql.text(_OPEN + (" FOR UPDATE" if self._server else ""))
        rows = [dict(row) for row in connection.execute(wanted, {"owner": owner}).mappings()]
        if rows:
            end = {"ended_at": self._now_s(), "outcome": "lost"} | UNPAID
            connection.execute(_CHARGE, [row | end for row in rows])
            connection.execute(_LOSE, {"owner": owner})
        return len(rows)

    def _give_back(self, connection: Connection) -> None:
        if self._open:
            self._lose(connection, self._owner)

    def _renew(self, connection: Connection) -> None:
        if self._open:
            connection.execute(_RENEW, {"until": self._now_s() + LEASE_S, "owner": self._owner})


def spent(completion: Completion, cost_usd: float | None) -> CallRow:
    """What is on the bill of a completion."""
    return {
        "tokens_in": completion.tokens_in,
        "tokens_out": completion.tokens_out,
        "tokens_cached": completion.tokens_cached,
        "cost_usd": cost_usd,
        "usage": completion.usage,
    }


def asked_row(request: Request) -> CallRow:
    """What is written of a request before it leaves, for `INTEND`."""
    return _named(request) | {"endpoint": request.endpoint, "request": request.model_dump_json()}


def _named(request: Request) -> CallRow:
    return {
        "key": request.key,
        "model": request.model,
        "stage": request.stage,
        "principle": request.principle,
    }


def _read(connection: Connection, jobs: Sequence[Any]) -> list[Any]:
    """Look-ups that wait together are one query."""
    keys = sorted({key for job in jobs if isinstance(job, _Find) for key in job.keys})
    found: dict[str, Completion] = {}
    for start in range(0, len(keys), MOST_AT_ONCE):
        rows = connection.execute(_FIND, {"keys": keys[start : start + MOST_AT_ONCE]})
        found |= {key: Completion.model_validate_json(completion) for key, completion in rows}
    return [
        {key: found[key] for key in job.keys if key in found} if isinstance(job, _Find) else job(connection)
        for job in jobs
    ]


@asynccontextmanager
async def open_ledger(
    place: str | Path, *, run: str | None = None, clock: Clock = SYSTEM
) -> AsyncIterator[Ledger]:
    """The ledger at a path, `sqlite:///PATH` or `postgresql://…`, made where there is none, brought to this version.

    run: on the bill, the name of what is asked; None: this process's own. What earlier owners had in flight when they
    ended is reconciled first. Raises LedgerError where it cannot be made or written, is something else, or comes from a
    newer version; a damaged one is moved aside first.
    """
    engines = await asyncio.to_thread(open_engines, str(place))
    ledger = Ledger(engines, this_run() if run is None else run, clock)
    try:
        await ledger.reconcile()
        yield ledger
    finally:
        await ledger.close()


@cache
def this_run() -> str:
    """The name of what this process asks: the one in `PRECEPTOR_RUN`, which a job's processes share; else when it first
    did, and four letters of chance."""
    return os.environ.get(RUN_VARIABLE) or f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
