"""Ledgers of every age are brought to this version, and keep what they held."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from preceptor.judge.errors import LedgerError
from preceptor.judge.ledger.ledger import open_ledger
from preceptor.judge.ledger.location import reading
from preceptor.judge.ledger.queries import BillLine
from preceptor.judge.ledger.schema import STEPS
from tests.judge.ledger.test_ledger import ANSWER, request

ROOT = Path(__file__).parents[3]
OLD = ROOT / "tests" / "data" / "ledger"
"""`version-N.sql`: what version N's code made of an answered, an unpriced, a failed and an unfinished call."""


def made_by(version: int, path: Path) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((OLD / f"version-{version}.sql").read_text(encoding="utf-8"))
    return path


def schema(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = {
            f"{table}.{name} {kind} {required}"
            for table in tables
            for _, name, kind, required, _, _ in connection.execute(f"PRAGMA table_info({table})")
        }
        indexes = {
            row[0]
            for row in connection.execute("SELECT sql FROM sqlite_master WHERE type = 'index'")
            if row[0]
        }
    return columns | indexes


def test_every_older_version_is_kept_as_its_own_sql() -> None:
    assert {path.name for path in OLD.iterdir()} == {
        f"version-{number}.sql" for number in range(1, len(STEPS))
    }


@pytest.mark.parametrize("version", range(1, len(STEPS)))
async def test_an_older_ledger_keeps_its_answers_and_its_bill(version: int, tmp_path: Path) -> None:
    place = made_by(version, tmp_path / "l.db")
    asked = {name: request(name) for name in ("answered", "unpriced", "failed", "in flight")}
    async with open_ledger(place) as ledger:
        found = await ledger.find([one.key for one in asked.values()])
        assert found == {asked["answered"].key: ANSWER, asked["unpriced"].key: ANSWER}
        assert await ledger.costs([asked["answered"].key]) == {asked["answered"].key: 0.25}
        (bill,) = await ledger.bill(())
        assert bill == BillLine(
            of={},
            calls=2,
            failed=1,
            lost=1,
            tokens_in=14,
            tokens_out=4,
            tokens_cached=0,
            cost_usd=0.25,
            unpriced=1,
        )
        assert await ledger.intend(asked["in flight"])
        assert not await ledger.intend(asked["answered"])
    async with open_ledger(tmp_path / "new.db"):
        pass
    assert schema(place) == schema(tmp_path / "new.db")


async def test_reading_does_not_bring_an_older_ledger_up_to_date(tmp_path: Path) -> None:
    place = made_by(1, tmp_path / "l.db")
    with pytest.raises(LedgerError, match="written by an older Preceptor"), reading(str(place)):
        pass
    async with open_ledger(place):
        pass
    with reading(str(place)) as connection, pytest.raises(Exception, match="readonly"):
        connection.exec_driver_sql("DELETE FROM calls")


async def test_processes_that_meet_on_a_new_or_an_old_ledger_make_its_tables_once(tmp_path: Path) -> None:
    program = f"""
import asyncio, sys
sys.path.insert(0, {str(ROOT)!r})
from preceptor.judge.ledger.ledger import open_ledger
async def main():
    for place in ("new.db", "old.db"):
        async with open_ledger(place):
            pass
asyncio.run(main())
"""
    made_by(1, tmp_path / "old.db")
    running = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, cwd=tmp_path, stderr=subprocess.PIPE
        )
        for _ in range(4)
    ]
    said = [(await process.communicate())[1] for process in running]
    assert [process.returncode for process in running] == [0] * 4, said
    for name in ("new.db", "old.db"):
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            assert connection.execute("SELECT version FROM ledger_version").fetchall() == [(len(STEPS),)]
