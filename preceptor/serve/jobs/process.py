"""A command of ours in a process of its own, which ends with this one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from preceptor.doctor import HOME
from preceptor.judge.ledger.ledger import RUN_VARIABLE


def start(
    words: Sequence[str],
    folder: Path,
    out: IO[Any],
    err: IO[Any],
    ledger: str,
    *,
    run: str = "",
    keep: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """`preceptor WORDS` in a folder. run: names its calls on the bill. keep: descriptors that the process holds as long
    as it lives."""
    there = os.environ.get("PYTHONPATH")
    environment = {
        **os.environ,
        "PRECEPTOR_LEDGER": ledger,
        RUN_VARIABLE: run,
        "PYTHONPATH": os.pathsep.join([str(HOME), *([there] if there else [])]),
        "PYTHONSAFEPATH": "1",  # what lies in the job's folder is no code
    }
    return subprocess.Popen(
        [sys.executable, "-m", "preceptor.serve.jobs.child", *words],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=out,
        stderr=err,
        pass_fds=tuple(keep),
        start_new_session=True,  # a Ctrl-C is the server's to hear, and to pass on
    )


@contextmanager
def alone(folder: Path) -> Iterator[int | None]:
    """A lock on a job's folder that its process inherits: None while one of a worker that is gone still ends."""
    import fcntl

    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield handle
    finally:
        with suppress(OSError):
            os.close(handle)
