"""The book of batches, where two processes write about one batch."""

from __future__ import annotations

from functools import partial

from preceptor.judge.ledger import batches as books
from preceptor.judge.ledger.ledger import Ledger, open_ledger
from preceptor.judge.models.protocol import Request
from preceptor.prompts.records import Message

REQUEST = Request(model="m", messages=(Message(role="user", content="q"),), max_tokens=5)


def batch(token: str) -> books.BatchRecord:
    return books.BatchRecord(
        token=token,
        model="m",
        endpoint="",
        run="run",
        owner="host:1:0:a",
        state="intended",
        remote=None,
        requests=1,
        worst_usd=0.5,
        intended_at=1000.0,
    )


async def intend(ledger: Ledger, token: str) -> frozenset[str]:
    made = batch(token)
    return await ledger.write(
        partial(books.intend, batch=made, asked=[REQUEST], worst_usd={REQUEST.key: 0.5})
    )


async def test_a_batch_that_one_process_found_is_not_given_up_by_another(place: str) -> None:
    """Both look for the batch of one that was killed; its calls would be paid for twice."""
    async with open_ledger(place) as ledger:
        assert await intend(ledger, "first") == {REQUEST.key}
        await ledger.write(partial(books.sent, token="first", remote="batch_0", now_s=1001.0))
        await ledger.write(partial(books.unsent, token="first", problem="not listed", now_s=1002.0))
        (found,) = await ledger.read(books.listed)
        assert (found.state, found.remote) == ("sent", "batch_0")
        assert await intend(ledger, "second") == frozenset()


async def test_the_calls_of_a_batch_that_never_arrived_can_be_asked_again(place: str) -> None:
    async with open_ledger(place) as ledger:
        await intend(ledger, "first")
        await ledger.write(partial(books.unsent, token="first", problem="not listed", now_s=1002.0))
        assert await intend(ledger, "second") == {REQUEST.key}
