"""Every call to a model, in one SQLite file: the intent before it leaves, the answer after it arrives.

The cache, the bill and the resume are this one table. One thread owns the connection; what waits while it
commits is committed together next, so that many callers share one write.

WAL with synchronous=NORMAL: a killed process loses nothing that was acknowledged, the file is never torn, and
only a power cut can lose the last commits (those few calls are then asked again). FULL would wait for the
disk at every commit to close that gap.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sql
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine import URL, Connection, Engine, make_url

from judge.errors import LedgerError
from judge.models.protocol import Completion, Request

Result = TypeVar("Result")

BUSY_S = 30.0
"""How long a writer waits for another process that writes."""
MOST_AT_ONCE = 500
"""Operations in one commit, and keys in one look-up."""

_metadata = sql.MetaData()
_version = sql.Table("ledger_version", _metadata, sql.Column("version", sql.Integer, nullable=False))
_calls = sql.Table(
    "calls",
    _metadata,
    sql.Column("key", sql.String(32), primary_key=True),
    sql.Column("model", sql.Text, nullable=False),
    sql.Column("endpoint", sql.Text, nullable=False),
    sql.Column("stage", sql.Text, nullable=False),
    sql.Column("principle", sql.Text, nullable=False),
    sql.Column("request", sql.Text, nullable=False),  # JSON
    sql.Column("status", sql.String(8), nullable=False),  # intent | answered | failed
    sql.Column("completion", sql.Text),  # JSON
    sql.Column("problem", sql.Text),
    sql.Column("tokens_in", sql.Integer),
    sql.Column("tokens_out", sql.Integer),
    sql.Column("tokens_cached", sql.Integer),
    sql.Column("cost_usd", sql.Float),  # null: the price is not known
    sql.Column("asked_at", sql.Float, nullable=False),  # seconds since 1970
    sql.Column("answered_at", sql.Float),
    sql.Column("attempts", sql.Integer, nullable=False),  # intents written
)


# statements are made once: SQLAlchemy then finds their compiled form by identity of structure at little cost
_insert = insert(_calls)
_INTEND = _insert.on_conflict_do_update(
    ["key"],
    set_={
        "status": "intent",
        "asked_at": _insert.excluded.asked_at,
        "attempts": _calls.c.attempts + 1,
        "stage": _insert.excluded.stage,
        "principle": _insert.excluded.principle,
    },
    # another process may have answered it meanwhile: an answer is never taken back
    where=_calls.c.status != "answered",
)
_FIND = sql.select(_calls.c.key, _calls.c.completion).where(
    _calls.c.status == "answered", _calls.c.key.in_(sql.bindparam("keys", expanding=True))
)
_CLOSE = (
    _calls.update()
    .where(_calls.c.key == sql.bindparam("asked"), _calls.c.status != "answered")
    .values(
        {
            name: sql.bindparam(name)
            for name in (
                "status",
                "completion",
                "problem",
                "tokens_in",
                "tokens_out",
                "tokens_cached",
                "cost_usd",
                "answered_at",
            )
        }
    )
)


def _create(connection: Connection) -> None:
    _metadata.create_all(connection)
    connection.execute(_version.insert().values(version=0))


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (_create,)
"""Step n takes a ledger from version n to n + 1. Steps are only ever added at the end."""


class BillLine(NamedTuple):
    """What one stage asked of one model, over all runs on this ledger."""

    model: str
    stage: str
    calls: int
    failed: int
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    cost_usd: float
    unpriced: int
    """Answered calls whose price is not known and so is not in `cost_usd`."""


class _Operation(NamedTuple):
    """Something to do in the next transaction, and where its result is awaited."""

    work: Callable[[Connection], Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


class Ledger:
    """The calls in one file; made by `open_ledger`."""

    def __init__(self, engine: Engine, place: str) -> None:
        self._engine = engine
        self._place = place
        self._queue: queue.SimpleQueue[_Operation | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()

    async def find(self, keys: Sequence[str]) -> dict[str, Completion]:
        """The answers that there are; a key without one is absent."""
        found: dict[str, Completion] = {}
        for start in range(0, len(keys), MOST_AT_ONCE):
            found |= await self._do(partial(_answers, keys=keys[start : start + MOST_AT_ONCE]))
        return found

    async def costs(self, keys: Sequence[str]) -> dict[str, float | None]:
        """USD of the answers that there are; None where the price was not known."""
        wanted = sql.select(_calls.c.key, _calls.c.cost_usd).where(
            _calls.c.key.in_(keys), _calls.c.status == "answered"
        )
        rows = await self._do(lambda connection: connection.execute(wanted).all())
        return {str(key): cost for key, cost in rows}

    async def intend(self, request: Request) -> None:
        """Write down that the request is about to leave; on return the intent survives a kill."""
        row = {
            "key": request.key,
            "model": request.model,
            "endpoint": request.endpoint,
            "stage": request.stage,
            "principle": request.principle,
            "request": request.model_dump_json(),
            "status": "intent",
            "asked_at": time.time(),
            "attempts": 1,
        }
        await self._do(lambda connection: connection.execute(_INTEND, row))

    async def answer(self, request: Request, completion: Completion, cost_usd: float | None) -> None:
        """Write the answer down; on return it survives a kill. cost_usd None: the price is not known."""
        await self._close_call(
            request,
            status="answered",
            completion=completion.model_dump_json(),
            problem=None,
            tokens_in=completion.tokens_in,
            tokens_out=completion.tokens_out,
            tokens_cached=completion.tokens_cached,
            cost_usd=cost_usd,
        )

    async def fail(self, request: Request, problem: str) -> None:
        """Write down why there is no answer. It is not one: the next run asks again."""
        nothing = dict.fromkeys(("completion", "tokens_in", "tokens_out", "tokens_cached", "cost_usd"))
        await self._close_call(request, status="failed", problem=problem, **nothing)

    async def bill(self) -> list[BillLine]:
        """Totals by model and stage, dearest first."""
        answered = sql.func.sum(sql.case((_calls.c.status == "answered", 1), else_=0))
        chosen = (
            sql.select(
                _calls.c.model,
                _calls.c.stage,
                answered,
                sql.func.sum(sql.case((_calls.c.status == "failed", 1), else_=0)),
                *(sql.func.coalesce(sql.func.sum(_calls.c[name]), 0) for name in BillLine._fields[4:8]),
                answered - sql.func.count(_calls.c.cost_usd),
            )
            .group_by(_calls.c.model, _calls.c.stage)
            .order_by(sql.func.sum(_calls.c.cost_usd).desc(), _calls.c.model, _calls.c.stage)
        )
        rows = await self._do(lambda connection: connection.execute(chosen).all())
        return [BillLine._make(row) for row in rows]

    async def close(self) -> None:
        """Finish what waits and close the file."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self._engine.dispose)

    async def _close_call(self, request: Request, **values: Any) -> None:
        row = {"asked": request.key, "answered_at": time.time(), **values}
        await self._do(lambda connection: connection.execute(_CLOSE, row))

    async def _do(self, work: Callable[[Connection], Result]) -> Result:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._queue.put(_Operation(work, future, loop))
        # a write that was begun is finished even if whoever asked for it is cancelled
        return await asyncio.shield(future)

    def _work(self) -> None:
        going = True
        while going:
            waiting = [self._queue.get()]
            while len(waiting) < MOST_AT_ONCE and not self._queue.empty():
                waiting.append(self._queue.get())
            operations = [operation for operation in waiting if operation is not None]
            going = len(operations) == len(waiting)
            if operations:
                results = self._commit(operations)
                for loop in {operation.loop for operation in operations}:
                    mine = [pair for pair in zip(operations, results, strict=True) if pair[0].loop is loop]
                    if not loop.is_closed():
                        loop.call_soon_threadsafe(_settle, mine)

    def _commit(self, operations: Sequence[_Operation]) -> list[Any]:
        """The operations' results in one transaction; all of them the same LedgerError where it fails."""
        try:
            with self._engine.begin() as connection:
                return [operation.work(connection) for operation in operations]
        except Exception as exc:  # whatever it is, those who wait must hear of it
            return [_ledger_error(self._place, exc)] * len(operations)


def _answers(connection: Connection, keys: Sequence[str]) -> dict[str, Completion]:
    rows = connection.execute(_FIND, {"keys": list(keys)})
    return {key: Completion.model_validate_json(completion) for key, completion in rows}


def _settle(answered: Iterable[tuple[_Operation, Any]]) -> None:
    for operation, result in answered:
        if operation.future.done():
            continue
        if isinstance(result, LedgerError):
            operation.future.set_exception(result)
        else:
            operation.future.set_result(result)


@asynccontextmanager
async def open_ledger(place: str | Path) -> AsyncIterator[Ledger]:
    """The ledger at a path or `sqlite:///` URL, made with its folders where there is none, brought to this
    version.

    Raises LedgerError where it cannot be made or written, is something else, or comes from a newer version.
    """
    engine = await asyncio.to_thread(_prepare, str(place))
    ledger = Ledger(engine, str(place))
    try:
        yield ledger
    finally:
        await ledger.close()


def _prepare(place: str) -> Engine:
    url = make_url(place) if "://" in place else URL.create("sqlite", database=str(Path(place).expanduser()))
    if url.get_backend_name() != "sqlite":
        shown = url.render_as_string(hide_password=True)
        raise LedgerError(
            f"{shown}: this version keeps its ledger in SQLite; wanted a path or sqlite:///PATH"
        )
    if url.database and url.database != ":memory:" and not url.database.startswith("file:"):
        try:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise LedgerError(
                f"{place}: the ledger's folder cannot be made ({exc.strerror}); name a writable place with "
                "--ledger"
            ) from exc
    # one thread uses the connection at a time, though not the one that made it
    options = {"timeout": BUSY_S, "check_same_thread": False}
    engine = sql.create_engine(url, connect_args=options, poolclass=sql.StaticPool)
    sql.event.listen(engine, "connect", _set_up)
    sql.event.listen(engine, "begin", _begin)
    try:
        with engine.begin() as connection:
            _migrate(connection, place)
    except sql.exc.SQLAlchemyError as exc:
        engine.dispose()
        raise _ledger_error(place, exc) from exc
    except LedgerError:
        engine.dispose()
        raise
    return engine


def _set_up(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # the driver's own late BEGIN is off; `_begin` does it
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    # taking the write lock at once, so that two processes wait for one another instead of failing half-way
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _migrate(connection: Connection, place: str) -> None:
    tables = set(sql.inspect(connection).get_table_names())
    if tables and _version.name not in tables:
        raise LedgerError(f"{place}: an SQLite file of something else; name another file with --ledger")
    version = connection.execute(sql.select(_version.c.version)).scalar_one() if tables else 0
    if version > len(MIGRATIONS):
        raise LedgerError(
            f"{place}: written by a newer Preceptor (ledger version {version}, this one reads up to "
            f"{len(MIGRATIONS)}); update Preceptor or name another file with --ledger"
        )
    for step in MIGRATIONS[version:]:
        step(connection)
    if version < len(MIGRATIONS):
        connection.execute(_version.update().values(version=len(MIGRATIONS)))


def _ledger_error(place: str, exc: Exception) -> LedgerError:
    said = str(getattr(exc, "orig", None) or exc)
    if "not a database" in said or "malformed" in said:
        advice = "it is damaged or no SQLite file: move it aside, or name another with --ledger"
    elif "readonly" in said:
        advice = "it is read-only: make it writable, or name another with --ledger"
    elif "full" in said:
        advice = "make room on the disk and run the same command again; nothing that was answered is lost"
    elif "locked" in said:
        advice = f"another process held it for {BUSY_S:.0f} s: run again when that one is done"
    else:
        advice = "wanted a file that can be written; name another with --ledger"
    return LedgerError(f"{place}: the ledger cannot be used ({said}); {advice}")
