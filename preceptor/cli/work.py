"""`preceptor work`: carry out the jobs of a server."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from preceptor.cli import console


def work(
    database: Annotated[
        str,
        typer.Option("--database", metavar="TEXT", help="The server's: an SQLite file or a PostgreSQL URL."),
    ],
    data: Annotated[
        Path,
        typer.Option(
            "--data", metavar="PATH", help="The server's `folder`, which servers and workers share."
        ),
    ],
    until_idle: Annotated[
        bool, typer.Option("--until-idle", metavar="", help="End where no job waits, and wait for none.")
    ] = False,
) -> None:
    """Carry out the jobs of `preceptor serve`, one after the other, each in a process of its own.

    Any number of workers may share a PostgreSQL database. What stops a worker stops its job after what is in flight,
    and another goes on with it.
    """
    from preceptor.serve.jobs.store import JobStore
    from preceptor.serve.jobs.worker import work as carry_out

    stop = threading.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: stop.set())
    store = JobStore(database, data.absolute())
    try:
        done = carry_out(store, stop, until_idle=until_idle)
    finally:
        store.close()
    console.say(f"{done} jobs taken")
