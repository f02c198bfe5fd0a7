"""The time, as asking and the ledger see it: one object that they are given, so that a test turns it instead of
waiting."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Clock(Protocol):
    """What is read of the time, and how it is waited for."""

    def time(self) -> float:
        """Seconds since 1970, for what is written down or compared with what others say. Read by any thread."""
        ...

    def monotonic(self) -> float:
        """Seconds that never run back, for how long something takes. Read by any thread."""
        ...

    async def sleep(self, seconds: float, /) -> None:
        """Return after so many seconds of `monotonic`."""
        ...

    def timeout(self, seconds: float | None, /) -> AbstractAsyncContextManager[object]:
        """As `asyncio.timeout`: a block that raises TimeoutError where it takes longer; None: it may take for ever."""
        ...


class SystemClock:
    """The machine's own time."""

    def time(self) -> float:
        """As `time.time`."""
        return time.time()

    def monotonic(self) -> float:
        """As `time.monotonic`."""
        return time.monotonic()

    async def sleep(self, seconds: float, /) -> None:
        """As `asyncio.sleep`."""
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float | None, /) -> AbstractAsyncContextManager[object]:
        """As `asyncio.timeout`."""
        return asyncio.timeout(seconds)


SYSTEM = SystemClock()
