"""What is PostgreSQL's own: addresses, a missing driver, tables beside ours, processes that meet. All that is common
to both databases is tested on both where it is tested."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from preceptor.judge.errors import LedgerError
from preceptor.judge.ledger.ledger import open_ledger
from preceptor.judge.ledger.location import location_of, reading
from preceptor.judge.ledger.schema import STEPS
from tests.judge.ledger.test_ledger import ANSWER, request

ROOT = Path(__file__).parents[2]
PROGRAM = f"""
import asyncio, random, sys
sys.path.insert(0, {str(ROOT)!r})
from preceptor.judge.ledger.ledger import open_ledger
from tests.judge.ledger.test_ledger import ANSWER, request
async def main():
    asked = [request(str(number)) for number in range(300)]
    random.Random(int(sys.argv[2])).shuffle(asked)
    async with open_ledger(sys.argv[1]) as ledger:
        async def ask(one):
            while not await ledger.find([one.key]):
                if await ledger.intend(one):
                    await ledger.answer(one, ANSWER, 0.5)
                    return 1
                await asyncio.sleep(0.02)
            return 0
        print(sum(await asyncio.gather(*map(ask, asked))))
asyncio.run(main())
"""


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:secret@host/db",
        "postgres://me:secret@host/db",
        "postgresql://me@host/db?password=secret",
    ],
)
def test_a_password_is_never_shown(url: str) -> None:
    place = location_of(url)
    assert "secret" not in place.shown
    assert place.shown.endswith("@host/db")
    assert "secret" in place.url.render_as_string(hide_password=False)


async def test_a_server_that_is_not_there_is_an_error_without_the_password() -> None:
    with pytest.raises(LedgerError, match="see that the server runs") as caught:
        async with open_ledger("postgresql://me:secret@127.0.0.1:1/db"):
            pass
    assert "secret" not in str(caught.value)
    with pytest.raises(LedgerError, match="no database URL") as caught:
        async with open_ledger("postgresql://me:secret@host:port/db"):
            pass
    assert "secret" not in str(caught.value)


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with (
        pytest.raises(LedgerError, match=r"pip install 'preceptor\[postgres\]'"),
        reading("postgresql://host/db"),
    ):
        pass


async def test_tables_of_others_are_left_alone_and_a_newer_ledger_is_refused(postgres_place: str) -> None:
    import psycopg

    with psycopg.connect(postgres_place) as connection:
        connection.execute("CREATE TABLE recipes (name text)")
    async with open_ledger(postgres_place) as ledger:
        assert await ledger.intend(request())
    with psycopg.connect(postgres_place) as connection:
        connection.execute("UPDATE ledger_version SET version = %s", (len(STEPS) + 1,))
    with pytest.raises(LedgerError, match="newer Preceptor"):
        async with open_ledger(postgres_place):
            pass


async def test_a_database_with_calls_of_its_own_is_refused(postgres_place: str) -> None:
    import psycopg

    with psycopg.connect(postgres_place) as connection:
        connection.execute("CREATE TABLE calls (caller text)")
    with pytest.raises(LedgerError, match="something else"):
        async with open_ledger(postgres_place):
            pass


async def test_processes_that_meet_make_the_tables_once_and_share_the_calls(place: str) -> None:
    """Crosswise, each in an order of its own: on both databases, so that deadlocks would show."""
    running = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, place, str(number), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for number in range(3)
    ]
    said = [await process.communicate() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], said
    assert sum(int(out) for out, _ in said) == 300
    async with open_ledger(place) as ledger:
        (bill,) = await ledger.bill(())
    assert (bill.calls, bill.lost) == (300, 0)


async def test_a_connection_that_is_lost_is_made_again(postgres_place: str) -> None:
    """As when the server is started anew, or a proxy closes what was idle."""
    import psycopg

    async with open_ledger(postgres_place) as ledger:
        assert await ledger.intend(request("a"))
        with psycopg.connect(postgres_place, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        await ledger.answer(request("a"), ANSWER, 0.5)
        assert await ledger.find([request("a").key]) == {request("a").key: ANSWER}
