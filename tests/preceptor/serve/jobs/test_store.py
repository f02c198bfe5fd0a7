"""Leases, keys of creations and owners in the table of jobs, without a server and by a clock of the test's."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from preceptor.judge.clock import SystemClock
from preceptor.judge.ledger.ledger import LEASE_S
from preceptor.judge.ledger.owner import new_owner
from preceptor.serve.jobs.store import (
    KEPT_S,
    BodyChanged,
    CreationRuns,
    JobRecord,
    JobStore,
    Work,
    WrongStatus,
)
from preceptor.serve.jobs.worker import under_cap
from preceptor.serve.keys import Keyring

NOTHING = Work(("label", "pairs.jsonl"), {}, {}, "labels")


class Hands(SystemClock):
    """A clock that the test turns."""

    now_s = 1e9

    def time(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
def store(clock: Hands) -> Iterator[JobStore]:
    made = JobStore("jobs.db", Path("data"), clock)
    yield made
    made.close()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def either(request: pytest.FixtureRequest, clock: Hands) -> Iterator[JobStore]:
    """On both databases; PostgreSQL goes by its own clock."""
    place = "jobs.db" if request.param == "sqlite" else request.getfixturevalue("postgres_place")
    made = JobStore(place, Path("data"), clock)
    yield made
    made.close()


def job(store: JobStore, owner: str = "me") -> JobRecord:
    with store.creation(owner, None, {}) as creation:
        return creation.make("job", "label", {}, NOTHING, "job-")


def test_a_job_is_one_workers_until_its_lease_has_run_out(store: JobStore, clock: Hands) -> None:
    made, one, other = job(store), new_owner(), new_owner()
    claimed = store.claim(one)
    assert claimed is not None
    assert (claimed.id, claimed.status) == (made.id, "running")
    clock.now_s += LEASE_S / 2
    assert store.claim(other) is None
    assert store.renew(made.id, one) == ""
    clock.now_s += LEASE_S - 1
    assert store.claim(other) is None
    clock.now_s += 2
    taken = store.claim(other)
    assert taken is not None
    assert taken.id == made.id
    assert store.renew(made.id, one) is None
    store.finish(made, one, 0, None, {}, {})
    store.give_back(made.id, one)
    store.stop(made, one, "cancelled")
    found = store.job(made.id)
    assert found is not None
    assert (found.status, found.worker) == ("running", other)


def test_the_job_of_a_worker_that_has_ended_is_taken_over_at_once(either: JobStore) -> None:
    made = job(either)
    code = "from preceptor.judge.ledger.owner import new_owner; print(new_owner())"
    gone = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert either.claim(gone) is not None
    taken = either.claim(new_owner())
    assert taken is not None
    assert taken.id == made.id
    assert "its worker is gone" in either.events(made.id)[-1].message


def test_the_oldest_job_comes_first(either: JobStore) -> None:
    made = [job(either) for _ in range(3)]
    either.pause(made[0].id)
    claimed = [either.claim(new_owner()) for _ in range(3)]
    assert [one.id if one else None for one in claimed] == [made[1].id, made[2].id, None]
    either.resume(made[0].id)
    assert either.claim(new_owner()) is not None


def test_a_key_creates_once(store: JobStore, clock: Hands) -> None:
    with store.creation("me", "k", {"a": 1}) as creation:
        with pytest.raises(CreationRuns), store.creation("me", "k", {"a": 1}):
            pass
        with pytest.raises(BodyChanged), store.creation("me", "k", {"a": 2}):
            pass
        made = creation.make("job", "label", {}, NOTHING, "job-")
    with store.creation("me", "k", {"a": 1}) as again:
        assert again.made is not None
        assert again.made.id == made.id
    with store.creation("another", "k", {"a": 2}) as others:
        assert others.made is None
    clock.now_s += KEPT_S + 1
    with store.creation("me", "k", {"a": 2}) as later:
        assert later.made is None


def test_a_creation_that_failed_leaves_its_key_free(either: JobStore) -> None:
    with pytest.raises(ZeroDivisionError), either.creation("me", "k", {}):
        raise ZeroDivisionError
    with either.creation("me", "k", {"other": 1}) as creation:
        assert creation.made is None


def test_files_and_jobs_are_their_owners(either: JobStore) -> None:
    made = job(either)
    file = either.add_file("me", "user_data", "x", iter([b"a", b"b"]))
    assert either.path_of(file).read_bytes() == b"ab"
    assert either.file(file.id, "you") is None
    assert either.job(made.id, "you") is None
    assert either.jobs("you", "job", 10) == either.files("you") == []
    assert [one.id for one in either.jobs("me", "job", 10)] == [made.id]
    assert either.jobs(None, "tuning", 10) == []


def test_what_has_ended_stays_so(either: JobStore) -> None:
    made = job(either)
    worker = new_owner()
    claimed = either.claim(worker)
    assert claimed is not None
    either.finish(claimed, worker, 3, "budget_exceeded: the cap", None, {})
    either.cancel(made.id)
    with pytest.raises(WrongStatus):
        either.pause(made.id)
    found = either.job(made.id)
    assert found is not None
    assert (found.status, found.exit_code) == ("failed", 3)
    either.resume(made.id)
    again = either.claim(worker)
    assert again is not None
    assert (again.status, again.problem, again.exit_code) == ("running", None, None)


def test_an_upload_that_breaks_off_leaves_nothing(store: JobStore) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        store.add_file("me", "user_data", "x", broken())
    assert store.files(None) == []
    assert list((store.data / "files").iterdir()) == []


def charge(store: JobStore, run: str, usd: float) -> None:
    with closing(sqlite3.connect(store.database)) as connection, connection:
        connection.execute(
            "INSERT INTO charges (key, run, model, stage, principle, outcome, ended_at, tokens_in, tokens_out, "
            "tokens_cached, cost_usd) VALUES ('k', ?, 'm', 's', '', 'answered', 0, 1, 1, 0, ?)",
            (run, usd),
        )


def test_a_job_goes_on_under_what_is_left_and_its_key_pays_once(store: JobStore) -> None:
    """Its cap holds for all of its processes together, and what they have cost stands with the key, whatever ended
    them."""
    keys = Keyring(store.database)
    mine, _ = keys.create("mine", ["jobs:write"], budget_usd=1.5)
    capped = NOTHING._replace(words=("label", "pairs.jsonl", "--max-cost=1.0", "--out=labels"))
    with store.creation(mine.id, None, {}) as creation:
        made = creation.make("job", "label", {"max_cost_usd": 1.0}, capped, "job-")

    def words() -> tuple[str, ...]:
        found = store.job(made.id)
        assert found is not None
        return under_cap(store, found)

    assert words() == capped.words
    for worker, usd, left, spent in (("a:1:1:a", 0.25, 0.75, 0.25), ("b:1:1:b", 0.5, 0.25, 0.75)):
        assert store.claim(worker) is not None
        charge(store, made.id, usd)
        charge(store, "another run", 9.0)
        store.give_back(made.id, worker)
        assert words()[2] == f"--max-cost={left}"
        assert keys.all()[mine.id].spent_usd == spent
    keys.spend(mine.id, 0.65)
    assert float(words()[2].removeprefix("--max-cost=")) == pytest.approx(0.1)
    keys.close()
