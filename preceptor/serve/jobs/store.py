"""Files and jobs of the service, in tables beside the ledger's.

A job is leased as a call is (`preceptor.judge.ledger`): by an owner, for as long, and by the database server's clock
where there is one. A job whose owner is gone is taken over at once on the same host, and when its lease has run out
from another.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sql
from sqlalchemy.engine import Connection

from preceptor.constitution.errors import UserError
from preceptor.judge.clock import SYSTEM, Clock
from preceptor.judge.ledger.ledger import LEASE_S
from preceptor.judge.ledger.owner import is_gone
from preceptor.prompts.records import canonical_json
from preceptor.prompts.secrets import redacted
from preceptor.serve.keys import left_of, spend
from preceptor.serve.tables import ServiceTables

METADATA = sql.MetaData()
FILES = sql.Table(
    "service_files",
    METADATA,
    sql.Column("id", sql.String(40), primary_key=True),
    sql.Column("owner", sql.Text, nullable=False),
    sql.Column("purpose", sql.String(40), nullable=False),
    sql.Column("filename", sql.Text, nullable=False),
    sql.Column("bytes", sql.BigInteger, nullable=False),
    sql.Column("created_at", sql.Float(53), nullable=False),
    sql.Column("place", sql.Text, nullable=False),
    sql.Column("job", sql.String(40), nullable=False),
)
JOBS = sql.Table(
    "service_jobs",
    METADATA,
    sql.Column("number", sql.Integer, primary_key=True, autoincrement=True),
    sql.Column("id", sql.String(40), unique=True, nullable=False),
    sql.Column("owner", sql.Text, nullable=False),
    sql.Column("family", sql.String(16), nullable=False),
    sql.Column("kind", sql.String(16), nullable=False),
    sql.Column("request", sql.Text, nullable=False),
    sql.Column("work", sql.Text, nullable=False),
    sql.Column("status", sql.String(16), nullable=False),
    sql.Column("wish", sql.String(8), nullable=False),
    sql.Column("created_at", sql.Float(53), nullable=False),
    sql.Column("started_at", sql.Float(53)),
    sql.Column("finished_at", sql.Float(53)),
    sql.Column("crashes", sql.Integer, nullable=False),
    sql.Column("worker", sql.Text),
    sql.Column("leased_until", sql.Float(53)),
    sql.Column("exit_code", sql.Integer),
    sql.Column("problem", sql.Text),
    sql.Column("result", sql.Text),
    sql.Column("booked_usd", sql.Float(53), nullable=False, server_default="0"),
    sqlite_autoincrement=True,
)
EVENTS = sql.Table(
    "service_events",
    METADATA,
    sql.Column("number", sql.Integer, primary_key=True, autoincrement=True),
    sql.Column("job", sql.String(40), nullable=False, index=True),
    sql.Column("at", sql.Float(53), nullable=False),
    sql.Column("level", sql.String(8), nullable=False),
    sql.Column("kind", sql.String(8), nullable=False),
    sql.Column("message", sql.Text, nullable=False),
    sql.Column("data", sql.Text, nullable=False),
    sqlite_autoincrement=True,
)
CREATIONS = sql.Table(
    "service_creations",
    METADATA,
    sql.Column("owner", sql.Text, primary_key=True),
    sql.Column("key", sql.String(255), primary_key=True),
    sql.Column("body", sql.String(64), nullable=False),
    sql.Column("job", sql.String(40)),
    sql.Column("at", sql.Float(53), nullable=False),
)

KEPT_S = 24 * 3600.0
"""How long an idempotency key is remembered."""
DOING_S = 60.0
"""How long a creation may take before its key is anybody's again: whoever made it has been killed."""
MOST_CRASHES = 3
"""How often a job's process may die of itself before the job has failed."""
INTERNAL = "internal"
"""Purpose of files that a client neither uploaded nor is told of."""
PURPOSES = {"tuning": "fine-tune-results", "batch": "batch_output"}
"""Family of jobs -> purpose of their results, where OpenAI has a word for it."""
NO_RESULTS: Mapping[str, Path] = MappingProxyType({})
OPEN = ("queued", "running", "cancelling")
ENDED = ("succeeded", "failed", "cancelled")

ResultT = TypeVar("ResultT")


class StoredFile(NamedTuple):
    """What is known of a file; its bytes lie at `place` below the data folder."""

    id: str
    owner: str
    purpose: str
    filename: str
    bytes: int
    created_at: float
    place: str
    job: str
    """The job that wrote it; empty: a client uploaded it."""


class Work(NamedTuple):
    """What a job's process does."""

    words: tuple[str, ...]
    """The command after `preceptor`, with names of the job's folder in the place of files."""
    files: dict[str, str]
    """Name in the job's folder -> id of the file that it is."""
    texts: dict[str, str]
    """Name in the job's folder -> its content."""
    out: str
    """What of the folder are results: a file or a folder in it."""


class JobRecord(NamedTuple):
    """A job as it stands."""

    number: int
    id: str
    owner: str
    family: str
    """Whose language it is told in: `job`, or OpenAI's `tuning` and `batch`."""
    kind: str
    request: dict[str, Any]
    """What the client sent."""
    work: Work
    status: str
    wish: str
    """What is to become of it while it runs: nothing, `pause` or `cancel`."""
    created_at: float
    started_at: float | None
    finished_at: float | None
    crashes: int
    worker: str | None
    leased_until: float | None
    exit_code: int | None
    problem: str | None
    result: dict[str, Any] | None
    """What the command printed."""
    booked_usd: float
    """What of its cost stands with its key already."""


class JobEvent(NamedTuple):
    """Something that happened to a job."""

    number: int
    """Grows with every event of any job."""
    job: str
    at: float
    level: str
    kind: str
    """`message` or `metrics`."""
    message: str
    data: dict[str, Any]


class BodyChanged(UserError):
    """An idempotency key that came with another body before."""


class CreationRuns(UserError):
    """An idempotency key whose first request is still being answered."""


class WrongStatus(UserError):
    """What was asked of a job cannot be done in its status."""


class JobStore:
    """The files and jobs in one database; any thread may use it."""

    def __init__(self, database: str, data: Path, clock: Clock = SYSTEM) -> None:
        """database: as a ledger is named, and made where there is none. data: the folder of files and jobs, which all
        servers and workers share. Raises LedgerError."""
        self.database = database
        self.data = data
        self._clock = clock
        self._tables = ServiceTables(database, METADATA)
        for folder in (data / "files", data / "jobs"):
            folder.mkdir(parents=True, exist_ok=True)

    def close(self) -> None:
        """Let go of the database."""
        self._tables.close()

    # Files

    def add_file(self, owner: str, purpose: str, filename: str, chunks: Iterator[bytes]) -> StoredFile:
        """Keep an upload whole, and only then name it."""
        name = f"file-{secrets.token_hex(12)}"
        place = f"files/{name}"
        size = 0
        partial_path = self.data / f"{place}.part"
        try:
            with partial_path.open("wb") as stream:
                for chunk in chunks:
                    size += stream.write(chunk)
            partial_path.replace(self.data / place)
        finally:
            partial_path.unlink(missing_ok=True)

        def add(connection: Connection) -> StoredFile:
            made = StoredFile(name, owner, purpose, filename, size, self._now(connection), place, "")
            connection.execute(FILES.insert().values(made._asdict()))
            return made

        return self._tables.write(add)

    def file(self, name: str, owner: str | None = None) -> StoredFile | None:
        """A file by its id; None where there is none, or it is another's."""
        wanted = sql.select(FILES).where(FILES.c.id == name)
        rows = self._tables.read(lambda connection: connection.execute(wanted).all())
        return next((StoredFile(*row) for row in rows if owner in (None, row.owner)), None)

    def files(self, owner: str | None, job: str | None = None) -> list[StoredFile]:
        """All files of an owner, the latest first; with `job`, those that it wrote, by name."""
        wanted = sql.select(FILES).order_by(FILES.c.created_at.desc(), FILES.c.id)
        if job is not None:
            wanted = sql.select(FILES).where(FILES.c.job == job).order_by(FILES.c.filename)
        wanted = wanted.where(FILES.c.purpose != INTERNAL)
        if owner is not None:
            wanted = wanted.where(FILES.c.owner == owner)
        return [
            StoredFile(*row) for row in self._tables.read(lambda connection: connection.execute(wanted).all())
        ]

    def path_of(self, file: StoredFile) -> Path:
        """Where its bytes lie."""
        return self.data / file.place

    def delete_file(self, file: StoredFile) -> None:
        """Forget it, and its bytes. Raises WrongStatus where a job that has not ended needs it."""

        def delete(connection: Connection) -> None:
            waiting = sql.select(JOBS.c.id, JOBS.c.work).where(JOBS.c.status.not_in(ENDED))
            for job, work in connection.execute(waiting):
                if file.id in json.loads(work)["files"].values():
                    raise WrongStatus(f"{file.id} is read by {job}, which has not ended; cancel that first")
            connection.execute(FILES.delete().where(FILES.c.id == file.id))

        self._tables.write(delete)
        self.path_of(file).unlink(missing_ok=True)

    # Jobs

    @contextmanager
    def creation(self, owner: str, key: str | None, body: Any) -> Iterator[Creation]:
        """Create a job at most once for an idempotency key: within the block, unless it was done before.

        Raises BodyChanged and CreationRuns.
        """
        done = Creation(self, owner)
        if key is None:
            yield done
            return
        hashed = hashlib.sha256(canonical_json(body).encode()).hexdigest()
        before = self._tables.write(partial(self._claim_key, owner=owner, key=key, body=hashed))
        if before is not None:
            done.made = self.job(before)
            yield done
            return
        try:
            yield done
        finally:
            # without a job there is nothing to replay: the same key may try again
            kept = None if done.made is None else done.made.id
            self._tables.write(partial(self._settle_key, owner=owner, key=key, job=kept))

    def add_job(
        self,
        owner: str,
        family: str,
        kind: str,
        request: Mapping[str, Any],
        work: Work,
        name: str,
        problem: str | None = None,
    ) -> JobRecord:
        """A job that waits for a worker; with a problem, one that has failed before it began."""

        def add(connection: Connection) -> str:
            connection.execute(
                JOBS.insert().values(
                    id=name,
                    owner=owner,
                    family=family,
                    kind=kind,
                    request=json.dumps(request),
                    work=json.dumps(work._asdict()),
                    status="queued" if problem is None else "failed",
                    wish="",
                    created_at=self._now(connection),
                    finished_at=None if problem is None else self._now(connection),
                    problem=problem,
                    crashes=0,
                )
            )
            if problem is None:
                self._tell(connection, name, "the job waits for a worker")
            else:
                self._tell(connection, name, f"the job has failed: {problem}", "error")
            return name

        made = self.job(self._tables.write(add))
        assert made is not None
        return made

    def job(self, name: str, owner: str | None = None) -> JobRecord | None:
        """A job by its id; None where there is none, or it is another's."""
        wanted = sql.select(JOBS).where(JOBS.c.id == name)
        rows = self._tables.read(lambda connection: connection.execute(wanted).all())
        return next((_job(row) for row in rows if owner in (None, row.owner)), None)

    def any_open(self) -> bool:
        """Whether a job waits or runs."""
        wanted = sql.select(JOBS.c.id).where(JOBS.c.status.in_(OPEN)).limit(1)
        return self._tables.read(lambda connection: connection.execute(wanted).first()) is not None

    def jobs(
        self, owner: str | None, family: str, limit: int, after: JobRecord | None = None
    ) -> list[JobRecord]:
        """The latest first; `after`: those that were made before it."""
        wanted = sql.select(JOBS).where(JOBS.c.family == family).order_by(JOBS.c.number.desc()).limit(limit)
        if owner is not None:
            wanted = wanted.where(JOBS.c.owner == owner)
        if after is not None:
            wanted = wanted.where(JOBS.c.number < after.number)
        return [_job(row) for row in self._tables.read(lambda connection: connection.execute(wanted).all())]

    def cancel(self, name: str) -> None:
        """Have a job end; one that has ended stays as it is."""

        def end(connection: Connection) -> None:
            status = self._status(connection, name)
            if status in ("queued", "paused"):
                self._set(connection, name, status="cancelled", wish="", finished_at=self._now(connection))
                self._tell(connection, name, "the job was cancelled")
            elif status == "running":
                self._set(connection, name, status="cancelling", wish="cancel")

        self._tables.write(end)

    def pause(self, name: str) -> None:
        """Have a job wait; what it has done is kept. Raises WrongStatus for one that has ended."""

        def wait(connection: Connection) -> None:
            status = self._status(connection, name)
            if status == "queued":
                self._set(connection, name, status="paused")
                self._tell(connection, name, "the job was paused")
            elif status == "running":
                self._set(connection, name, wish="pause")
            elif status != "paused":
                raise WrongStatus(f"{name} is {status}, and cannot be paused")

        self._tables.write(wait)

    def resume(self, name: str) -> None:
        """Have a job go on where it stopped, paused or failed. Raises WrongStatus for others that do not run."""

        def go_on(connection: Connection) -> None:
            status = self._status(connection, name)
            if status in ("paused", "failed"):
                fresh = {"finished_at": None, "exit_code": None, "problem": None, "crashes": 0}
                self._set(connection, name, status="queued", wish="", **fresh)
                self._tell(connection, name, "the job goes on where it stopped")
            elif status in ("queued", "running"):
                self._set(connection, name, wish="")
            else:
                raise WrongStatus(f"{name} is {status}, and cannot go on")

        self._tables.write(go_on)

    def events(self, job: str, after: int = 0, limit: int | None = None) -> list[JobEvent]:
        """What happened to a job since an event, in order."""
        wanted = (
            sql.select(EVENTS)
            .where(EVENTS.c.job == job, EVENTS.c.number > after)
            .order_by(EVENTS.c.number)
            .limit(limit)
        )
        rows = self._tables.read(lambda connection: connection.execute(wanted).all())
        return [JobEvent(**{**row._asdict(), "data": json.loads(row.data)}) for row in rows]

    # A worker's side

    def claim(self, worker: str, passed_over: Sequence[str] = ()) -> JobRecord | None:
        """Lease the oldest job that waits, or whose worker is gone; None: there is none."""

        def lease(connection: Connection) -> str | None:
            now_s = self._now(connection)
            wanted = sql.select(JOBS).where(JOBS.c.status.in_(OPEN)).order_by(JOBS.c.number)
            if self._tables.on_server:
                wanted = wanted.with_for_update(skip_locked=True)
            for row in connection.execute(wanted):
                held = row.status != "queued" and row.leased_until >= now_s and not is_gone(row.worker)
                if held or row.id in passed_over:
                    continue
                status = "running" if row.status == "queued" else row.status
                lease = {"worker": worker, "leased_until": now_s + LEASE_S}
                self._set(connection, row.id, status=status, started_at=row.started_at or now_s, **lease)
                if row.status == "running":
                    self._tell(connection, row.id, "its worker is gone; another goes on", "warn")
                else:
                    self._tell(connection, row.id, "a worker has begun")
                return str(row.id)
            return None

        name = self._tables.write(lease)
        return None if name is None else self.job(name)

    def renew(self, name: str, worker: str) -> str | None:
        """Keep the lease, and learn what is wished of the job; None: it is another's by now."""

        def keep(connection: Connection) -> str | None:
            until = self._now(connection) + LEASE_S
            mine = sql.and_(JOBS.c.id == name, JOBS.c.worker == worker)
            if not connection.execute(JOBS.update().where(mine).values(leased_until=until)).rowcount:
                return None
            return str(connection.execute(sql.select(JOBS.c.wish).where(mine)).scalar_one())

        return self._tables.write(keep)

    def wish(self, name: str) -> str:
        """What is wished of a job that runs."""
        wanted = sql.select(JOBS.c.wish).where(JOBS.c.id == name)
        return str(self._tables.read(lambda connection: connection.execute(wanted).scalar_one()))

    def tell(
        self, name: str, message: str, level: str = "info", data: Mapping[str, Any] | None = None
    ) -> None:
        """Add an event; with data, one of metrics."""
        self._tables.write(partial(self._tell, name=name, message=message, level=level, data=data))

    def give_back(self, name: str, worker: str, *, crashed: bool = False) -> None:
        """Let another worker go on with a job. crashed: its process died of itself, which it may do a few times."""

        def back(connection: Connection) -> None:
            values: dict[str, Any] = {"status": "queued", "worker": None, "leased_until": None}
            if crashed:
                values["crashes"] = JOBS.c.crashes + 1
            mine = sql.and_(JOBS.c.id == name, JOBS.c.worker == worker)
            if connection.execute(JOBS.update().where(mine).values(**values)).rowcount:
                self._book(connection, name)

        self._tables.write(back)

    def stop(
        self, job: JobRecord, worker: str, status: str, results: Mapping[str, Path] = NO_RESULTS
    ) -> None:
        """A job that was told to stop has stopped: it is `paused` or `cancelled`. results: as of `finish`."""

        def stopped(connection: Connection) -> None:
            ended = self._now(connection) if status == "cancelled" else None
            mine = sql.and_(JOBS.c.id == job.id, JOBS.c.worker == worker)
            values = {
                "status": status,
                "wish": "",
                "finished_at": ended,
                "worker": None,
                "leased_until": None,
            }
            if connection.execute(JOBS.update().where(mine).values(**values)).rowcount:
                self._tell(connection, job.id, f"the job was {status}")
                self._book(connection, job.id)
                if results:
                    self._keep(connection, job, results)

        self._tables.write(stopped)

    def finish(
        self,
        job: JobRecord,
        worker: str,
        exit_code: int,
        problem: str | None,
        result: Mapping[str, Any] | None,
        results: Mapping[str, Path],
    ) -> None:
        """The end of a job with its results, in one step: name -> file in the data folder."""

        def end(connection: Connection) -> None:
            now_s = self._now(connection)
            mine = sql.and_(JOBS.c.id == job.id, JOBS.c.worker == worker)
            status = "failed" if problem is not None else "succeeded"
            values = {
                "status": status,
                "wish": "",
                "finished_at": now_s,
                "worker": None,
                "leased_until": None,
                "exit_code": exit_code,
                "problem": problem,
                "result": None if result is None else json.dumps(result),
            }
            if not connection.execute(JOBS.update().where(mine).values(**values)).rowcount:
                return  # its lease ran out, and another does the same
            self._book(connection, job.id)
            self._keep(connection, job, results)
            words = "the job has succeeded" if problem is None else f"the job has failed: {problem}"
            self._tell(connection, job.id, words, "info" if problem is None else "error")

        self._tables.write(end)

    def cost_of(self, name: str) -> float:
        """USD of the job's calls in the ledger, as far as prices are known."""
        return self._tables.read(partial(_cost, name=name))

    def left_of_key(self, owner: str) -> float | None:
        """USD that a job's key may still spend; None: it has no cap."""
        return self._tables.read(partial(left_of, identity=owner))

    # Inside a transaction

    def _book(self, connection: Connection, name: str) -> None:
        """Put what the job has cost since the last time on its key."""
        wanted = sql.select(JOBS.c.owner, JOBS.c.booked_usd).where(JOBS.c.id == name)
        owner, booked = connection.execute(wanted).one()
        cost = _cost(connection, name)
        if cost > booked:
            if owner:
                spend(connection, owner, cost - booked)
            self._set(connection, name, booked_usd=cost)

    def _keep(self, connection: Connection, job: JobRecord, results: Mapping[str, Path]) -> None:
        """Have files of the job's folder be its results, and none beside them."""
        connection.execute(FILES.delete().where(FILES.c.job == job.id))
        for name, path in results.items():
            made = StoredFile(
                f"file-{secrets.token_hex(12)}",
                job.owner,
                PURPOSES.get(job.family, "results"),
                name,
                path.stat().st_size,
                self._now(connection),
                path.relative_to(self.data).as_posix(),
                job.id,
            )
            connection.execute(FILES.insert().values(made._asdict()))

    def _now(self, connection: Connection) -> float:
        """By the database server's clock, for all machines."""
        if not self._tables.on_server:
            return self._clock.time()
        told = connection.exec_driver_sql("SELECT EXTRACT(EPOCH FROM clock_timestamp())").scalar_one()
        return float(told)

    def _status(self, connection: Connection, name: str) -> str:
        wanted = sql.select(JOBS.c.status).where(JOBS.c.id == name)
        if self._tables.on_server:
            wanted = wanted.with_for_update()
        return str(connection.execute(wanted).scalar_one())

    def _set(self, connection: Connection, name: str, **values: Any) -> None:
        connection.execute(JOBS.update().where(JOBS.c.id == name).values(**values))

    def _tell(
        self,
        connection: Connection,
        name: str,
        message: str,
        level: str = "info",
        data: Mapping[str, Any] | None = None,
    ) -> None:
        event = {
            "job": name,
            "at": self._now(connection),
            "level": level,
            "kind": "message" if data is None else "metrics",
            "message": redacted(message.replace("\0", "")),
            "data": json.dumps(data or {}),
        }
        connection.execute(EVENTS.insert().values(**event))

    def _claim_key(self, connection: Connection, owner: str, key: str, body: str) -> str | None:
        now_s = self._now(connection)
        mine = sql.and_(CREATIONS.c.owner == owner, CREATIONS.c.key == key)
        old = sql.or_(
            CREATIONS.c.at < now_s - KEPT_S,
            sql.and_(CREATIONS.c.job.is_(None), CREATIONS.c.at < now_s - DOING_S),
        )
        connection.execute(CREATIONS.delete().where(mine, old))
        before = connection.execute(sql.select(CREATIONS).where(mine)).one_or_none()
        if before is None:
            connection.execute(CREATIONS.insert().values(owner=owner, key=key, body=body, at=now_s))
            return None
        if before.body != body:
            raise BodyChanged(f"the idempotency key {key!r} came with another body before; take another key")
        if before.job is None:
            raise CreationRuns(f"the first request with the idempotency key {key!r} is still being answered")
        return str(before.job)

    def _settle_key(self, connection: Connection, owner: str, key: str, job: str | None) -> None:
        mine = sql.and_(CREATIONS.c.owner == owner, CREATIONS.c.key == key)
        if job is None:
            connection.execute(CREATIONS.delete().where(mine))
        else:
            connection.execute(CREATIONS.update().where(mine).values(job=job))


class Creation:
    """A job that is to be made once."""

    def __init__(self, store: JobStore, owner: str) -> None:
        self._store = store
        self._owner = owner
        self.made: JobRecord | None = None
        """The job; before `make`, that of an earlier request with the same key."""

    def make(
        self,
        family: str,
        kind: str,
        request: Mapping[str, Any],
        work: Work,
        prefix: str,
        problem: str | None = None,
    ) -> JobRecord:
        """Make it; with a problem, as one that has failed."""
        name = f"{prefix}{secrets.token_hex(12)}"
        self.made = self._store.add_job(self._owner, family, kind, request, work, name, problem)
        return self.made


def _cost(connection: Connection, name: str) -> float:
    wanted = sql.text("SELECT COALESCE(SUM(cost_usd), 0) FROM charges WHERE run = :run")
    return float(connection.execute(wanted, {"run": name}).scalar_one())


def unbooked(connection: Connection, owner: str) -> float:
    """USD that jobs of a key have cost and that do not stand with the key yet."""
    if not sql.inspect(connection).has_table(JOBS.name):
        return 0.0
    wanted = sql.select(JOBS.c.id, JOBS.c.booked_usd).where(
        JOBS.c.owner == owner, JOBS.c.status.not_in(ENDED)
    )
    rows = connection.execute(wanted).all()
    return float(sum(max(0.0, _cost(connection, row.id) - row.booked_usd) for row in rows))


def _job(row: Any) -> JobRecord:
    work = json.loads(row.work)
    return JobRecord(
        **{
            **row._asdict(),
            "request": json.loads(row.request),
            "work": Work(**{**work, "words": tuple(work["words"])}),
            "result": None if row.result is None else json.loads(row.result),
        }
    )
