"""The calls of a ledger as they stand in it, read without writing a byte: for whoever proves what was made of them."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import sqlalchemy as sql
from sqlalchemy.engine import Connection

from preceptor.judge.errors import LedgerError
from preceptor.judge.ledger.location import location_of, reading
from preceptor.judge.models.protocol import Completion, Request

COLUMNS = "key, status, request, completion"
MOST_AT_ONCE = 500
"""Keys of one query."""

Fetch = Callable[[str, Sequence[str]], list[Any]]
"""The rest of a statement behind its columns, and the values for its question marks -> rows."""


class RawReply(NamedTuple):
    """What was asked and what came."""

    request: Request
    completion: Completion | None
    """None: there is no answer."""


class RawReplies:
    """What a ledger holds; made by `raw_replies`."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    def of(self, keys: Sequence[str]) -> dict[str, RawReply]:
        """The calls with these keys that are there.

        Raises LedgerError for one whose request is not what its key says, or that cannot be read.
        """
        return {str(row[0]): _reply(*row) for row in self._of_keys(f"{COLUMNS} FROM calls", keys)}

    def stage(self, name: str) -> dict[str, RawReply]:
        """All answered calls that were made for a stage. Raises LedgerError as `of` does."""
        rows = self._fetch(f"{COLUMNS} FROM calls WHERE status = 'answered' AND stage = ?", [name])
        return {str(row[0]): _reply(*row) for row in rows}

    def spent_usd(self, keys: Sequence[str] | None = None) -> float:
        """What is on the bill, of these calls or of all."""
        if keys is None:
            return float(self._fetch("COALESCE(SUM(cost_usd), 0.0) FROM charges", [])[0][0])
        parts = self._of_keys("COALESCE(SUM(cost_usd), 0.0) FROM charges", keys)
        return sum((float(row[0]) for row in parts), 0.0)

    def _of_keys(self, rest: str, keys: Sequence[str]) -> Iterator[Any]:
        """The rows of a statement that belong to these keys; a sum comes once for each part of the keys."""
        for start in range(0, len(keys), MOST_AT_ONCE):
            some = keys[start : start + MOST_AT_ONCE]
            yield from self._fetch(f"{rest} WHERE key IN ({', '.join('?' * len(some))})", some)

    def billed_otherwise(self) -> int:
        """Answers whose tokens and cost are on no line of the bill."""
        same = " AND ".join(
            f"charges.{name} IS calls.{name}"
            for name in ("tokens_in", "tokens_out", "tokens_cached", "cost_usd")
        )
        return int(
            self._fetch(
                "COUNT(*) FROM calls WHERE status = 'answered' AND NOT EXISTS (SELECT 1 FROM charges "
                f"WHERE charges.key = calls.key AND charges.outcome = 'answered' AND {same})",
                [],
            )[0][0]
        )


@contextmanager
def raw_replies(place: str) -> Iterator[RawReplies]:
    """The calls of the ledger at a path or URL. Raises LedgerError where there is none, or it cannot be read.

    A file beside which there are writes that are not in it yet is read in a copy: reading it where it lies would write
    beside it.
    """
    path = location_of(place).path
    if path is None:
        with reading(place) as connection:
            yield RawReplies(_of_server(connection))
        return
    if not path.is_file():
        raise LedgerError(f"{place}: there is no ledger here; name one with --ledger")
    with tempfile.TemporaryDirectory(prefix="preceptor-") as copies:
        beside = path.with_name(f"{path.name}-wal")
        options = "mode=ro&immutable=1"
        if beside.is_file() and beside.stat().st_size:
            shutil.copyfile(path, Path(copies, path.name))
            shutil.copyfile(beside, Path(copies, beside.name))
            path, options = Path(copies, path.name), "mode=rw"
        try:
            with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?{options}", uri=True)) as file:
                yield RawReplies(_of_file(file))
        except (sqlite3.Error, UnicodeDecodeError) as exc:
            raise LedgerError(f"{place}: the ledger cannot be read ({exc})") from exc


def _of_file(file: sqlite3.Connection) -> Fetch:
    return lambda rest, values: file.execute(f"SELECT {rest}", list(values)).fetchall()


def _of_server(connection: Connection) -> Fetch:
    def fetch(rest: str, values: Sequence[str]) -> list[Any]:
        named: Mapping[str, str] = {f"value_{at}": value for at, value in enumerate(values)}
        statement = rest.replace(" IS calls.", " IS NOT DISTINCT FROM calls.")
        for name in named:
            statement = statement.replace("?", f":{name}", 1)
        return list(connection.execute(sql.text(f"SELECT {statement}"), named).all())

    return fetch


def _reply(key: str, status: str, request: str, completion: str | None) -> RawReply:
    try:
        asked = Request.model_validate_json(request)
        answered = status == "answered" and completion is not None
        came = Completion.model_validate_json(completion or "") if answered else None
    except ValueError as exc:
        raise LedgerError(f"the call {key} in the ledger cannot be read") from exc
    if asked.key != key:
        raise LedgerError(f"the call {key} in the ledger is not of the request that stands there")
    return RawReply(asked, came)
