"""The ledger: what is written stays, what is not an answer is not found, and a bad file says so."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from preceptor.judge.errors import LedgerError
from preceptor.judge.ledger.ledger import open_ledger
from preceptor.judge.ledger.location import BUSY_S, reading
from preceptor.judge.ledger.queries import Wanted, bill, count
from preceptor.judge.ledger.schema import STEPS
from preceptor.judge.models.protocol import Completion, Request
from preceptor.prompts.records import Message

ROOT = Path(__file__).parents[3]
ANSWER = Completion(
    text="yes", finish_reason="stop", probabilities={"a": 0.25, "b": 0.75}, tokens_in=7, tokens_out=2
)


def request(text: str = "hello", **fields: object) -> Request:
    messages = (Message(role="user", content=text),)
    return Request.model_validate({"model": "openai/m", "messages": messages, "max_tokens": 8, **fields})


async def test_an_answer_is_found_again_by_another_process_life(tmp_path: Path) -> None:
    place = tmp_path / "made" / "for" / "it" / "ledger.db"
    async with open_ledger(place) as ledger:
        await ledger.intend(request())
        await ledger.answer(request(), ANSWER, 0.01)
    async with open_ledger(f"sqlite:///{place}") as ledger:
        assert await ledger.find([request().key, request("other").key]) == {request().key: ANSWER}


async def test_an_intent_or_a_failure_is_no_answer(place: str) -> None:
    async with open_ledger(place) as ledger:
        await ledger.intend(request("a"))
        await ledger.intend(request("b"))
        await ledger.fail(request("b"), "said")
        assert await ledger.find([request("a").key, request("b").key]) == {}


async def test_an_answer_is_never_taken_back(place: str) -> None:
    """Neither by a later intent nor by a failure, as when two processes ask the same."""
    async with open_ledger(place) as ledger:
        await ledger.intend(request())
        await ledger.answer(request(), ANSWER, None)
        await ledger.intend(request())
        await ledger.fail(request(), "said")
        assert await ledger.find([request().key]) == {request().key: ANSWER}


async def test_stage_and_principle_are_not_part_of_the_question(place: str) -> None:
    async with open_ledger(place) as ledger:
        await ledger.intend(request(stage="label", principle="p"))
        await ledger.answer(request(stage="label"), ANSWER, 0.0)
        assert await ledger.find([request(stage="audit").key])
        assert not await ledger.find([request(sample=1).key])


async def test_more_keys_than_one_look_up_takes(place: str) -> None:
    asked = [request(str(number)) for number in range(1203)]
    async with open_ledger(place) as ledger:
        await asyncio.gather(*(ledger.intend(one) for one in asked))
        await asyncio.gather(*(ledger.answer(one, ANSWER, 0.5) for one in asked[1:]))
        assert set(await ledger.find([one.key for one in asked])) == {one.key for one in asked[1:]}


async def test_the_bill_adds_up_by_model_and_stage(place: str) -> None:
    async with open_ledger(place) as ledger:
        for number, cost in enumerate((0.5, 0.25, None)):
            await ledger.intend(request(str(number), stage="label"))
            await ledger.answer(request(str(number), stage="label"), ANSWER, cost)
        await ledger.intend(request("x", stage="revise"))
        await ledger.fail(request("x", stage="revise"), "said")
    with reading(place) as connection:
        label, revise = bill(connection)
    assert label == ({"model": "openai/m", "stage": "label"}, 3, 0, 0, 21, 6, 0, 0.75, 1, 0)
    assert revise == ({"model": "openai/m", "stage": "revise"}, 0, 1, 0, 0, 0, 0, 0, 0, 0)


async def test_a_killed_process_loses_nothing_that_was_acknowledged(place: str) -> None:
    """SIGKILL right after the answer was awaited and another intent was: the one is there, the other asks
    again."""
    program = f"""
import asyncio, os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from preceptor.judge.ledger.ledger import open_ledger
from preceptor.judge.ledger.queries import Wanted, bill, count
from preceptor.judge.ledger.location import BUSY_S, reading
from tests.judge.ledger.test_ledger import ANSWER, request
async def main():
    async with open_ledger({place!r}) as ledger:
        await ledger.intend(request("a"))
        await ledger.answer(request("a"), ANSWER, 0.5)
        await ledger.intend(request("b"))
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    ran = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], capture_output=True)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    async with open_ledger(place) as ledger:
        assert await ledger.find([request("a").key, request("b").key]) == {request("a").key: ANSWER}
        await ledger.intend(request("b"))
    with reading(place) as connection:
        assert count(connection, Wanted()) == {"answered": 1, "lost": 1}
        assert bill(connection, ())[0].lost == 2


async def test_a_reader_waits_for_no_writer(tmp_path: Path) -> None:
    """However long another process holds the write lock."""
    place = tmp_path / "l.db"
    async with open_ledger(place) as ledger:
        await ledger.intend(request())
        await ledger.answer(request(), ANSWER, 0.5)
        with closing(sqlite3.connect(place, isolation_level=None)) as writer:
            writer.execute("BEGIN IMMEDIATE")
            writer.execute("DELETE FROM calls")
            async with asyncio.timeout(BUSY_S / 2):
                assert await ledger.find([request().key]) == {request().key: ANSWER}
                assert await ledger.costs([request().key]) == {request().key: 0.5}
                assert (await ledger.bill())[0].calls == 1
            writer.execute("ROLLBACK")


async def test_an_asker_that_is_cancelled_leaves_a_whole_ledger(place: str) -> None:
    async with open_ledger(place) as ledger:
        task = asyncio.create_task(ledger.intend(request()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await ledger.answer(request(), ANSWER, 0.0)
        assert await ledger.find([request().key]) == {request().key: ANSWER}


def _rows(place: Path, query: str) -> list[tuple[str, int]]:
    connection = sqlite3.connect(place)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


async def _refused(place: str | Path) -> str:
    with pytest.raises(LedgerError) as caught:
        async with open_ledger(place) as ledger:
            await ledger.intend(request())
    return str(caught.value)


async def test_places_that_cannot_be_a_ledger(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but long enough to be taken for one at first sight" * 20)
    assert "file is not a database" in await _refused(text)
    assert "folder cannot be made" in await _refused(text / "l.db")
    assert "is a folder; wanted the name of a file" in await _refused(tmp_path)
    assert text.read_text().startswith("not a database"), "it was overwritten"
    said = await _refused("mysql://me:secret@host/db")
    assert "SQLite or PostgreSQL" in said
    assert "secret" not in said
    assert "in memory would be lost" in await _refused("sqlite://")


async def test_a_read_only_ledger_says_so(tmp_path: Path) -> None:
    async with open_ledger(tmp_path / "l.db") as ledger:
        await ledger.intend(request())
    assert "read-only" in await _refused(f"sqlite:///file:{tmp_path}/l.db?mode=ro&uri=true")


async def test_a_newer_or_foreign_database_is_left_alone(tmp_path: Path) -> None:
    async with open_ledger(tmp_path / "new.db"):
        pass
    with sqlite3.connect(tmp_path / "new.db") as connection:
        connection.execute("update ledger_version set version = ?", (len(STEPS) + 1,))
    connection.close()
    assert "newer Preceptor" in await _refused(tmp_path / "new.db")
    with sqlite3.connect(tmp_path / "else.db") as connection:
        connection.execute("create table recipes (name text)")
    connection.close()
    assert "something else" in await _refused(tmp_path / "else.db")
    assert _rows(tmp_path / "else.db", "select name, 1 from sqlite_master where type = 'table'") == [
        ("recipes", 1)
    ]
