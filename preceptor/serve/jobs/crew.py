"""The jobs of a server, and the worker that it keeps going where the database is a file of its own."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from preceptor.judge.ledger.location import location_of
from preceptor.serve.config import ServeConfig
from preceptor.serve.jobs import process, worker
from preceptor.serve.jobs.store import JobStore

LOOK_S = 1.0
"""How often the server looks whether its worker lives."""
GOODBYE_S = 30.0
"""How long a worker may take to hand its job back."""


class Crew:
    """The store of jobs, and a worker process that starts with the first job."""

    def __init__(self, config: ServeConfig) -> None:
        """Raises LedgerError where the database cannot be used."""
        self.config = config
        self.store = JobStore(config.database, Path(config.folder).absolute())
        self._own = location_of(config.database).path is not None
        """With PostgreSQL, workers are started where there is room: by `preceptor work`."""
        self._lock = threading.Lock()
        self._running: subprocess.Popen[bytes] | None = None

    def wake(self) -> None:
        """See that there is a worker, if jobs wait for one and it is for this server to start it."""
        with self._lock:
            alive = self._running is not None and self._running.poll() is None
            if self._own and not alive and self.store.any_open():
                words = ("work", f"--database={worker.ledger_of(self.store)}", f"--data={self.store.data}")
                self._running = process.start(
                    words, self.store.data, sys.stderr, sys.stderr, worker.ledger_of(self.store)
                )

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """While the server runs: a worker that dies is followed by another; at the end it hands back what it does."""
        looking = asyncio.create_task(self._look())
        try:
            yield
        finally:
            looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await looking
            await asyncio.to_thread(self.close)

    async def _look(self) -> None:
        while True:
            await asyncio.to_thread(self.wake)
            await asyncio.sleep(LOOK_S)

    def close(self) -> None:
        """Have the worker hand back what it does, and let go of the database."""
        with self._lock:
            if (running := self._running) is not None and running.poll() is None:
                running.terminate()
                try:
                    running.wait(GOODBYE_S)
                except subprocess.TimeoutExpired:
                    running.kill()
                    running.wait()
            self._own = False
        self.store.close()
