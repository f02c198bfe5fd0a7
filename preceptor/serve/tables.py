"""The service's own tables beside the ledger's, in the ledger's database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import sqlalchemy as sql
from sqlalchemy.engine import Connection

from preceptor.judge.ledger.location import ledger_error, open_engines

ResultT = TypeVar("ResultT")
_MAKING = 5_246_731_912
"""PostgreSQL's advisory lock, so that two processes do not make tables at once."""


class ServiceTables:
    """Some tables in one database; any thread may use them."""

    def __init__(self, database: str, metadata: sql.MetaData) -> None:
        """Makes the tables where there are none. Raises LedgerError, as all of this does where the database fails."""
        self._engines = open_engines(database)
        self._writing = threading.Lock()
        self._reading = threading.Lock()
        self.on_server = self._engines.place.path is None
        """Whether other machines may use the database too."""

        def make(connection: Connection) -> None:
            if self.on_server:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MAKING})")
            metadata.create_all(connection)

        self.write(make)

    def write(self, work: Callable[[Connection], ResultT]) -> ResultT:
        """What `work` returns, committed; where it raises, nothing of it is done."""
        try:
            with self._writing, self._engines.writer.begin() as connection:
                return work(connection)
        except sql.exc.SQLAlchemyError as error:
            raise ledger_error(self._engines.place, error) from error

    def read(self, work: Callable[[Connection], ResultT]) -> ResultT:
        """What `work` finds; it waits for no writer."""
        try:
            with self._reading, self._engines.reader.begin() as connection:
                return work(connection)
        except sql.exc.SQLAlchemyError as error:
            raise ledger_error(self._engines.place, error) from error

    def rows(self, wanted: Any) -> Sequence[Any]:
        """What a SELECT finds."""
        return self.read(lambda connection: connection.execute(wanted).all())

    def close(self) -> None:
        """Let go of the database."""
        self._engines.writer.dispose()
        self._engines.reader.dispose()
