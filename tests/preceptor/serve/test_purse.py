"""What others spend under the same caps is seen while the server runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

from preceptor.judge.ledger.ledger import Ledger, open_ledger
from preceptor.judge.models.protocol import Completion, Request
from preceptor.prompts.records import Message
from preceptor.serve import desk
from preceptor.serve.auth import Caller
from preceptor.serve.desk import Purse
from preceptor.serve.jobs.store import JobStore, Work
from preceptor.serve.keys import Keyring
from preceptor.serve.problems import Problem


class Till(NamedTuple):
    """A server's purse, and what another process does beside it."""

    purse: Purse
    key: str
    keys: Keyring
    others: Keyring
    database: str
    folder: Path
    ledger: Ledger


@pytest.fixture
async def till(tmp_path: Path) -> AsyncIterator[Till]:
    database = f"sqlite:///{tmp_path / 'here.db'}"
    keys, others = Keyring(database), Keyring(database)
    key = keys.create("mine", ["judge"], budget_usd=1.0)[0]
    token = desk._payer.set(Caller(key.id, key.scopes, key.budget_usd, 0.0))
    async with open_ledger(database) as ledger:
        purse = Purse(keys, 2.0, database, ledger.run, fresh_s=0.0)
        yield Till(purse, key.id, keys, others, database, tmp_path, ledger)
        await purse.close()
    desk._payer.reset(token)
    keys.close()
    others.close()


async def pay(ledger: Ledger, run: str, words: str, usd: float) -> None:
    """A call of a run's that has cost so much."""
    ledger.run = run
    request = Request(
        model="a/b", messages=(Message(role="user", content=words),), max_tokens=1, stage="label"
    )
    await ledger.intend(request)
    await ledger.answer(request, Completion(text="yes", tokens_in=1, tokens_out=1, finish_reason="stop"), usd)


async def test_what_others_spent_with_a_key_is_seen(till: Till) -> None:
    await till.purse.reserve(0.6)
    till.purse.settle(0.6, 0.5)
    await till.purse.close()
    assert till.keys.spent_elsewhere(till.key) == pytest.approx(0.0)
    assert await till.purse.try_reserve(0.4)  # its own half is counted once
    till.purse.settle(0.4, 0.0)
    till.others.spend(till.key, 0.3)
    assert not await till.purse.try_reserve(0.4)
    with pytest.raises(Problem, match="the budget of this key"):
        await till.purse.reserve(0.4)
    assert await till.purse.try_reserve(0.2)
    till.purse.settle(0.2, 0.0)


async def test_a_job_that_still_runs_counts(till: Till) -> None:
    store = JobStore(till.database, till.folder / "data")
    job = store.add_job(till.key, "job", "label", {}, Work((), {}, {}, ""), "job-1")
    await pay(till.ledger, "job-1", "of the job", 0.7)
    assert not await till.purse.try_reserve(0.4)
    assert store.claim("me") is not None
    store.stop(job, "me", "cancelled")  # by then it stands with the key
    assert not await till.purse.try_reserve(0.4)
    assert await till.purse.try_reserve(0.3)
    till.purse.settle(0.3, 0.0)
    store.close()


async def test_what_others_put_on_the_bill_is_under_the_cap_of_all(till: Till) -> None:
    own = till.ledger.run
    await pay(till.ledger, own, "of this server", 1.7)  # which is settled, not read
    assert await till.purse.try_reserve(0.9)
    till.purse.settle(0.9, 0.0)
    await pay(till.ledger, "another server", "of another", 1.2)
    assert not await till.purse.try_reserve(0.9)
    with pytest.raises(Problem, match="the server's budget"):
        await till.purse.reserve(0.9)
    assert await till.purse.try_reserve(0.7)
    till.purse.settle(0.7, 0.0)
    till.purse.cap(3.0)
    assert await till.purse.try_reserve(0.9)
    till.purse.settle(0.9, 0.0)
