"""What a ledger holds, for a person: the calls, the bill, and what can be thrown away.

Answers are thrown away, the bill never is: it stands in a table of its own.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import sqlalchemy as sql
from sqlalchemy.engine import Connection, Engine

from preceptor.constitution.foreign import json_of
from preceptor.judge.errors import LedgerError
from preceptor.prompts.records import Record

By = Literal["run", "model", "stage", "principle", "batch"]
BY: tuple[By, ...] = ("run", "model", "stage", "principle", "batch")
"""`batch`: the token of the batch in which a call was asked, at the batch's price; empty: it was asked by itself."""
STATUSES = ("answered", "failed", "lost", "intent")
UNANSWERED = ("failed", "lost")
PAGE = 500
"""Rows that are read at once."""

_FIGURES = """SUM(CASE WHEN outcome = 'answered' THEN 1 ELSE 0 END) AS calls,
    SUM(CASE WHEN outcome = 'failed' THEN 1 ELSE 0 END) AS failed,
    SUM(CASE WHEN outcome = 'lost' THEN 1 ELSE 0 END) AS lost,
    SUM(tokens_in) AS tokens_in, SUM(tokens_out) AS tokens_out, SUM(tokens_cached) AS tokens_cached,
    COALESCE(SUM(cost_usd), 0.0) AS cost_usd,
    SUM(CASE WHEN outcome = 'answered' AND cost_usd IS NULL THEN 1 ELSE 0 END) AS unpriced,
    SUM(CASE WHEN usage = 'estimated' THEN 1 ELSE 0 END) AS estimated"""
_USERINFO = re.compile(r"://[^/@\s\"]*@")
_QUERY = re.compile(r"([?&][\w-]+=)[^&\s\"]+")


class BillLine(NamedTuple):
    """What was asked and spent under one name."""

    of: dict[str, str]
    """By what the bill is broken down -> its name here."""
    calls: int
    """Times that an answer came, and so was paid for."""
    failed: int
    lost: int
    """In flight when their asker was killed: perhaps paid for, and then not in `cost_usd`."""
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    cost_usd: float
    unpriced: int
    """Answers whose price is not known and so is not in `cost_usd`."""
    estimated: int = 0
    """Calls whose tokens the provider did not count: they, and what they cost, are an estimate."""


class Call(Record):
    """A call as the ledger has it, without what may be a secret in a server's address."""

    key: str
    run: str
    """Of the last who asked or answered it; empty in ledgers from before there were names."""
    model: str
    endpoint: str
    stage: str
    principle: str
    status: str
    request: dict[str, Any]
    completion: dict[str, Any] | None
    problem: str | None
    """Why it failed."""
    tokens_in: int | None
    tokens_out: int | None
    tokens_cached: int | None
    cost_usd: float | None
    """None: not answered, or the price is not known."""
    asked_at: float
    """Seconds since 1970, as is `answered_at`."""
    answered_at: float | None
    attempts: int
    """Times that it was begun."""


class Wanted(NamedTuple):
    """Which calls; None: all."""

    run: str | None = None
    model: str | None = None
    stage: str | None = None
    principle: str | None = None
    statuses: tuple[str, ...] | None = None
    key: str | None = None
    """How the key begins."""
    before: float | None = None
    """Asked before this time, in seconds since 1970."""


class Pruned(NamedTuple):
    """What is, or would be, thrown away."""

    calls: int
    answered: int
    text_bytes: int
    """Of requests and answers."""
    cost_usd: float
    """What asking the answered ones again would cost, at the price they had."""


def bill(
    connection: Connection, by: Sequence[By] = ("model", "stage"), run: str | None = None
) -> list[BillLine]:
    """Totals, dearest first; an empty `by` gives one line where anything was asked. run: of that one alone."""
    names = ", ".join(by)
    rows = connection.execute(
        sql.text(
            f"SELECT {names + ', ' if by else ''}{_FIGURES} FROM charges"
            + (" WHERE run = :run" if run is not None else "")
            + (f" GROUP BY {names} ORDER BY COALESCE(SUM(cost_usd), 0.0) DESC, {names}" if by else "")
        ),
        {"run": run} if run is not None else {},
    ).mappings()
    return [
        BillLine({name: row[name] for name in by}, **{name: row[name] for name in BillLine._fields[1:]})
        for row in rows
        if row["calls"] is not None
    ]


def bill_by_day(connection: Connection) -> list[BillLine]:
    """Totals of each day in UTC, the latest first."""
    day = {
        "sqlite": "date(ended_at, 'unixepoch')",
        "postgresql": "to_char(to_timestamp(ended_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
    }[connection.dialect.name]
    rows = connection.execute(
        sql.text(f"SELECT {day} AS day, {_FIGURES} FROM charges GROUP BY {day} ORDER BY 1 DESC")
    ).mappings()
    return [
        BillLine({"day": row["day"]}, **{name: row[name] for name in BillLine._fields[1:]}) for row in rows
    ]


def spent_usd(connection: Connection, but: str | None = None) -> float:
    """USD of all calls whose price is known. but: except those of this run."""
    where = "" if but is None else " WHERE run <> :run"
    total = connection.execute(
        sql.text(f"SELECT COALESCE(SUM(cost_usd), 0.0) FROM charges{where}"),
        {} if but is None else {"run": but},
    )
    return float(total.scalar_one())


def calls(connection: Connection, wanted: Wanted, limit: int | None = None) -> Iterator[Call]:
    """The calls with their whole request and answer, latest first."""
    where, values = _where(wanted)
    rows = connection.execution_options(yield_per=PAGE).execute(
        sql.text(
            f"SELECT {', '.join(Call.model_fields)} FROM calls "
            f"{where} ORDER BY asked_at DESC, key" + (" LIMIT :most" if limit is not None else "")
        ),
        values | ({"most": limit} if limit is not None else {}),
    )
    for row in rows.mappings():
        yield _call(dict(row))


def _call(call: dict[str, Any]) -> Call:
    """Raises LedgerError for a call that is not as it was written."""
    try:
        endpoint = _without_secrets(call["endpoint"])
        call["request"] = json_of(call["request"]) | {"endpoint": endpoint}
        call["completion"] = json_of(call["completion"]) if call["completion"] is not None else None
        call["problem"] = _without_secrets(call["problem"]) if call["problem"] is not None else None
        return Call.model_validate(call | {"endpoint": endpoint})
    except (ValueError, TypeError) as exc:
        raise LedgerError(
            f"the call {call.get('key')} in the ledger is not as it was written ({type(exc).__name__}); look at the "
            "others by --status or --stage, or throw it away with `preceptor ledger prune`"
        ) from exc


def count(connection: Connection, wanted: Wanted) -> dict[str, int]:
    """Calls by status."""
    where, values = _where(wanted)
    rows = connection.execute(
        sql.text(f"SELECT status, COUNT(*) AS calls FROM calls {where} GROUP BY status"), values
    )
    return {row.status: row.calls for row in rows}


def to_prune(connection: Connection, wanted: Wanted) -> Pruned:
    """What `prune` would throw away; what is in flight stays."""
    where, values = _where(wanted, but_in_flight=True)
    row = connection.execute(
        sql.text(
            "SELECT COUNT(*), COALESCE(SUM(CASE WHEN status = 'answered' THEN 1 ELSE 0 END), 0), "
            "COALESCE(SUM(LENGTH(request) + LENGTH(COALESCE(completion, ''))), 0), COALESCE(SUM(cost_usd), 0.0) "
            f"FROM calls {where}"
        ),
        values,
    ).one()
    return Pruned(*row)


def prune(connection: Connection, wanted: Wanted) -> Pruned:
    """Throw calls away, and say what it was. The bill stays as it is."""
    where, values = _where(wanted, but_in_flight=True)
    pruned = to_prune(connection, wanted)
    connection.execute(sql.text(f"DELETE FROM calls {where}"), values)
    return pruned


def compact(engine: Engine) -> None:
    """Give the room of what was thrown away back to the disk."""
    server = engine.dialect.name == "postgresql"
    raw = engine.raw_connection()  # VACUUM goes in no transaction
    driver: Any = raw.driver_connection
    try:
        if server:
            driver.autocommit = True
        raw.cursor().execute("VACUUM calls" if server else "VACUUM")
    finally:
        if server and not driver.closed:
            driver.autocommit = False
        raw.close()


def _where(wanted: Wanted, but_in_flight: bool = False) -> tuple[str, dict[str, Any]]:
    """A WHERE clause and its values."""
    values: dict[str, Any] = {name: value for name, value in wanted._asdict().items() if value is not None}
    terms = [
        f"{name} = :{name}" for name in ("run", "model", "stage", "principle", "status") if name in values
    ]
    if wanted.statuses is not None:
        named = {f"status_{number}": status for number, status in enumerate(values.pop("statuses"))}
        values |= named
        terms.append(f"status IN ({', '.join(f':{name}' for name in named)})")
    if "key" in values:
        values["key"] = values["key"].lower()
        values["past"] = values["key"] + "g"  # keys are hexadecimal
        terms.append("key >= :key AND key < :past")
    if "before" in values:
        terms.append("asked_at < :before")
    if but_in_flight:
        terms.append("status <> 'intent'")
    return ("WHERE " + " AND ".join(terms) if terms else ""), values


def _without_secrets(text: str) -> str:
    """A server's address may carry a password or a key."""
    return _QUERY.sub(r"\1…", _USERINFO.sub("://", text))


def answered_keys(path: Path) -> set[str]:
    """Keys of the calls that a ledger's file has answers to, of whatever version it is; none where there is no file.

    The file is only read.
    """
    if not path.exists():
        return set()
    ledger = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return {key for (key,) in ledger.execute("SELECT key FROM calls WHERE status = 'answered'")}
    finally:
        ledger.close()
