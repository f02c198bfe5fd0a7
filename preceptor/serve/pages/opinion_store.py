"""What people say of labels, in tables beside the ledger's: corrections, and verdicts of blind checks.

Nothing here is ever changed: a correction is followed by another, a verdict that was undone stays with the time of it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import sqlalchemy as sql
from sqlalchemy.engine import Connection

from preceptor.judge.clock import SYSTEM, Clock
from preceptor.judge.records import Label, Letter
from preceptor.serve.tables import ServiceTables

METADATA = sql.MetaData()
CORRECTIONS = sql.Table(
    "service_corrections",
    METADATA,
    sql.Column("number", sql.Integer, primary_key=True, autoincrement=True),
    sql.Column("labels", sql.String(80), nullable=False, index=True),
    sql.Column("label", sql.Text, nullable=False),
    sql.Column("letter", sql.String(8), nullable=False),
    sql.Column("reason", sql.Text, nullable=False),
    sql.Column("author", sql.Text, nullable=False),
    sql.Column("at", sql.Float(53), nullable=False),
    sqlite_autoincrement=True,
)
CHECKS = sql.Table(
    "service_checks",
    METADATA,
    sql.Column("id", sql.String(40), primary_key=True),
    sql.Column("owner", sql.Text, nullable=False),
    sql.Column("name", sql.Text, nullable=False),
    sql.Column("labels", sql.String(80), nullable=False),
    sql.Column("rule", sql.String(16), nullable=False),
    sql.Column("seed", sql.Integer, nullable=False),
    sql.Column("of", sql.Integer, nullable=False),
    sql.Column("size", sql.Integer, nullable=False),
    sql.Column("people", sql.Integer, nullable=False),
    sql.Column("guide", sql.Text, nullable=False),
    sql.Column("shared", sql.Boolean, nullable=False),
    sql.Column("author", sql.Text, nullable=False),
    sql.Column("created_at", sql.Float(53), nullable=False),
    sql.Column("closed_at", sql.Float(53)),
)
ITEMS = sql.Table(
    "service_check_items",
    METADATA,
    sql.Column("check_id", sql.String(40), primary_key=True),
    sql.Column("place", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("label", sql.Text, nullable=False),
)
LEASES = sql.Table(
    "service_check_leases",
    METADATA,
    sql.Column("check_id", sql.String(40), primary_key=True),
    sql.Column("place", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("person", sql.String(120), primary_key=True),
    sql.Column("until", sql.Float(53), nullable=False),
)
VERDICTS = sql.Table(
    "service_check_verdicts",
    METADATA,
    sql.Column("number", sql.Integer, primary_key=True, autoincrement=True),
    sql.Column("check_id", sql.String(40), nullable=False, index=True),
    sql.Column("place", sql.Integer, nullable=False),
    sql.Column("person", sql.String(120), nullable=False),
    sql.Column("letter", sql.String(8)),
    sql.Column("reason", sql.Text, nullable=False),
    sql.Column("at", sql.Float(53), nullable=False),
    sql.Column("undone_at", sql.Float(53)),
    sqlite_autoincrement=True,
)
_MAKING = 5_246_731_914
"""PostgreSQL's advisory lock, so that two processes do not make the tables at once."""
LEASE_S = 15 * 60.0
"""How long an item is somebody's who has opened it."""
Rule = Literal["random", "least sure"]
ResultT = TypeVar("ResultT")


class Correction(NamedTuple):
    """What somebody says instead of a label's winner."""

    number: int
    labels: str
    """The name of the labels."""
    label: str
    """The id of the label."""
    letter: Letter
    reason: str
    author: str
    at: float


class BlindCheck(NamedTuple):
    """A sample of labels that people judge without the judge's verdict."""

    id: str
    owner: str
    name: str
    labels: str
    rule: Rule
    seed: int
    of: int
    """Labels from which the sample was drawn."""
    size: int
    people: int
    """Verdicts wanted of each item."""
    guide: list[dict[str, str]]
    """The principles, id and text, as the constitution that made the labels has them."""
    shared: bool
    """Whether every key that may read jobs may take part; else the key that made it alone."""
    author: str
    created_at: float
    closed_at: float | None


class HumanVerdict(NamedTuple):
    """What one person says of one item."""

    number: int
    check_id: str
    place: int
    person: str
    letter: Letter | None
    """None: skipped."""
    reason: str
    at: float
    undone_at: float | None


class OpinionStore:
    """The tables in one database; any thread may use it."""

    def __init__(self, database: str, clock: Clock = SYSTEM) -> None:
        """Raises LedgerError where the database cannot be used."""
        self._tables = ServiceTables(database, METADATA)
        self._clock = clock

    def close(self) -> None:
        """Let go of the database."""
        self._tables.close()

    # Corrections

    def correct(self, labels: str, label: str, letter: Letter, reason: str, author: str) -> None:
        """Keep a correction beside the judge's verdict."""
        row = {
            "labels": labels,
            "label": label,
            "letter": letter,
            "reason": _kept(reason),
            "author": author,
            "at": self._clock.time(),
        }
        self._tables.write(lambda connection: connection.execute(CORRECTIONS.insert().values(**row)))

    def corrections(self, labels: str, label: str | None = None) -> list[Correction]:
        """Those of some labels, or of one of them, in the order in which they were made."""
        wanted = sql.select(CORRECTIONS).where(CORRECTIONS.c.labels == labels)
        if label is not None:
            wanted = wanted.where(CORRECTIONS.c.label == label)
        return [Correction(*row) for row in self._tables.rows(wanted.order_by(CORRECTIONS.c.number))]

    # Blind checks

    def open_check(
        self,
        owner: str,
        name: str,
        labels: str,
        rule: Rule,
        seed: int,
        of: int,
        people: int,
        guide: Sequence[dict[str, str]],
        shared: bool,
        author: str,
        items: Sequence[Label],
    ) -> str:
        """Keep a sample, with copies of its labels, and say its id."""
        identity = f"check-{secrets.token_hex(8)}"
        row = {
            "id": identity,
            "owner": owner,
            "name": _kept(name),
            "labels": labels,
            "rule": rule,
            "seed": seed,
            "of": of,
            "size": len(items),
            "people": people,
            "guide": json.dumps(list(guide)),
            "shared": shared,
            "author": author,
            "created_at": self._clock.time(),
        }
        rows = [
            {"check_id": identity, "place": place, "label": label.line()}
            for place, label in enumerate(items, start=1)
        ]

        def add(connection: Connection) -> None:
            connection.execute(CHECKS.insert().values(**row))
            connection.execute(ITEMS.insert(), rows)

        self._tables.write(add)
        return identity

    def checks(self, owner: str | None) -> list[BlindCheck]:
        """Those of an owner and those that are shared, the latest first."""
        wanted = sql.select(CHECKS).order_by(CHECKS.c.created_at.desc(), CHECKS.c.id)
        if owner is not None:
            wanted = wanted.where(sql.or_(CHECKS.c.owner == owner, CHECKS.c.shared))
        return [_check(row) for row in self._tables.rows(wanted)]

    def check(self, identity: str, owner: str | None) -> BlindCheck | None:
        """One by its id; None where there is none, or it is another's and not shared."""
        rows = self._tables.rows(sql.select(CHECKS).where(CHECKS.c.id == identity))
        return next((_check(row) for row in rows if owner in (None, row.owner) or row.shared), None)

    def items(self, identity: str) -> list[Label]:
        """Its labels by place, from 1."""
        wanted = sql.select(ITEMS.c.label).where(ITEMS.c.check_id == identity).order_by(ITEMS.c.place)
        return [Label.model_validate_json(row.label) for row in self._tables.rows(wanted)]

    def item(self, identity: str, place: int) -> Label | None:
        """One of them."""
        wanted = sql.select(ITEMS.c.label).where(ITEMS.c.check_id == identity, ITEMS.c.place == place)
        rows = self._tables.rows(wanted)
        return Label.model_validate_json(rows[0].label) if rows else None

    def verdicts(self, identity: str) -> list[HumanVerdict]:
        """Those that count, in the order in which they came: skips among them, what was undone is not."""
        wanted = sql.select(VERDICTS).where(VERDICTS.c.check_id == identity, VERDICTS.c.undone_at.is_(None))
        return [HumanVerdict(*row) for row in self._tables.rows(wanted.order_by(VERDICTS.c.number))]

    def lease(self, check: BlindCheck, person: str, place: int | None = None) -> int | None:
        """The place of the item that this person is to judge next; nobody else is given it beyond the wanted number of
        verdicts, until the lease runs out. place: that one, if it can be had. None: there is none for them."""

        def take(connection: Connection) -> int | None:
            self._hold(connection, check.id)
            now = self._clock.time()
            given = connection.execute(
                sql.select(VERDICTS.c.place, VERDICTS.c.person, VERDICTS.c.letter).where(
                    VERDICTS.c.check_id == check.id, VERDICTS.c.undone_at.is_(None)
                )
            ).all()
            leased = connection.execute(
                sql.select(LEASES.c.place, LEASES.c.person).where(
                    LEASES.c.check_id == check.id, LEASES.c.until > now
                )
            ).all()
            mine = {row.place for row in given if row.person == person}
            held: list[int] = [row.place for row in leased if row.person == person and row.place not in mine]
            taken: dict[int, set[str]] = {}
            for at, who in (
                *((row.place, row.person) for row in given if row.letter is not None),
                *((row.place, row.person) for row in leased if row.person != person),
            ):
                taken.setdefault(at, set()).add(who)
            wished: list[int] = [place] if place is not None else []
            wished += [*sorted(held), *range(1, check.size + 1)]
            for one in wished:
                if one not in mine and 1 <= one <= check.size and len(taken.get(one, ())) < check.people:
                    self._take(connection, check.id, one, person, now + LEASE_S)
                    return one
            return None

        return self._tables.write(take)

    def judge(self, check: BlindCheck, place: int, person: str, letter: Letter | None, reason: str) -> str:
        """Keep a person's verdict on an item. Empty, or why it is not kept."""

        def add(connection: Connection) -> str:
            self._hold(connection, check.id)
            closed = connection.execute(
                sql.select(CHECKS.c.closed_at).where(CHECKS.c.id == check.id)
            ).scalar()
            if closed is not None:
                return "this check is closed"
            here = sql.and_(
                VERDICTS.c.check_id == check.id,
                VERDICTS.c.place == place,
                VERDICTS.c.undone_at.is_(None),
            )
            given = connection.execute(sql.select(VERDICTS.c.person, VERDICTS.c.letter).where(here)).all()
            if any(row.person == person for row in given):
                return "you have judged this one already; undo that first"
            if letter is not None and sum(row.letter is not None for row in given) >= check.people:
                return "others have judged this one in the meantime, and no more verdicts are wanted"
            connection.execute(
                VERDICTS.insert().values(
                    check_id=check.id,
                    place=place,
                    person=person,
                    letter=letter,
                    reason=_kept(reason),
                    at=self._clock.time(),
                )
            )
            connection.execute(
                LEASES.delete().where(
                    LEASES.c.check_id == check.id, LEASES.c.place == place, LEASES.c.person == person
                )
            )
            return ""

        return self._tables.write(add)

    def undo(self, check: BlindCheck, person: str) -> int | None:
        """Take the person's last verdict back, and say its place; None: there is none."""

        def take_back(connection: Connection) -> int | None:
            wanted = (
                sql.select(VERDICTS.c.number, VERDICTS.c.place)
                .where(
                    VERDICTS.c.check_id == check.id,
                    VERDICTS.c.person == person,
                    VERDICTS.c.undone_at.is_(None),
                )
                .order_by(VERDICTS.c.number.desc())
                .limit(1)
            )
            last = connection.execute(wanted).one_or_none()
            if last is None:
                return None
            undone = VERDICTS.update().where(VERDICTS.c.number == last.number)
            connection.execute(undone.values(undone_at=self._clock.time()))
            return int(last.place)

        return self._tables.write(take_back)

    def close_check(self, identity: str) -> None:
        """Take no more verdicts; the results are shown from then on."""
        closing = CHECKS.update().where(CHECKS.c.id == identity, CHECKS.c.closed_at.is_(None))
        self._tables.write(
            lambda connection: connection.execute(closing.values(closed_at=self._clock.time()))
        )

    def _take(self, connection: Connection, check: str, place: int, person: str, until: float) -> None:
        mine = sql.and_(LEASES.c.check_id == check, LEASES.c.person == person)
        connection.execute(LEASES.delete().where(mine))  # of one at a time
        connection.execute(LEASES.insert().values(check_id=check, place=place, person=person, until=until))

    def _hold(self, connection: Connection, check: str) -> None:
        """SQLite's writer is alone anyway."""
        if self._tables.on_server:
            connection.execute(sql.select(CHECKS.c.id).where(CHECKS.c.id == check).with_for_update())


def _check(row: Any) -> BlindCheck:
    return BlindCheck(**{**row._asdict(), "guide": json.loads(row.guide)})


def _kept(text: str) -> str:
    """As databases keep it: PostgreSQL keeps no NUL."""
    return text.replace("\0", "")
