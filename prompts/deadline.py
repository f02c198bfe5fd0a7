"""A time limit for somebody else's program that runs in this process, as a template is."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import TypeVar

MadeT = TypeVar("MadeT")


class _Expired(BaseException):
    """Raised in the thread whose time is over. No Exception: what runs there could catch it and go on."""


def within(limit_s: float, make: Callable[[], MadeT]) -> MadeT:
    """What `make` returns. Raises TimeoutError where it takes longer than so many seconds.

    It works in every thread, and stops loops and recursions in Python; one long operation of a C library goes on to
    its end first.
    """
    thread = threading.get_ident()
    lock = threading.Lock()
    ended = expired = False

    def expire() -> None:
        nonlocal expired
        with lock:
            if not ended:
                expired = True
                _interrupt(thread, _Expired)

    timer = threading.Timer(limit_s, expire)
    timer.daemon = True
    try:
        try:
            timer.start()  # a short limit may end before this does
            made = make()
        finally:
            with lock:
                ended = True
            timer.cancel()
        if expired:  # too late to be raised within
            raise _Expired
    except _Expired:
        _interrupt(thread, None)  # what is not raised yet would be raised in whoever called
        raise TimeoutError(f"it takes longer than {limit_s:g} s") from None
    return made


def _interrupt(thread: int, kind: type[BaseException] | None) -> None:
    """Have an exception raised in a thread at its next step; None: take back one that is not raised yet."""
    exception = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), exception)
