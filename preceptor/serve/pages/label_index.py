"""A file of labels -> an index of it, so that a page of a million labels reads fifty of them.

An index is made once for a content, beside the server's files, and found again by it. Rows are read from the labels'
own file, at the places that the index names.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Literal, NamedTuple

import sqlalchemy as sql
from pydantic import Field, ValidationError, field_validator
from sqlalchemy.engine import Connection, Engine

from preceptor.constitution.errors import UserError
from preceptor.constitution.principle import Constitution
from preceptor.judge.aggregate import deciding, winner
from preceptor.judge.audit.audit import decisive
from preceptor.judge.records import Label
from preceptor.prompts.records import Settings
from preceptor.prompts.shown import one_line

VERSION = 2
"""Of the tables below: an index of another is made anew."""
PAGE = 50
BATCH = 2000
SNIPPET = 160
WAIT_S = 2.0
"""How long a page waits for its index before it says how far that is."""
MOST_NUMBER = 2**53
"""Of lines and characters: more is no number of theirs."""
MOST_COUNTS = 1000
"""Filters whose counts an index remembers."""
COMMON = 0.1
"""Share of all labels from which on a tag or principle is looked up for each label, and not gathered beforehand."""
MOST_BAD = 20
"""Lines that are no labels, of which the number is told."""
_TABLES = (
    """CREATE TABLE pairs (
        number INTEGER PRIMARY KEY, id TEXT NOT NULL, status TEXT NOT NULL, letter TEXT, margin REAL,
        longer INTEGER NOT NULL, apart INTEGER NOT NULL, orders INTEGER NOT NULL, judges INTEGER NOT NULL,
        gold INTEGER NOT NULL, start INTEGER NOT NULL, size INTEGER NOT NULL, snippet TEXT NOT NULL)""",
    "CREATE TABLE tags (tag TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (tag, number)) WITHOUT ROWID",
    "CREATE TABLE sources (source TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (source, number)) WITHOUT ROWID",
    """CREATE TABLE principles (principle TEXT NOT NULL, number INTEGER NOT NULL, decided INTEGER NOT NULL,
        PRIMARY KEY (principle, number)) WITHOUT ROWID""",
    "CREATE VIRTUAL TABLE words USING fts5(text, content='', tokenize='unicode61')",
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
)
_INDEXES = (
    "CREATE INDEX by_id ON pairs (id)",
    "CREATE INDEX by_status ON pairs (status, number)",
    "CREATE INDEX by_margin ON pairs (margin, number)",
    "CREATE INDEX by_apart ON pairs (apart, number)",
    "CREATE INDEX by_orders ON pairs (number) WHERE orders = 1",
    "CREATE INDEX by_judges ON pairs (number) WHERE judges = 1",
    "CREATE INDEX by_gold ON pairs (number) WHERE gold = 1",
)
_WORD = re.compile(r"\w+")
Sort = Literal["file", "least sure", "surest", "longest difference"]
SORTS: Mapping[Sort, tuple[str, bool]] = {
    "file": ("number", False),
    "least sure": ("margin", False),
    "surest": ("margin", True),
    "longest difference": ("apart", True),
}
"""Order -> (column, whether the largest comes first)."""


class LabelFilters(Settings):
    """Which labels, and in what order."""

    status: str | None = None
    tag: str | None = None
    source: str | None = None
    """One of the replies was written by this one."""
    principle: str | None = None
    """Judged about this one."""
    decided: bool = False
    """And without it there would be another winner, or none."""
    orders: bool = False
    """Only those of which some principle has another winner in the other order."""
    judges: bool = False
    """Only those about which judges disagree."""
    gold: bool = False
    """Only those whose winner is not the one that people prefer."""
    least: float | None = None
    """Margin, 0 to 1, at least."""
    most: float | None = None
    longer: Literal["won", "lost"] | None = None
    """Only those whose longer reply won, or lost."""
    apart: int | None = Field(default=None, ge=0, le=MOST_NUMBER)
    """Characters by which the replies differ in length, at least."""
    text: str | None = None
    """Words that all occur in prompt or replies; the last may be a beginning."""
    sort: Sort = "file"

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_none(cls, given: Any, info: Any) -> Any:
        return cls.model_fields[info.field_name].default if given == "" else given

    def query(self) -> dict[str, Any]:
        """What differs from the defaults, as an address has it."""
        given = self.model_dump(exclude_defaults=True)
        return {name: int(value) if value is True else value for name, value in given.items()}


class IndexedLabel(NamedTuple):
    """What the index has of a label."""

    number: int
    """Its line, from 1."""
    id: str
    status: str
    letter: str | None
    """The winner; None where there is none."""
    margin: float | None
    """|2 p - 1|."""
    longer: int
    """Characters by which reply a is longer than b."""
    orders: bool
    judges: bool
    gold: bool
    snippet: str


class LabelFacts(NamedTuple):
    """What an index says of its whole file."""

    rows: int
    statuses: dict[str, int]
    tags: dict[str, int]
    sources: dict[str, int]
    """Who wrote the replies, as far as the labels say."""
    principles: dict[str, int]
    judges: dict[str, int]
    constitutions: dict[str, int]
    bad: list[int]
    """Lines that are no labels: the first of them."""
    bad_rows: int
    decided: bool
    """Whether it is known which principle decided."""


class LabelIndex:
    """An index that is made; any thread may use it."""

    def __init__(self, path: Path, labels: Path) -> None:
        self._labels = labels
        self._engine = _engine(path)
        self._lock = threading.Lock()
        self._counts: dict[tuple[Any, ...], int] = {}
        with self._lock, self._engine.connect() as connection:
            rows = connection.execute(sql.text("SELECT name, value FROM facts")).all()
        self.facts = LabelFacts(**{row.name: json.loads(row.value) for row in rows})

    def count(self, wanted: LabelFilters) -> int:
        """How many labels there are of these; of the last filters it is remembered."""
        where, values = self._where(wanted)
        if not where:
            return self.facts.rows
        key = (*where, *values.items())
        if key not in self._counts:
            rows = self._all(f"SELECT COUNT(*) AS n FROM pairs WHERE {' AND '.join(where)}", values)
            if len(self._counts) >= MOST_COUNTS:
                self._counts.clear()
            self._counts[key] = int(rows[0].n)
        return self._counts[key]

    def page(
        self, wanted: LabelFilters, after: int | None = None, before: int | None = None, limit: int = PAGE
    ) -> list[IndexedLabel]:
        """Labels in the wanted order: those after a number, or those before it, or the first."""
        where, values = self._where(wanted)
        column, falls = SORTS[wanted.sort]
        backwards = before is not None
        if (anchor := before if backwards else after) is not None:
            sign = "<" if falls != backwards else ">"
            here = f"(SELECT {column} FROM pairs WHERE number = :anchor)"
            where.append(f"({column}, number) {sign} ({here}, :anchor)")
            values["anchor"] = anchor
        way = "DESC" if falls != backwards else "ASC"
        names = ", ".join(IndexedLabel._fields)
        rows = self._all(
            f"SELECT {names} FROM pairs {'WHERE ' + ' AND '.join(where) if where else ''} "
            f"ORDER BY {column} {way}, number {way} LIMIT {int(limit)}",
            values,
        )
        found = [IndexedLabel(*row) for row in rows]
        return found[::-1] if backwards else found

    def number_of(self, identity: str) -> int | None:
        """The line of the first label with this id."""
        rows = self._all("SELECT MIN(number) AS n FROM pairs WHERE id = :id", {"id": identity})
        found: int | None = rows[0].n
        return found

    def label(self, number: int) -> Label | None:
        """The label on a line, as its file has it. Raises UserError where the file is another by now."""
        rows = self._all("SELECT start, size FROM pairs WHERE number = :number", {"number": number})
        if not rows:
            return None
        with self._labels.open("rb") as stream:
            stream.seek(rows[0].start)
            line = stream.read(rows[0].size)
        try:
            return Label.model_validate_json(line)
        except ValidationError:
            raise UserError(
                f"{self._labels.name}: the labels have changed since they were indexed; look again"
            ) from None

    def numbers(self, wanted: LabelFilters) -> list[int]:
        """The lines of all labels of these, in file order."""
        where, values = self._where(wanted)
        rows = self._all(
            f"SELECT number FROM pairs {'WHERE ' + ' AND '.join(where) if where else ''} ORDER BY number",
            values,
        )
        return [row.number for row in rows]

    def close(self) -> None:
        """Let go of the file."""
        self._engine.dispose()

    def _where(self, wanted: LabelFilters) -> tuple[list[str], dict[str, Any]]:
        terms: list[str] = []
        values: dict[str, Any] = {}

        def add(term: str, **more: Any) -> None:
            terms.append(term)
            values.update(more)

        if wanted.status is not None:
            add("status = :status", status=wanted.status)
        if wanted.tag is not None:
            add(self._among("tags", "tag = :tag", self.facts.tags.get(wanted.tag, 0)), tag=wanted.tag)
        if wanted.source is not None:
            rows = self.facts.sources.get(wanted.source, 0)
            add(self._among("sources", "source = :source", rows), source=wanted.source)
        if wanted.principle is not None:
            decided = " AND decided = 1" if wanted.decided else ""
            rows = self.facts.principles.get(wanted.principle, 0)
            add(
                self._among("principles", f"principle = :principle{decided}", rows),
                principle=wanted.principle,
            )
        for name in ("orders", "judges", "gold"):
            if getattr(wanted, name):
                add(f"{name} = 1")
        if wanted.least is not None:
            add("margin >= :least", least=wanted.least)
        if wanted.most is not None:
            add("margin <= :most", most=wanted.most)
        if wanted.longer is not None:
            sign = ">" if wanted.longer == "won" else "<"
            add(
                f"letter IN ('a', 'b') AND longer <> 0 AND (CASE letter WHEN 'a' THEN longer ELSE -longer END) {sign} 0"
            )
        if wanted.apart is not None:
            add("apart >= :apart", apart=wanted.apart)
        if SORTS[wanted.sort][0] == "margin":
            add("margin IS NOT NULL")  # others stand in no order by it
        if wanted.text is not None:
            words = _WORD.findall(wanted.text)
            match = " ".join(f'"{word}"' for word in words) + "*" if words else '""'
            add("number IN (SELECT rowid FROM words WHERE words MATCH :match)", match=match)
        return terms, values

    def _among(self, table: str, term: str, rows: int) -> str:
        """A term that holds for labels with such a row in the table. rows: how many there are."""
        if rows > COMMON * self.facts.rows:
            return f"EXISTS (SELECT 1 FROM {table} WHERE {term} AND {table}.number = pairs.number)"
        return f"number IN (SELECT number FROM {table} WHERE {term})"

    def _all(self, statement: str, values: Mapping[str, Any]) -> list[Any]:
        with self._lock, self._engine.connect() as connection:
            return list(connection.execute(sql.text(statement), values).all())


def _engine(path: Path) -> Engine:
    return sql.create_engine(
        f"sqlite:///{path}", connect_args={"check_same_thread": False}, poolclass=sql.StaticPool
    )


# Making one


def content_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def build(labels: Path, constitution: Constitution | None, out: Path, progress: IndexingProgress) -> None:
    """Write the index of a file of labels, whole or not at all."""
    beside = out.with_name(f"{out.name}.{secrets.token_hex(4)}.part")
    engine = _engine(beside)
    try:
        with engine.connect() as connection:
            for pragma in ("journal_mode=OFF", "synchronous=OFF"):
                connection.exec_driver_sql(f"PRAGMA {pragma}")
            for statement in _TABLES:
                connection.exec_driver_sql(statement)
            facts = _fill(connection, labels, constitution, progress)
            for statement in _INDEXES:
                connection.exec_driver_sql(statement)
            connection.execute(
                sql.text("INSERT INTO facts VALUES (:name, :value)"),
                [{"name": name, "value": json.dumps(value)} for name, value in facts._asdict().items()],
            )
            connection.exec_driver_sql("ANALYZE")
            connection.commit()
        engine.dispose()
        beside.replace(out)
    finally:
        engine.dispose()
        beside.unlink(missing_ok=True)


class IndexingProgress:
    """How far an index is."""

    rows = 0


class _Filled(NamedTuple):
    pairs: list[dict[str, Any]]
    tags: list[dict[str, Any]]
    sources: list[dict[str, Any]]
    principles: list[dict[str, Any]]
    words: list[dict[str, Any]]


_INSERTS = (
    "INSERT INTO pairs VALUES (:number, :id, :status, :letter, :margin, :longer, :apart, :orders, :judges, :gold, "
    ":start, :size, :snippet)",
    "INSERT OR IGNORE INTO tags VALUES (:tag, :number)",
    "INSERT OR IGNORE INTO sources VALUES (:source, :number)",
    "INSERT INTO principles VALUES (:principle, :number, :decided)",
    "INSERT INTO words (rowid, text) VALUES (:number, :text)",
)


def _fill(
    connection: Connection, labels: Path, constitution: Constitution | None, progress: IndexingProgress
) -> LabelFacts:
    statuses, tags, sources, principles, judges, constitutions = (Counter[str]() for _ in range(6))
    bad: list[int] = []
    bad_rows = rows = 0
    known = constitution is not None
    held = _Filled([], [], [], [], [])
    for number, start, line in _lines(labels):
        try:
            label = Label.model_validate_json(line)
        except ValidationError:
            bad_rows += 1
            bad += [number] if len(bad) < MOST_BAD else []
            continue
        rows += 1
        statuses[label.status] += 1
        tags.update(set(label.prompt.tags))
        sources.update(set(label.models or ()))
        judges[label.judge] += 1
        constitutions[label.constitution] += 1
        judged = list(dict.fromkeys(one.principle for one in label.judgements))
        principles.update(judged)
        deciders: set[str] = set()
        if constitution is not None and label.constitution == constitution.identity:
            try:
                deciders = {*decisive(label, deciding(label), constitution)}
            except (KeyError, UserError):
                known = False  # a judgement about something that the constitution does not hold for its tags
        else:
            known = False
        _hold(held, label, number, start, len(line), judged, deciders)
        if len(held.pairs) >= BATCH:
            _write(connection, held)
            progress.rows = rows
    _write(connection, held)
    return LabelFacts(
        rows=rows,
        statuses=dict(statuses),
        tags=dict(tags),
        sources=dict(sources),
        principles=dict(principles),
        judges=dict(judges),
        constitutions=dict(constitutions),
        bad=bad,
        bad_rows=bad_rows,
        decided=known and rows > 0,
    )


def _hold(
    held: _Filled, label: Label, number: int, start: int, size: int, judged: list[str], deciders: set[str]
) -> None:
    letter = winner(label.probability) if label.probability is not None and label.status == "ok" else None
    asked = label.prompt.messages[-1].content
    longer = len(label.response_a) - len(label.response_b)
    held.pairs.append(
        {
            "number": number,
            "id": label.id,
            "status": label.status,
            "letter": letter,
            "margin": None if label.probability is None else abs(2 * label.probability - 1),
            "longer": longer,
            "apart": abs(longer),
            "orders": _orders_differ(label),
            "judges": _judges_differ(label),
            "gold": label.preferred is not None and letter is not None and letter != label.preferred,
            "start": start,
            "size": size,
            "snippet": one_line(asked)[:SNIPPET],
        }
    )
    held.tags.extend({"tag": tag, "number": number} for tag in label.prompt.tags)
    held.sources.extend({"source": source, "number": number} for source in label.models or ())
    held.principles.extend(
        {"principle": name, "number": number, "decided": name in deciders} for name in judged
    )
    said = [message.content for message in label.prompt.messages]
    held.words.append(
        {"number": number, "text": "\n".join([*said, label.response_a, label.response_b, label.id])}
    )


def _write(connection: Connection, held: _Filled) -> None:
    for statement, rows in zip(_INSERTS, held, strict=True):
        if rows:
            connection.execute(sql.text(statement), rows)
            rows.clear()


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """(number from 1, where it starts, line without its end) of every line that is not empty."""
    start = 0
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if text := line.rstrip(b"\r\n"):
                yield number, start, text
            start += len(line)


def _orders_differ(label: Label) -> bool:
    """Whether a judge names another winner about some principle in the other order."""
    said: dict[tuple[str, str], set[str]] = {}
    for one in label.judgements:
        if one.call is not None and one.letter is not None:
            said.setdefault((one.model, one.principle), set()).add(one.letter)
    return any({"a", "b"} <= letters for letters in said.values())


def _judges_differ(label: Label) -> bool:
    letters = {winner(vote.probability) for vote in label.votes if vote.probability is not None}
    return {"a", "b"} <= letters


# Finding one


class BeingIndexed(NamedTuple):
    """An index that is still being made."""

    rows: int
    """So far."""


class LabelIndexes:
    """The indexes of a server, each made once for its content."""

    def __init__(self, folder: Path) -> None:
        """folder: where they lie."""
        self._folder = folder.absolute()
        self._maker = ThreadPoolExecutor(1, thread_name_prefix="index")
        self._lock = threading.Lock()
        self._known: dict[tuple[Any, ...], tuple[Future[LabelIndex], IndexingProgress]] = {}

    def of(
        self, labels: Path, constitution: Constitution | None, wait_s: float = WAIT_S
    ) -> LabelIndex | BeingIndexed:
        """The index of a file as it is now. Raises UserError where the file cannot be read."""
        try:
            stat = labels.stat()
        except OSError as error:
            raise UserError(f"{labels.name}: the labels cannot be read ({error.strerror})") from error
        identity = constitution.identity if constitution is not None else ""
        key = (str(labels), stat.st_size, stat.st_mtime_ns, stat.st_ino, identity)
        with self._lock:
            if key not in self._known:
                progress = IndexingProgress()
                made = self._maker.submit(self._make, labels, constitution, progress)
                self._known[key] = made, progress
            made, progress = self._known[key]
        wait([made], wait_s)
        if not made.done():
            return BeingIndexed(progress.rows)
        if (fault := made.exception()) is not None:
            with self._lock:
                self._known.pop(key, None)  # the next look tries again
            raise UserError(f"{labels.name}: the labels cannot be indexed ({fault})") from fault
        return made.result()

    def close(self) -> None:
        """Let go of all of them."""
        self._maker.shutdown(wait=True, cancel_futures=True)
        for made, _ in self._known.values():
            if made.done() and not made.cancelled() and made.exception() is None:
                made.result().close()

    def _make(
        self, labels: Path, constitution: Constitution | None, progress: IndexingProgress
    ) -> LabelIndex:
        identity = constitution.identity if constitution is not None else ""
        named = hashlib.sha256(f"{VERSION} {content_hash(labels)} {identity}".encode()).hexdigest()
        path = self._folder / f"{named[:40]}.db"
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            build(labels, constitution, path, progress)
        return LabelIndex(path, labels)
