"""An event loop whose clock jumps to the next timer instead of waiting for it, and that tells a deadlock."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


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
