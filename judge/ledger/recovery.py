"""A ledger's file that is broken: found out, and moved aside so that nothing is written over it.

What is not a ledger of ours is never touched, whatever its name.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from preceptor.judge.ledger.schema import APPLICATION_ID, VERSION_TABLE

CHECKED_BYTES = 32 * 2**20
"""Files up to this size are read through when a process first opens them; of larger ones only what is used is seen."""
HEAD_BYTES = 2**16
_MAGIC = b"SQLite format 3\0"
_SIDES = ("-wal", "-shm")
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_log = logging.getLogger(__name__)
_sound: set[tuple[str, int, int]] = set()
"""(path, device, inode) of files that this process has read through."""


def is_ours(path: Path) -> bool:
    """Whether a file is a ledger, broken or not, by what its first pages hold."""
    head = _head(path)
    if head.startswith(_MAGIC) and int.from_bytes(head[68:72], "big") == APPLICATION_ID:
        return True
    # a new ledger's tables may still be in the write-ahead log alone
    return any(
        b"CREATE TABLE " + VERSION_TABLE.encode() in part for part in (head, _head(_side(path, "-wal")))
    )


def foreign(path: Path) -> str | None:
    """What a file is that is no ledger; None where it is one, is empty, or is not there."""
    head = _head(path)
    if not head or is_ours(path) or _holds_nothing(path, head):
        return None
    return (
        "an SQLite file of something else"
        if head.startswith(_MAGIC)
        else "file is not a database, nor a ledger"
    )


def _holds_nothing(path: Path, head: bytes) -> bool:
    """Whether it is a database without a table. So a process leaves it that is killed while it makes a ledger."""
    kind, entries = head[100:101], head[103:105]  # of the table of tables; 13 is a leaf
    return (
        head.startswith(_MAGIC) and (kind, entries) == (b"\x0d", b"\0\0") and not _head(_side(path, "-wal"))
    )


def damage(path: Path) -> str | None:
    """What is wrong with a ledger's file; None where it is sound, not there, or not a ledger at all."""
    try:
        state = path.stat()
    except OSError:
        return None
    identity = (str(path.absolute()), state.st_dev, state.st_ino)
    noticed = _side(path, "-damaged").exists()
    if not state.st_size or not is_ours(path) or (identity in _sound and not noticed):
        return None
    if not _head(path).startswith(_MAGIC):
        return "its header is not SQLite's"
    if not noticed and state.st_size > CHECKED_BYTES:
        return None
    try:
        with closing(sqlite3.connect(path, timeout=30.0)) as connection:
            said = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.DatabaseError as exc:
        # a file that cannot be opened or written is another matter, of which opening it tells
        return str(exc) if exc.sqlite_errorcode & 0xFF in _DAMAGE else None
    if said != "ok":
        return said.replace("\n", " ")
    _sound.add(identity)
    _side(path, "-damaged").unlink(missing_ok=True)
    return None


def remember(path: Path) -> None:
    """Damage was met while the ledger was in use: whoever opens it next reads it through, however large it is."""
    try:
        _side(path, "-damaged").touch()
    except OSError as exc:
        _log.warning("%s: %s", path, exc)


def set_aside(path: Path, found: str) -> Path:
    """The new name, of the file and of what SQLite keeps beside it, said to the user. Raises OSError."""
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    while aside.exists():
        time.sleep(0.001)
        aside = path.with_name(f"{path.name}.damaged-{stamp}-{time.time_ns() % 10**9}")
    os.rename(path, aside)
    for side in _SIDES:
        if _side(path, side).exists():
            os.rename(_side(path, side), _side(aside, side))
    _side(path, "-damaged").unlink(missing_ok=True)
    _log.warning(
        "%s: the ledger was damaged (%s); it now lies at %s, and a new one is begun: what only the old one held is "
        "asked again. `sqlite3 %s .recover` may bring it back.",
        path,
        found,
        aside,
        aside,
    )
    return aside


def _side(path: Path, name: str) -> Path:
    return path.with_name(path.name + name)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b""
