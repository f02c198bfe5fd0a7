"""The same asked once more, past the ledger: which look at a judge is the next one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import sqlalchemy as sql
from sqlalchemy.engine import Connection

from preceptor.judge.ledger.ledger import Ledger
from preceptor.judge.models.protocol import Dialogue, Failure, Outcome

LookDialogues = Callable[[int], Iterable[Dialogue[Any]]]
"""The number of a look -> what it asks, from its beginning."""

_ENDED = sql.text("SELECT key FROM calls WHERE status IN ('answered', 'failed') AND key IN :keys").bindparams(
    sql.bindparam("keys", expanding=True)
)


async def next_look(ledger: Ledger, dialogues: LookDialogues) -> int:
    """The number of the next look, from 1: the one after the last that came to its end.

    A look that was interrupted is gone on with, so that nothing is paid for twice. An ask without an answer has come
    to its end as well.
    """
    number = 1
    while await _begun(ledger, dialogues(number + 1)):
        number += 1
    return number + 1 if await _whole(ledger, dialogues(number)) else number


async def _begun(ledger: Ledger, dialogues: Iterable[Dialogue[Any]]) -> bool:
    """Whether the first row that asks anything came to its end; a look asks its rows in their order."""
    for dialogue in dialogues:
        ended = await _ended(ledger, dialogue)
        if ended is not None:
            return ended
    return False


async def _whole(ledger: Ledger, dialogues: Iterable[Dialogue[Any]]) -> bool:
    for dialogue in dialogues:
        if await _ended(ledger, dialogue) is False:
            return False
    return True


async def _ended(ledger: Ledger, dialogue: Dialogue[Any]) -> bool | None:
    """Whether everything that the dialogue asks came to its end; None: it asks nothing."""
    asked: bool | None = None
    outcomes: list[Outcome] | None = None
    while True:
        try:
            requests = next(dialogue) if outcomes is None else dialogue.send(outcomes)
        except StopIteration:
            return asked
        keys = [request.key for request in requests]
        if not keys:
            outcomes = []
            continue
        if set(keys) - await ledger.read(lambda connection, keys=keys: _keys(connection, keys)):  # type: ignore[misc]
            return False
        answers = await ledger.find(keys)
        outcomes = [answers.get(key) or Failure(kind="failed", problem="no answer") for key in keys]
        asked = True


def _keys(connection: Connection, keys: list[str]) -> set[str]:
    return {str(key) for (key,) in connection.execute(_ENDED, {"keys": keys})}
