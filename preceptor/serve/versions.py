"""Constitutions that were saved over HTTP: every version of each, with who saved it, why and when."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import NamedTuple, TypeVar

import sqlalchemy as sql
from sqlalchemy.engine import Connection

from preceptor.constitution.edit import write_text
from preceptor.constitution.errors import ConstitutionError, FileFault
from preceptor.constitution.files import load_text, shipped
from preceptor.constitution.principle import Constitution
from preceptor.constitution.reading import read
from preceptor.serve.tables import ServiceTables

METADATA = sql.MetaData()
VERSIONS = sql.Table(
    "service_constitutions",
    METADATA,
    sql.Column("name", sql.String(64), primary_key=True),
    sql.Column("number", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("text", sql.Text, nullable=False),
    sql.Column("key", sql.Text, nullable=False),
    sql.Column("reason", sql.Text, nullable=False),
    sql.Column("at", sql.Float(53), nullable=False),
)
FIRST = "as the configuration had it"
"""Reason of the version that is kept of what stood there before the first change."""
ResultT = TypeVar("ResultT")


class Version(NamedTuple):
    """A constitution as it was saved."""

    name: str
    number: int
    """1 is the oldest of its name."""
    text: str
    """YAML, as the client sent it."""
    key: str
    """Id of the key that saved it; empty: nobody's."""
    reason: str
    at: float
    """Seconds since 1970."""

    @property
    def etag(self) -> str:
        """By which a change says what it was made of."""
        return etag_of(self.text)


class OtherSavedError(Exception):
    """Somebody else saved another version in the meantime."""


class Versions:
    """The saved constitutions in one database; any thread may use it."""

    def __init__(self, database: str, folder: Path) -> None:
        """folder: where the latest versions lie as files, for whatever reads a constitution. Raises LedgerError."""
        self._tables = ServiceTables(database, METADATA)
        self._folder = folder.absolute()

    def add(self, name: str, before: str | None, text: str, key: str, reason: str) -> Version:
        """Save another version. before: the text that it changes; None: there is none of this name yet.

        Raises OtherSavedError where the latest is another by now.
        """

        def save(connection: Connection) -> Version:
            wanted = sql.select(VERSIONS).where(VERSIONS.c.name == name).order_by(VERSIONS.c.number.desc())
            row = connection.execute(wanted.limit(1)).one_or_none()
            latest = None if row is None else Version(*row)
            if latest is None and before is not None:
                latest = Version(name, 1, before, "", FIRST, time.time())
                connection.execute(VERSIONS.insert().values(latest._asdict()))
            if (None if latest is None else latest.text) != before:
                raise OtherSavedError
            number = 1 if latest is None else latest.number + 1
            made = Version(name, number, text, key, reason.replace("\0", ""), time.time())
            connection.execute(VERSIONS.insert().values(made._asdict()))
            return made

        def save_first(connection: Connection) -> Version:
            try:
                return save(connection)
            except sql.exc.IntegrityError as error:  # of two servers, the other was quicker
                raise OtherSavedError from error

        return self._tables.write(save_first)

    def of(self, name: str) -> list[Version]:
        """Every version of a constitution, the latest first."""
        wanted = sql.select(VERSIONS).where(VERSIONS.c.name == name).order_by(VERSIONS.c.number.desc())
        return [Version(*row) for row in self._tables.rows(wanted)]

    def latest(self) -> list[Version]:
        """The latest of each name."""
        last = sql.select(VERSIONS.c.name, sql.func.max(VERSIONS.c.number).label("number"))
        newest = last.group_by(VERSIONS.c.name).subquery()
        wanted = sql.select(VERSIONS).join(
            newest, sql.and_(VERSIONS.c.name == newest.c.name, VERSIONS.c.number == newest.c.number)
        )
        return [Version(*row) for row in self._tables.rows(wanted)]

    def sources(self) -> dict[str, str]:
        """Name -> the file of its latest version."""
        return {version.name: str(self._file(version)) for version in self.latest()}

    def close(self) -> None:
        """Let go of the database."""
        self._tables.close()

    def _file(self, version: Version) -> Path:
        """Named by its content and alone in its folder, so that `extends` reaches nothing."""
        path = self._folder / hashlib.sha256(version.text.encode()).hexdigest() / "constitution.yaml"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, version.text)
        return path


def etag_of(text: str) -> str:
    """The entity tag of a constitution's text."""
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


def constitution_in(text: str, name: str) -> Constitution:
    """The constitution in a client's text, which may extend shipped ones alone: no name that a client gives is a path.

    Raises ConstitutionError with every fault.
    """
    file = f"{name}.yaml"
    reading = read(text, file)
    entries = reading.content.extends if reading.content is not None else ()
    faults = [
        FileFault(file, line, f"extends {entry!r}", f"a shipped constitution: {', '.join(shipped())}")
        for entry, line in zip(entries, reading.extends_lines, strict=True)
        if entry not in shipped()
    ]
    if faults:
        raise ConstitutionError(faults)
    return load_text(text, Path(file))
