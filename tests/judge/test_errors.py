"""One error, many waiters: each is given an exception of its own."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import Connection

from preceptor.constitution.errors import UserError
from preceptor.judge.errors import (
    BudgetReached,
    LedgerError,
    ModelError,
    ProviderStopped,
    Rejected,
    Transient,
    own,
)
from preceptor.judge.ledger.ledger import open_ledger
from preceptor.judge.models.http.faults import Throttled
from preceptor.judge.models.local.microbatch import Microbatcher

ASKERS = 20


class Odd(Exception):
    """Cannot be made of its arguments alone."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


def depth(error: BaseException) -> int:
    return len(list(traceback.walk_tb(error.__traceback__)))


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as exc:
        return exc


@pytest.mark.parametrize(
    "error",
    [
        UserError("u"),
        LedgerError("l"),
        BudgetReached("b"),
        ProviderStopped("p"),
        Rejected("r", refused=True),
        Transient("t", retry_after_s=3.0),
        Throttled("c", retry_after_s=4.0),
        KeyError("k"),
    ],
)
def test_ones_own_is_equal_and_another(error: Exception) -> None:
    made = own(raised(error))
    assert made is not error
    assert (type(made), made.args, vars(made)) == (type(error), error.args, vars(error))
    assert depth(made) == depth(error) > 0, "where it happened is still told"


def test_what_cannot_be_made_again_is_told_in_its_words() -> None:
    assert str(own(Odd("this", "that"))) == "Odd: this and that"


async def gathered(asks: Sequence[Any]) -> list[Any]:
    return await asyncio.gather(*asks, return_exceptions=True)


def require_one_each(errors: Sequence[Any], kind: type[Exception], said: str) -> None:
    assert len({id(error) for error in errors}) == len(errors) == ASKERS
    assert {(type(error), str(error)) for error in errors} == {(kind, said)}
    assert max(map(depth, errors)) < 20, "no traceback holds those of the others"


async def test_askers_of_a_local_model_do_not_share_an_error() -> None:
    def answer(_: Sequence[int]) -> list[int]:
        raise ModelError("out of memory")

    batcher: Microbatcher[int, int] = Microbatcher(lambda items: range(len(items)), answer)
    errors = await gathered([batcher.ask(number) for number in range(ASKERS)])
    await batcher.close()
    require_one_each(errors, ModelError, "out of memory")


async def test_writers_of_a_ledger_do_not_share_an_error(tmp_path: Path) -> None:
    def work(_: Connection) -> None:
        raise LedgerError("the disk is full")

    async with open_ledger(tmp_path / "l.db") as ledger:
        errors = await gathered([ledger.write(work) for _ in range(ASKERS)])
    require_one_each(errors, LedgerError, "the disk is full")
