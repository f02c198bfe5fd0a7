"""Keys of the service: shown once, kept as a hash, with scopes, an end, a budget in dollars and a rate."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import sqlalchemy as sql
from sqlalchemy.engine import Connection

from preceptor.constitution.errors import UserError
from preceptor.judge.asking.budget import left_usd
from preceptor.serve.tables import ServiceTables

Scope = Literal["judge", "reward", "jobs:read", "jobs:write", "train", "constitutions:write", "admin"]
SCOPES: tuple[str, ...] = get_args(Scope)
"""What a key may do. `admin` may do everything."""
PREFIX = "pcp"
FRESH_S = 1.0
"""How old a look at the table may be: a key that is revoked is refused after so long at the latest."""

METADATA = sql.MetaData()
KEYS = sql.Table(
    "service_keys",
    METADATA,
    sql.Column("id", sql.String(16), primary_key=True),
    sql.Column("name", sql.Text, nullable=False),
    sql.Column("sha256", sql.String(64), nullable=False),
    sql.Column("scopes", sql.Text, nullable=False),
    sql.Column("created_at", sql.Float(53), nullable=False),
    sql.Column("expires_at", sql.Float(53)),
    sql.Column("revoked_at", sql.Float(53)),
    sql.Column("budget_usd", sql.Float(53)),
    sql.Column("spent_usd", sql.Float(53), nullable=False),
    sql.Column("per_minute", sql.Integer),
)


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
        """Raises LedgerError, as all of this does where the database fails."""
        self._tables = ServiceTables(database, METADATA)
        self._remembering = threading.Lock()
        """Held while the table and what this process remembers of it change, so that they stay of one age."""
        self._seen: dict[str, Key] = {}
        self._seen_at = float("-inf")
        self._spent_here: dict[str, float] = {}
        """Of a key: USD that this process has written down."""

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
            "revoked_at": None,
            "budget_usd": budget_usd,
            "spent_usd": 0.0,
            "per_minute": per_minute,
        }
        with self._remembering:
            self._tables.write(lambda connection: connection.execute(KEYS.insert().values(row)))
            self._seen_at = float("-inf")
        return _key(row), f"{PREFIX}_{identity}_{secret}"

    def revoke(self, identity: str) -> None:
        """Have a key refused from now on. Raises UserError where there is no such key in use."""
        in_use = sql.and_(KEYS.c.id == identity, KEYS.c.revoked_at.is_(None))
        change = KEYS.update().where(in_use).values(revoked_at=time.time())
        with self._remembering:
            done = self._tables.write(lambda connection: connection.execute(change).rowcount)
            self._seen_at = float("-inf")
        if not done:
            raise UserError(f"{identity}: no key in use has this id; `preceptor keys list` shows them")

    def spend(self, identity: str, usd: float) -> None:
        """Write down what was spent with a key."""
        with self._remembering:
            self._tables.write(partial(spend, identity=identity, usd=usd))
            self._spent_here[identity] = self._spent_here.get(identity, 0.0) + usd

    def spent_elsewhere(self, identity: str) -> float:
        """USD of a key that others have written down: jobs, other servers, this one before its start."""
        with self._remembering:
            row = self._tables.read(partial(_budget, identity=identity))
            return 0.0 if row is None else max(0.0, row.spent_usd - self._spent_here.get(identity, 0.0))

    def all(self) -> dict[str, Key]:
        """Every key by its id, those out of use among them, as they are in the database now."""
        with self._remembering:
            rows = self._tables.rows(sql.select(KEYS).order_by(KEYS.c.created_at, KEYS.c.id))
            self._seen = {row.id: _key(row._mapping) for row in rows}
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
        self._tables.close()

    def _lately(self) -> dict[str, Key]:
        return self._seen if time.monotonic() < self._seen_at + FRESH_S else self.all()


def spend(connection: Connection, identity: str, usd: float) -> None:
    """Write down what was spent with a key, in the caller's transaction."""
    row = KEYS.update().where(KEYS.c.id == identity)
    connection.execute(row.values(spent_usd=KEYS.c.spent_usd + usd))


def left_of(connection: Connection, identity: str) -> float | None:
    """What may still be spent with a key; None: it has no cap, or there is no such key."""
    if not sql.inspect(connection).has_table(KEYS.name):
        return None
    row = _budget(connection, identity)
    return None if row is None or row.budget_usd is None else left_usd(row.budget_usd, row.spent_usd)


def _budget(connection: Connection, identity: str) -> Any:
    """A key's `budget_usd` and `spent_usd`; None: there is no such key."""
    wanted = sql.select(KEYS.c.budget_usd, KEYS.c.spent_usd).where(KEYS.c.id == identity)
    return connection.execute(wanted).one_or_none()


def _hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _key(row: Mapping[str, Any]) -> Key:
    fields = {name: row[name] for name in Key._fields if name != "scopes"}
    return Key(scopes=frozenset(row["scopes"].split()), **fields)
