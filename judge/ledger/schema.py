"""The ledger's tables, as the steps by which a ledger of any age comes to be today's.

`calls` holds each call once: `intent` while it is asked, then `answered` or `failed`; `lost` where whoever asked it
is gone, so that nobody knows whether it was answered. `charges` is the bill: a line for every time that a call ended,
never changed afterwards, whose `usage` tells tokens that the provider counted from estimated ones, so that an answer
that was paid for twice is on it twice, and it outlives what is pruned. `batches` holds each batch once: `intended`
before it is uploaded, `sent` with the provider's own id for it, then `ended`, or `unsent` where it never arrived. A
call or a charge with the token of a batch was asked in it.

The SQL is common to SQLite and PostgreSQL.
"""

from __future__ import annotations

import sqlalchemy as sql
from sqlalchemy.engine import Connection

from preceptor.judge.errors import LedgerError

APPLICATION_ID = 0x50636C67
"""In the header of an SQLite ledger from version 2 on ("Pclg"): tells a damaged ledger from another's file."""
VERSION_TABLE = "ledger_version"
_MIGRATING = 5_246_731_911
"""PostgreSQL's advisory lock, so that two processes do not make the tables at once."""

_FIRST = (
    """CREATE TABLE calls (
        key VARCHAR(32) NOT NULL PRIMARY KEY,
        model TEXT NOT NULL, endpoint TEXT NOT NULL, stage TEXT NOT NULL, principle TEXT NOT NULL,
        request TEXT NOT NULL,
        status VARCHAR(8) NOT NULL,
        completion TEXT, problem TEXT,
        tokens_in INTEGER, tokens_out INTEGER, tokens_cached INTEGER, cost_usd FLOAT,
        asked_at FLOAT NOT NULL, answered_at FLOAT,
        attempts INTEGER NOT NULL)""",
    "CREATE TABLE ledger_version (version INTEGER NOT NULL)",
    "INSERT INTO ledger_version VALUES (0)",
)
_LEASES_AND_CHARGES = (
    "ALTER TABLE calls ADD COLUMN run TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE calls ADD COLUMN owner TEXT",
    "ALTER TABLE calls ADD COLUMN leased_until FLOAT",
    "CREATE INDEX calls_in_flight ON calls (owner) WHERE status = 'intent'",
    """CREATE TABLE charges (
        key VARCHAR(32) NOT NULL, run TEXT NOT NULL,
        model TEXT NOT NULL, stage TEXT NOT NULL, principle TEXT NOT NULL,
        outcome VARCHAR(8) NOT NULL, ended_at FLOAT NOT NULL,
        tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL, tokens_cached INTEGER NOT NULL,
        cost_usd FLOAT)""",
    "UPDATE calls SET status = 'lost' WHERE status = 'intent'",
    """INSERT INTO charges
        SELECT key, run, model, stage, principle, status, COALESCE(answered_at, asked_at),
            COALESCE(tokens_in, 0), COALESCE(tokens_out, 0), COALESCE(tokens_cached, 0), cost_usd
        FROM calls""",
)
_BATCHES = (
    "ALTER TABLE calls ADD COLUMN batch VARCHAR(16) NOT NULL DEFAULT ''",
    "CREATE INDEX calls_in_batch ON calls (batch) WHERE batch <> ''",
    "ALTER TABLE charges ADD COLUMN batch VARCHAR(16) NOT NULL DEFAULT ''",
    """CREATE TABLE batches (
        token VARCHAR(16) NOT NULL PRIMARY KEY,
        model TEXT NOT NULL, endpoint TEXT NOT NULL, run TEXT NOT NULL, owner TEXT NOT NULL,
        state VARCHAR(8) NOT NULL, remote TEXT, requests INTEGER NOT NULL, worst_usd FLOAT NOT NULL,
        intended_at FLOAT NOT NULL, sent_at FLOAT, ended_at FLOAT, problem TEXT)""",
)
_USAGE = ("ALTER TABLE charges ADD COLUMN usage VARCHAR(9) NOT NULL DEFAULT 'reported'",)
STEPS: tuple[tuple[str, ...], ...] = (_FIRST, _LEASES_AND_CHARGES, _BATCHES, _USAGE)
"""Step n takes a ledger from version n to n + 1. Steps are only ever added at the end, and none is changed."""


def migrate(connection: Connection, place: str) -> None:
    """Bring a ledger of any older version, or an empty database, to this one, within the caller's transaction.

    Raises LedgerError for a newer version, and for tables that are not a ledger's.
    """
    lite = connection.dialect.name == "sqlite"
    if not lite:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATING})")
    version = version_of(connection, place)
    for step in STEPS[version:]:
        for statement in step:
            connection.exec_driver_sql(statement)
    if version < len(STEPS):
        connection.exec_driver_sql(f"UPDATE ledger_version SET version = {len(STEPS)}")
        if lite:
            connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")


def version_of(connection: Connection, place: str) -> int:
    """0 for an empty database. Raises LedgerError as `migrate` does."""
    tables = set(sql.inspect(connection).get_table_names())
    if VERSION_TABLE not in tables:
        # a PostgreSQL database may hold other tables beside ours, an SQLite file is a ledger or is none
        if "calls" in tables or "charges" in tables or (tables and connection.dialect.name == "sqlite"):
            kind = "an SQLite file" if connection.dialect.name == "sqlite" else "a database"
            raise LedgerError(f"{place}: {kind} of something else; name another with --ledger")
        return 0
    version = int(connection.exec_driver_sql("SELECT version FROM ledger_version").scalar_one())
    if version > len(STEPS):
        raise LedgerError(
            f"{place}: written by a newer Preceptor (ledger version {version}, this one reads up to "
            f"{len(STEPS)}); update Preceptor or name another ledger with --ledger"
        )
    return version
