"""`python -m preceptor.serve.jobs.child WORDS`: the command `preceptor WORDS`, for as long as whoever started it lives.

The pipe on stdin is the other's: when it closes, the command is stopped as by SIGTERM, finishes what is in flight and
can go on from there. So a killed worker leaves no process behind that spends money.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

WORD = "chat-batch"
"""The one thing that a job does and no command: `preceptor.serve.jobs.batch_run`."""
PATIENCE_S = 60.0
"""How long a command may take to stop."""


def main() -> None:
    """Run the command under the watch."""
    pipe = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    threading.Thread(target=_end_with, args=(pipe,), daemon=True).start()
    sys.argv[0] = "preceptor"
    if sys.argv[1] == WORD:
        from preceptor.serve.jobs import batch_run

        batch_run.main()
        return
    runpy.run_module("preceptor", run_name="__main__")


def _end_with(pipe: int) -> None:
    while os.read(pipe, 64):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE_S)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
