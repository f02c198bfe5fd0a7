"""How a command is told to stop: by Ctrl-C, and by SIGTERM wherever it was started."""

from __future__ import annotations

import signal
from types import FrameType


def hear_stops() -> None:
    """Have SIGTERM stop this process as Ctrl-C does, so that a scheduler's stop is as resumable.

    A shell starts the background jobs of a script with SIGINT ignored, so that the Ctrl-C of whoever watches the script
    does not reach them. That is kept: SIGINT is blocked instead of ignored. Nobody's handler for it would be installed
    otherwise, neither Python's nor that of an event loop, which lets what is in flight finish.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN and hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _as_interrupt)


def for_children() -> signal.Signals:
    """What stops a process that this one has started: it has inherited which signals are blocked."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ()) if hasattr(signal, "pthread_sigmask") else ()
    return signal.SIGTERM if signal.SIGINT in blocked else signal.SIGINT


def _as_interrupt(_signal: int, frame: FrameType | None) -> None:
    # whoever handles Ctrl-C now: Python, or an event loop that lets what is in flight finish
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        raise KeyboardInterrupt
    handler(signal.SIGINT, frame)
