"""Time that no test waits for: an event loop whose clock jumps to the next timer and that tells a deadlock, its
time as a fan-out and a ledger are given it, and a clock that a test turns by hand."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from preceptor.judge.clock import SystemClock

Result = TypeVar("Result")
BEGAN_AT = 1_800_000_000.0
"""Seconds since 1970 when the time of a test begins."""


class Deadlock(AssertionError):
    """Every task waits for another one."""


class _Selector(selectors.SelectSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise Deadlock("nothing is ready, no timer is set and no other thread is at work")
        self.now_s += max(0.0, timeout)
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now_s


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """As `asyncio.run`, for what needs no other thread. Raises Deadlock where nothing will ever happen again."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(main)


class LoopClock(SystemClock):
    """The time of the event loop in which it was made; its sleeps and timeouts are asyncio's own."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def time(self) -> float:
        """Seconds since 1970."""
        return BEGAN_AT + self._loop.time()

    def monotonic(self) -> float:
        """The loop's own."""
        return self._loop.time()


class TurnedClock(SystemClock):
    """Stands still until the test turns it, or until somebody sleeps by it: that takes no time."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.waits: list[float] = []

    def time(self) -> float:
        """Seconds since 1970."""
        return BEGAN_AT + self.now_s

    def monotonic(self) -> float:
        """As it stands."""
        return self.now_s

    async def sleep(self, seconds: float, /) -> None:
        """Turn it on at once."""
        self.waits.append(seconds)
        self.now_s += seconds
