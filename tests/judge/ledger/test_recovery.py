"""A damaged ledger is found out and moved aside; what is no ledger of ours is left where it is."""

from __future__ import annotations

import logging
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from preceptor.judge.errors import LedgerError
from preceptor.judge.ledger import recovery
from preceptor.judge.ledger.ledger import open_ledger
from tests.judge.ledger.test_ledger import ANSWER, request


async def filled(path: Path, calls: int = 200) -> Path:
    async with open_ledger(path) as ledger:
        for number in range(calls):
            await ledger.intend(request(str(number)))
            await ledger.answer(request(str(number)), ANSWER, 0.5)
    return path


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def aside(folder: Path, name: str = "*.damaged-*") -> list[Path]:
    return sorted(folder.glob(name))


DAMAGE: dict[str, Callable[[Path], None]] = {
    "header": lambda path: overwrite(path, 0, b"\0" * 100),
    "middle": lambda path: overwrite(path, 4096, b"\xff" * 60_000),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:20_000]),
}


@pytest.mark.parametrize("how", DAMAGE)
async def test_a_damaged_ledger_is_moved_aside_and_reported(
    how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = await filled(tmp_path / "l.db")
    assert place.stat().st_size > 64_000
    DAMAGE[how](place)
    broken = place.read_bytes()
    with caplog.at_level(logging.WARNING):
        async with open_ledger(place) as ledger:
            assert await ledger.find([request("1").key]) == {}
            assert await ledger.intend(request("1"))
    (moved,) = aside(tmp_path)
    assert moved.read_bytes() == broken
    (said,) = caplog.messages
    assert str(moved) in said
    assert "a new one is begun" in said


async def test_the_log_beside_a_damaged_ledger_goes_with_it(tmp_path: Path) -> None:
    place = await filled(tmp_path / "l.db")
    overwrite(place, 0, b"\0" * 100)
    (tmp_path / "l.db-wal").write_bytes(b"its log")
    async with open_ledger(place) as ledger:
        assert await ledger.intend(request())
    (log,) = aside(tmp_path, "l.db.damaged-*-wal")
    assert log.read_bytes() == b"its log"


async def test_damage_that_is_met_later_is_seen_to_by_the_next_who_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger too large to be read through at once: the run that meets the damage ends, the next moves it aside."""
    monkeypatch.setattr(recovery, "CHECKED_BYTES", 1000)
    place = await filled(tmp_path / "l.db", 400)
    size = place.stat().st_size
    overwrite(place, size // 4, b"\xff" * (size // 2))
    keys = [request(str(number)).key for number in range(400)]
    with pytest.raises(LedgerError, match="the next command moves it aside"):
        async with open_ledger(place) as ledger:
            await ledger.find(keys)
    assert aside(tmp_path) == []
    async with open_ledger(place) as ledger:
        assert await ledger.find(keys) == {}
    assert len(aside(tmp_path)) == 1
    assert not (tmp_path / "l.db-damaged").exists()


async def test_a_sound_ledger_is_not_moved(tmp_path: Path) -> None:
    """Nor one that a killed process left with its tables in the log alone, nor an empty file."""
    place = await filled(tmp_path / "l.db")
    with closing(sqlite3.connect(place)) as held:
        held.execute("PRAGMA wal_autocheckpoint = 0")
        held.execute("SELECT * FROM calls").fetchone()
        async with open_ledger(place) as ledger:
            await ledger.intend(request("later"))
        for name in ("l.db", "l.db-wal", "l.db-shm"):
            shutil.copy(tmp_path / name, tmp_path / name.replace("l.db", "copy.db"))
    async with open_ledger(tmp_path / "copy.db") as ledger:
        assert await ledger.find([request("1").key])
    (tmp_path / "empty.db").touch()
    async with open_ledger(tmp_path / "empty.db") as ledger:
        assert await ledger.intend(request())
    assert aside(tmp_path, "*damaged*") == []


async def test_what_is_not_ours_is_refused_and_left(tmp_path: Path) -> None:
    recipes, notes, broken = (tmp_path / name for name in ("recipes.db", "notes.txt", "broken.db"))
    with closing(sqlite3.connect(recipes)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
        connection.executemany("INSERT INTO recipes VALUES (?)", [("soup " * 50,)] * 1000)
        connection.commit()
    notes.write_text("a ledger of calls, said the note, is a fine thing to have\n" * 2000)
    shutil.copy(recipes, broken)
    overwrite(broken, 4096, b"\xff" * 60_000)
    before = {path: path.read_bytes() for path in (recipes, notes, broken)}
    for path in before:
        with pytest.raises(LedgerError, match="name another"):
            async with open_ledger(path):
                pass
    assert {path: path.read_bytes() for path in before} == before
    assert aside(tmp_path, "*damaged*") == []


async def test_a_process_that_was_killed_while_it_made_the_ledger_is_no_hindrance(tmp_path: Path) -> None:
    place = tmp_path / "l.db"
    with closing(sqlite3.connect(place)) as begun:
        begun.execute("PRAGMA journal_mode=WAL")  # the first thing that is written, before any table
    assert place.stat().st_size > 0
    async with open_ledger(place) as ledger:
        assert await ledger.intend(request("1"))
