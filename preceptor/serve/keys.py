"""Keys of the service: shown once, kept as a hash, with scopes, an end, a budget in dollars and a rate."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import sqlalchemy as sql
from sqlalchemy.engine import Connection

from preceptor.constitution.errors import UserError
from preceptor.judge.asking.budget import left_usd
from preceptor.judge.ledger.location import Engines, open_engines

Scope = Literal["judge", "reward", "jobs:read", "jobs:write", "train", "constitutions:write", "admin"]
SCOPES: tuple[str, ...] = get_args(Scope)
"""What a key may do. `admin` may do everything."""
PREFIX = "pcp"
FRESH_S = 1.0
"""How old a look at the table may be: a key that is revoked is refused after so long at the latest."""

_MAKE = """CREATE TABLE IF NOT EXISTS service_keys (
    id VARCHAR(16) NOT NULL PRIMARY KEY, name TEXT NOT NULL, sha256 VARCHAR(64) NOT NULL, scopes TEXT NOT NULL,
    created_at FLOAT NOT NULL, expires_at FLOAT, revoked_at FLOAT, budget_usd FLOAT, spent_usd FLOAT NOT NULL,
    per_minute INTEGER)"""
_ADD = sql.text(
    """INSERT INTO service_keys (id, name, sha256, scopes, created_at, expires_at, budget_usd, spent_usd, per_minute)
    VALUES (:id, :name, :sha256, :scopes, :created_at, :expires_at, :budget_usd, 0, :per_minute)"""
)
_REVOKE = sql.text("UPDATE service_keys SET revoked_at = :now WHERE id = :id AND revoked_at IS NULL")
_SPEND = sql.text("UPDATE service_keys SET spent_usd = spent_usd + :usd WHERE id = :id")
_BUDGET = sql.text("SELECT budget_usd, spent_usd FROM service_keys WHERE id = :id")
_ALL = sql.text("SELECT * FROM service_keys ORDER BY created_at, id")


class Key(NamedTuple):
    """A key as it is kept."""

    id: str
    name: str
    sha256: str
    """Of the secret alone: it has 256 random bits, which no slower hash would guard better."""
    scopes: frozenset[str]
    created_at: float
    """Seconds since 1970, as are the other times."""
    expires_at: float | None
    revoked_at: float | None
    budget_usd: float | None
    """What may be spent with it, ever; None: no cap of its own."""
    spent_usd: float
    per_minute: int | None
    """Requests a minute, at most."""

    def usable(self, now: float) -> bool:
        """Whether it is neither revoked nor at its end."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class Keyring:
    """The keys in one database; threads may share it."""

    def __init__(self, database: str) -> None:
        """Raises LedgerError where the database cannot be used."""
        self._engines: Engines = open_engines(database)
        self._lock = threading.Lock()
        self._seen: dict[str, Key] = {}
        self._seen_at = float("-inf")
        self._spent_here: dict[str, float] = {}
        """Of a key: USD that this process has written down."""
        with self._lock, self._engines.writer.begin() as connection:
            connection.exec_driver_sql(_MAKE)

    def create(
        self,
        name: str,
        scopes: Sequence[str],
        *,
        expires_at: float | None = None,
        budget_usd: float | None = None,
        per_minute: int | None = None,
    ) -> tuple[Key, str]:
        """A new key, and the words by which it is shown: this once. Raises UserError for a scope that is none."""
        if unknown := [scope for scope in scopes if scope not in SCOPES]:
            raise UserError(f"{', '.join(unknown)}: no scope of a key; wanted some of {', '.join(SCOPES)}")
        if not scopes:
            raise UserError(f"a key without a scope may do nothing; wanted some of {', '.join(SCOPES)}")
        identity, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
        row = {
            "id": identity,
            "name": name,
            "sha256": _hashed(secret),
            "scopes": " ".join(sorted(set(scopes))),
            "created_at": time.time(),
            "expires_at": expires_at,
            "budget_usd": budget_usd,
            "per_minute": per_minute,
        }
        with self._lock, self._engines.writer.begin() as connection:
            connection.execute(_ADD, row)
        self._seen_at = float("-inf")
        return _key({**row, "revoked_at": None, "spent_usd": 0.0}), f"{PREFIX}_{identity}_{secret}"

    def revoke(self, identity: str) -> None:
        """Have a key refused from now on. Raises UserError where there is no such key in use."""
        with self._lock, self._engines.writer.begin() as connection:
            done = connection.execute(_REVOKE, {"id": identity, "now": time.time()}).rowcount
        self._seen_at = float("-inf")
        if not done:
            raise UserError(f"{identity}: no key in use has this id; `preceptor keys list` shows them")

    def spend(self, identity: str, usd: float) -> None:
        """Write down what was spent with a key."""
        with self._lock:
            with self._engines.writer.begin() as connection:
                spend(connection, identity, usd)
            self._spent_here[identity] = self._spent_here.get(identity, 0.0) + usd

    def spent_elsewhere(self, identity: str) -> float:
        """USD of a key that others have written down: jobs, other servers, this one before its start."""
        with self._lock, self._engines.reader.begin() as connection:
            row = connection.execute(_BUDGET, {"id": identity}).one_or_none()
            return 0.0 if row is None else max(0.0, row.spent_usd - self._spent_here.get(identity, 0.0))

    def all(self) -> dict[str, Key]:
        """Every key by its id, those out of use among them, as they are in the database now."""
        with self._lock:
            with self._engines.reader.begin() as connection:
                rows = connection.execute(_ALL).mappings()
                self._seen = {row["id"]: _key(row) for row in rows}
            self._seen_at = time.monotonic()
            return self._seen

    def found(self, shown: str) -> Key | None:
        """The key of these words, if it is in use."""
        prefix, _, rest = shown.partition("_")
        identity, _, secret = rest.partition("_")
        key = self._lately().get(identity) if prefix == PREFIX else None
        same = hmac.compare_digest(_hashed(secret), key.sha256 if key else _hashed(""))
        return key if key is not None and same and key.usable(time.time()) else None

    def in_use(self, identity: str) -> Key | None:
        """The key with this id, unless it is revoked or at its end."""
        key = self._lately().get(identity)
        return key if key is not None and key.usable(time.time()) else None

    @property
    def none_made(self) -> bool:
        """Whether there never was a key: one that is revoked still closes the door."""
        return not self._lately()

    def close(self) -> None:
        """Let go of the database."""
        self._engines.writer.dispose()
        self._engines.reader.dispose()

    def _lately(self) -> dict[str, Key]:
        return self._seen if time.monotonic() < self._seen_at + FRESH_S else self.all()


def spend(connection: Connection, identity: str, usd: float) -> None:
    """Write down what was spent with a key, in the caller's transaction."""
    connection.execute(_SPEND, {"id": identity, "usd": usd})


def left_of(connection: Connection, identity: str) -> float | None:
    """What may still be spent with a key; None: it has no cap, or there is no such key."""
    if not sql.inspect(connection).has_table("service_keys"):
        return None
    row = connection.execute(_BUDGET, {"id": identity}).one_or_none()
    return None if row is None or row.budget_usd is None else left_usd(row.budget_usd, row.spent_usd)


def _hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _key(row: Any) -> Key:
    fields = {name: row[name] for name in Key._fields if name != "scopes"}
    return Key(scopes=frozenset(row["scopes"].split()), **fields)
