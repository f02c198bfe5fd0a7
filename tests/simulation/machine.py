"""Processes that a seed drives: an event loop each, one clock for all, and kills that run no `finally`.

A process takes part as long as it lives and is awake. When none has anything to do, the clock jumps to what is due
next; where nothing is due, they wait for one another, which is a Deadlock.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Coroutine, Mapping
from random import Random
from typing import Any

MOST_TURNS = 200_000
"""Turns of loops in one seed: more are a loop that never ends."""


class Deadlock(AssertionError):
    """Every process waits for another, or one turns without end."""


class Killed(BaseException):
    """The process ends here, within a transaction or between two."""


class ProcessLoop(asyncio.BaseEventLoop):
    """The loop of one process. What is ready runs in an order that chance decides, where the seed says so."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._machine = machine

    def time(self) -> float:
        """The machine's clock."""
        return self._machine.now_s

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        """There are no threads."""
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        """At once: no other thread may decide what comes first."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as exc:
            future.set_exception(exc)
        return future

    def call_exception_handler(self, context: Any) -> None:
        """What nobody caught is told at the end of the seed."""
        self._machine.uncaught.append(context)

    @property
    def due_at(self) -> float | None:
        """When its next timer is due; None: it has none."""
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        while timers and timers[0].cancelled():
            heapq.heappop(timers)._scheduled = False  # type: ignore[attr-defined]
        return timers[0].when() if timers else None

    @property
    def ready(self) -> bool:
        """Whether it has something to do now."""
        if self._ready:  # type: ignore[attr-defined]
            return True
        due_at = self.due_at
        return due_at is not None and due_at <= self._machine.now_s

    def turn(self, process: Process) -> None:
        """Run what is ready now; a process that is killed meanwhile runs no more of it."""
        handles = list(self._ready)  # type: ignore[attr-defined]
        self._ready.clear()  # type: ignore[attr-defined]
        while (due_at := self.due_at) is not None and due_at <= self._machine.now_s:
            timer = heapq.heappop(self._scheduled)  # type: ignore[attr-defined]
            timer._scheduled = False
            handles.append(timer)
        if self._machine.shuffles and len(handles) > 1:
            self._machine.random.shuffle(handles)
        asyncio._set_running_loop(self)
        try:
            for handle in handles:
                if process.alive and not handle.cancelled():
                    handle._run()
        finally:
            asyncio._set_running_loop(None)

    def stop_for_good(self) -> None:
        """Nothing of it ever runs again."""
        self._ready.clear()  # type: ignore[attr-defined]
        self._scheduled.clear()  # type: ignore[attr-defined]


class Process:
    """One process on one host."""

    def __init__(self, machine: Machine, name: str, host: int, pid: int, skew_s: float) -> None:
        self.name = name
        self.host = host
        self.pid = pid
        self.skew_s = skew_s
        """How far its host's clock is ahead."""
        self.loop = ProcessLoop(machine)
        self.alive = True
        self.asleep_until = 0.0
        self.main: asyncio.Task[Any] | None = None
        self.killed = False
        self.open_files: list[Any] = []
        """Are closed when it ends, however that is."""
        self.disturbed = False
        """Whether it was killed, slept, was interrupted or met a disk that failed: its calls may be lost."""


class Machine:
    """All processes, what is on its way between them, and the clock."""

    def __init__(self, random: Random, shuffles: bool) -> None:
        self.random = random
        self.shuffles = shuffles
        self.now_s = 0.0
        self.processes: list[Process] = []
        self.current: Process | None = None
        self.uncaught: list[Mapping[str, Any]] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def start(self, name: str, host: int, skew_s: float, main: Coroutine[Any, Any, Any]) -> Process:
        """A process that runs `main`."""
        process = Process(self, name, host, 1000 + len(self.processes), skew_s)
        self.processes.append(process)
        process.main = process.loop.create_task(main)
        return process

    def kill(self, process: Process) -> None:
        """As SIGKILL: it does nothing more."""
        process.alive = False
        process.killed = process.disturbed = True
        process.loop.stop_for_good()

    def after(self, wait_s: float, happens: Callable[[], None]) -> None:
        """Have something happen outside all processes."""
        self._number += 1
        heapq.heappush(self._events, (self.now_s + wait_s, self._number, happens))

    def wake(self, process: Process, future: asyncio.Future[Any], result: Any) -> None:
        """Give a process what it waits for; a dead one hears nothing."""
        if process.alive and not future.done():
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)

    def run_until(self, done: Callable[[], bool]) -> None:
        """Until that is so. Raises Deadlock."""
        turns = 0
        while not done():
            turns += 1
            if turns > MOST_TURNS:
                raise Deadlock(f"no end after {MOST_TURNS} turns")
            awake = [
                one
                for one in self.processes
                if one.alive and one.asleep_until <= self.now_s and one.loop.ready
            ]
            if (
                self._events
                and self._events[0][0] <= self.now_s
                and (not awake or self.random.random() < 0.5)
            ):
                heapq.heappop(self._events)[2]()
                self._bury()
            elif awake:
                self._turn(awake[0] if len(awake) == 1 else self.random.choice(awake))
            else:
                self._jump()

    def _turn(self, process: Process) -> None:
        self.current = process
        try:
            process.loop.turn(process)
        finally:
            self.current = None
        if process.main is not None and process.main.done():
            process.alive = False
        self._bury()

    def _bury(self) -> None:
        for one in self.processes:
            if not one.alive and one.open_files:
                for file in one.open_files:
                    file.close()
                one.open_files.clear()

    def _jump(self) -> None:
        due = [self._events[0][0]] if self._events else []
        for one in self.processes:
            if one.alive:
                at = self.now_s if one.loop._ready else one.loop.due_at  # type: ignore[attr-defined]
                if at is not None:
                    due.append(max(at, one.asleep_until))
        if not due:
            raise Deadlock(
                "nothing is ready and nothing is due; waiting: "
                + ", ".join(one.name for one in self.processes if one.alive)
            )
        self.now_s = max(self.now_s, min(due))
