"""Where a ledger lies: a path or a URL -> connections to it, after its health has been looked at."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sql
from sqlalchemy.engine import URL, Connection, Engine, make_url

from preceptor.constitution.outputs import refuse_output_at
from preceptor.judge.errors import LedgerError
from preceptor.judge.ledger import recovery
from preceptor.judge.ledger.schema import STEPS, migrate, version_of
from preceptor.prompts.secrets import HARMLESS, SHORTEST_PASSWORD, keep, keep_parameter

BESIDE = ("-wal", "-shm", "-journal")
"""Endings of the files that SQLite keeps beside a database while it is open."""
BUSY_S = 30.0
"""How long a writer waits for another process that writes."""
CONNECT_S = 10
"""How long a database server may take to accept a connection."""
WRITABLE = "name a writable place with --ledger"
_open_here: Counter[Path] = Counter()
"""Connections that this process has to each SQLite file."""


class LedgerLocation(NamedTuple):
    """What the user named."""

    url: URL
    shown: str
    """Without a password."""
    path: Path | None
    """The SQLite file; None for PostgreSQL."""


class Engines(NamedTuple):
    """One connection each: readers do not wait for the writer."""

    writer: Engine
    reader: Engine
    place: LedgerLocation


def location_of(text: str) -> LedgerLocation:
    """A path, `sqlite:///PATH` or `postgresql://…`. Raises LedgerError for anything else,
    and UserError for what the command would write its result over."""
    try:
        url = make_url(text) if "://" in text else URL.create("sqlite", database=str(Path(text).expanduser()))
    except (sql.exc.ArgumentError, ValueError) as exc:
        raise LedgerError(
            f"--ledger {text.partition('://')[0]}://…: no database URL; wanted a path, or postgresql://USER@HOST/NAME"
        ) from exc
    if url.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        keep(str(url.password) if url.password else None, shortest=SHORTEST_PASSWORD)
        for name, value in url.query.items():
            keep_parameter(name, value if isinstance(value, str) else value[0])
        hidden = url.difference_update_query([name for name in url.query if name not in HARMLESS])
        return LedgerLocation(
            url.set(drivername="postgresql+psycopg"), hidden.render_as_string(hide_password=True), None
        )
    if url.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise LedgerError(
            f"{url.render_as_string(hide_password=True)}: a ledger is kept in SQLite or PostgreSQL; wanted a path, "
            "sqlite:///PATH or postgresql://USER@HOST/NAME"
        )
    if not url.database or url.database == ":memory:":
        raise LedgerError(f"{text}: a ledger in memory would be lost at the end; name a file with --ledger")
    path = Path(url.database.removeprefix("file:"))
    if path.is_dir():
        raise LedgerError(f"--ledger {text}: is a folder; wanted the name of a file")
    refuse_output_at(path.with_name(path.name + ending) for ending in ("", *BESIDE))
    return LedgerLocation(url, text, path)


def there(text: str) -> bool:
    """Whether a ledger need not be made first; a server is taken to be there. Raises LedgerError as `location_of`."""
    path = location_of(text).path
    return path is None or path.exists()


def open_engines(text: str) -> Engines:
    """Both connections to a ledger of this version, which is made where there is none.

    A damaged ledger is moved aside, said to the user, and a new one begun. Raises LedgerError.
    """
    place = location_of(text)
    if place.path is None:
        return _connected(place, _postgres(place), _postgres(place))
    try:
        place.path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise LedgerError(
            f"{place.shown}: the ledger's folder cannot be made ({exc.strerror}); {WRITABLE}"
        ) from exc
    with _alone(place.path.parent):
        if not _open_here[place.path.resolve()]:
            _examine(place, place.path)
        try:
            return _connected(place, _sqlite(place, "IMMEDIATE"), _sqlite(place, "DEFERRED"))
        except DamagedLedger as exc:
            if not recovery.is_ours(place.path):
                raise
            recovery.set_aside(place.path, str(exc.__cause__))
        return _connected(place, _sqlite(place, "IMMEDIATE"), _sqlite(place, "DEFERRED"))


def _examine(place: LedgerLocation, path: Path) -> None:
    """Move a damaged ledger aside. Raises LedgerError for a file of something else.

    Not for a file that this process has open: to close a file that was opened past SQLite lets go of SQLite's locks on
    it (POSIX), and another process would then take away the journal that is written here.
    """
    # before it is opened, which would already change the journal mode of another's database
    if (other := recovery.foreign(path)) is not None:
        raise LedgerError(f"{place.shown}: {other}; name another file with --ledger")
    found = recovery.damage(path)
    if found is not None:
        recovery.set_aside(path, found)


@contextmanager
def reading(text: str) -> Iterator[Connection]:
    """A connection to a ledger that is there, which it cannot change. Raises LedgerError."""
    place = location_of(text)
    if place.path is None:
        engine = _postgres(place)
    elif not place.path.exists():
        raise LedgerError(f"{place.shown}: there is no ledger here; name one with --ledger")
    else:
        database = f"file:{place.path.absolute()}"
        url = place.url.set(database=database).update_query_dict({"mode": "ro", "uri": "true"})
        engine = _engine_of(url, "DEFERRED")
    try:
        with engine.connect() as connection, connection.begin():
            if place.path is None:
                connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            version = version_of(connection, place.shown)
            if version < len(STEPS):
                raise LedgerError(
                    f"{place.shown}: "
                    + ("no ledger" if version == 0 else "written by an older Preceptor")
                    + "; a command that asks models makes it or brings it up to date"
                )
            yield connection
    except sql.exc.SQLAlchemyError as exc:
        raise ledger_error(place, exc) from exc
    finally:
        engine.dispose()


class DamagedLedger(LedgerError):
    """The database says of itself that it is broken."""


def ledger_error(place: LedgerLocation, exc: Exception) -> LedgerError:
    """What the database said, and what to do about it."""
    said = str(getattr(exc, "orig", None) or exc).strip()
    kind: type[LedgerError] = LedgerError
    if "not a database" in said or "malformed" in said:
        kind = DamagedLedger
        advice = "it is damaged or no ledger: move it aside, or name another with --ledger"
        if place.path is not None and recovery.is_ours(place.path):
            recovery.remember(place.path)
            advice = "it is damaged: the next command moves it aside and begins a new one"
    elif "readonly" in said or "read-only" in said:
        advice = "it is read-only: make it writable, or name another with --ledger"
    elif "full" in said or "disk I/O error" in said or "No space left" in said:
        advice = "make room on the disk and run the same command again; nothing that was answered is lost"
    elif "locked" in said:
        advice = f"another process held it for {BUSY_S:.0f} s: run again when that one is done"
    elif place.path is None:
        advice = "see that the server runs and lets you in, and run the same command again: what is answered is kept"
    else:
        advice = "wanted a file that can be written; name another with --ledger"
    return kind(f"{place.shown}: the ledger cannot be used ({said}); {advice}")


def _connected(place: LedgerLocation, writer: Engine, reader: Engine) -> Engines:
    try:
        with writer.begin() as connection:
            migrate(connection, place.shown)
    except BaseException as exc:
        writer.dispose()
        reader.dispose()
        if isinstance(exc, sql.exc.SQLAlchemyError):
            raise ledger_error(place, exc) from exc
        raise
    return Engines(writer, reader, place)


def _postgres(place: LedgerLocation) -> Engine:
    if importlib.util.find_spec("psycopg") is None:
        raise LedgerError(
            f"{place.shown}: PostgreSQL needs psycopg, which is not installed: pip install 'preceptor[postgres]'"
        )
    options: dict[str, Any] = {"application_name": "preceptor", "connect_timeout": CONNECT_S}
    return sql.create_engine(
        place.url,
        connect_args=options | dict(place.url.query),
        pool_size=1,
        max_overflow=0,
        pool_pre_ping=True,
        isolation_level="READ COMMITTED",
        hide_parameters=True,
    )


def _sqlite(place: LedgerLocation, begin: str) -> Engine:
    assert place.path is not None
    engine, path = _engine_of(place.url, begin), place.path.resolve()
    sql.event.listen(engine, "connect", lambda *_: _open_here.update([path]))
    sql.event.listen(engine, "close", lambda *_: _open_here.subtract([path]))
    return engine


def _engine_of(url: URL, begin: str) -> Engine:
    """begin: IMMEDIATE takes the write lock at once, so that two processes wait for one another instead of failing
    half-way; DEFERRED never takes it where nothing is written."""
    # one thread uses the connection at a time, though not the one that made it
    options = {"timeout": BUSY_S, "check_same_thread": False}
    engine = sql.create_engine(url, connect_args=options, poolclass=sql.StaticPool, hide_parameters=True)
    writes = begin == "IMMEDIATE"

    def set_up(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver's own late BEGIN is off
        if writes:
            for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
                connection.execute(f"PRAGMA {pragma}").close()

    sql.event.listen(engine, "connect", set_up)
    sql.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(f"BEGIN {begin}"))
    return engine


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process opens a ledger in this folder meanwhile, so that two do not move the same one aside."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        yield
        return
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # a file system without locks
            handle = os.open(folder, os.O_RDONLY)
            held.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
