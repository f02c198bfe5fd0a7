"""One budget and one rate for many processes: one of them keeps both, and the others ask it before every call.

`Keeper` lives in one place (with Ray, an actor of that name) and holds an ordinary Budget and ordinary rate limiters.
Each worker's fan-out is given a SharedBudget and SharedRateLimiters, which hand every question on. What a worker that
is gone had reserved counts as spent, because its calls may have been paid for: so the cap is never passed. What the
keeper says in the end is a Stop, a value, because an exception does not survive every way between processes.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from preceptor.constitution.errors import UserError
from preceptor.judge.asking.budget import Budget
from preceptor.judge.asking.fanout import Limits, Progress, RunInterruptedError
from preceptor.judge.asking.rate_limits import LocalRateLimiter, SentMark, Slot
from preceptor.judge.clock import SYSTEM, Clock
from preceptor.judge.errors import BudgetReached, ProviderStopped
from preceptor.judge.models.protocol import Request

BEAT_S = 3.0
"""Between two signs of life of a worker."""
SILENT_S = 30.0
"""A worker from which nothing was heard for so long counts as gone."""

Why = Literal["budget", "provider", "user", "interrupted"]
NOTHING_DONE = Progress(0, None, 0, 0, 0, 0.0, 0, 0)


class Stop(NamedTuple):
    """Why nothing more is asked, anywhere."""

    why: Why
    said: str

    @property
    def error(self) -> Exception:
        """As a fan-out raises it."""
        kinds = {"budget": BudgetReached, "provider": ProviderStopped, "user": UserError}
        return kinds.get(self.why, RunInterruptedError)(self.said)


def stop_of(error: BaseException) -> Stop | None:
    """What such an error means for all workers; None: it is a fault, to be raised as it is."""
    whys: tuple[tuple[type[BaseException], Why], ...] = (
        (BudgetReached, "budget"),
        (ProviderStopped, "provider"),
        (UserError, "user"),
        (RunInterruptedError, "interrupted"),
    )
    return next((Stop(why, str(error)) for kind, why in whys if isinstance(error, kind)), None)


class KeeperNote(NamedTuple):
    """Something that the keeper is told and does not answer."""

    what: Literal["leave", "answered", "throttled", "observe", "settle"]
    model: str
    facts: tuple[Any, ...] = ()


class Entered(NamedTuple):
    """A worker's request has its turn; or, with a stop, has none."""

    mark: SentMark | None
    stop: Stop | None


class _Held:
    """What one worker has of what is shared."""

    def __init__(self, heard_at: float) -> None:
        self.heard_at = heard_at
        self.places: Counter[str] = Counter()
        self.reserved: list[float] = []
        self.progress = NOTHING_DONE


class Keeper:
    """Keeps budget and rates for all workers of one run; all its methods run in one event loop."""

    def __init__(self, limits: Limits, silent_s: float = SILENT_S, clock: Clock = SYSTEM) -> None:
        self._limits = limits
        self._clock = clock
        self._silent_s = silent_s
        self._budget = Budget(limits.max_cost_usd)
        self._limiters: dict[str, LocalRateLimiter] = {}
        self._held: dict[str, _Held] = {}
        self._stop: Stop | None = None
        self._stopping = asyncio.Event()

    async def enter(self, worker: str, request: Request) -> Entered:
        """Wait for the request's turn at its model."""
        held = self._of(worker)
        mark: SentMark | None = None
        try:
            if self._stop is None:
                mark = await self._limiter_for(request.model).enter(request)
                held.places[request.model] += 1
        except RunInterruptedError:
            pass
        else:
            if self._stop is not None and held.places[request.model]:
                self._leave(held, request.model)
        return Entered(mark, None) if self._stop is None else Entered(None, self._stop)

    async def reserve(self, worker: str, worst_usd: float) -> Stop | None:
        """Set the worst case of a call aside, for this worker; a Stop where the budget has no room for it."""
        held = self._of(worker)
        try:
            await self._budget.reserve(worst_usd)
        except BudgetReached as reached:
            await self.stop(Stop("budget", str(reached)))
            return self._stop
        except RunInterruptedError:
            return self._stop
        held.reserved.append(worst_usd)
        if self._stop is not None:
            self._settle(held, worst_usd, 0.0)
        return self._stop

    async def try_reserve(self, worker: str, worst_usd: float) -> bool:
        """Reserve if there is room now."""
        held = self._of(worker)
        if self._stop is not None or not await self._budget.try_reserve(worst_usd):
            return False
        held.reserved.append(worst_usd)
        return True

    async def tell(self, worker: str, notes: Sequence[KeeperNote]) -> None:
        """Take note of what a worker has done."""
        held = self._of(worker)
        for note in notes:
            match note.what:
                case "leave":
                    self._leave(held, note.model)
                case "answered":
                    self._limiter_for(note.model).answered()
                case "throttled":
                    ago_s, retry_after_s = note.facts
                    left_at = self._clock.monotonic() - ago_s
                    self._limiter_for(note.model).throttled(left_at, retry_after_s)
                case "observe":
                    headers, mark = note.facts
                    self._limiter_for(note.model).observe(headers, mark)
                case "settle":
                    self._settle(held, *note.facts)

    async def beat(self, worker: str, progress: Progress) -> Stop | None:
        """A worker's sign of life and where it stands; whether all is to stop."""
        self._of(worker).progress = progress
        self._let_go_of_the_gone()
        return self._stop

    async def stop(self, why: Stop) -> None:
        """From now on nobody asks anything more; the first reason stands."""
        if self._stop is None:
            self._stop = why
            self._stopping.set()
            self._budget.stop(RunInterruptedError(why.said))

    async def stopped(self) -> Stop | None:
        """Why nothing more is asked."""
        return self._stop

    async def progress(self) -> Progress:
        """The sum over all workers, those that are gone as far as they told."""
        self._let_go_of_the_gone()
        all_of = [held.progress for held in self._held.values()]
        sums = {
            name: sum(getattr(one, name) for one in all_of)
            for name in ("asked", "from_ledger", "failed", "cost_usd", "tokens_in", "tokens_out", "estimated")
        }
        return NOTHING_DONE._replace(**sums)

    def _of(self, worker: str) -> _Held:
        now = self._clock.monotonic()
        held = self._held.setdefault(worker, _Held(now))
        held.heard_at = now
        return held

    def _limiter_for(self, model: str) -> LocalRateLimiter:
        if model not in self._limiters:
            limits = self._limits
            self._limiters[model] = LocalRateLimiter(
                limits.concurrency, self._pause, self._clock, rpm=limits.rpm, tpm=limits.tpm
            )
        return self._limiters[model]

    async def _pause(self, wait_s: float) -> None:
        try:
            async with self._clock.timeout(wait_s):
                await self._stopping.wait()
        except TimeoutError:
            return
        raise RunInterruptedError

    def _let_go_of_the_gone(self) -> None:
        """Give the slots of lost workers to others; book what they had reserved."""
        silent_since = self._clock.monotonic() - self._silent_s
        for held in self._held.values():
            if held.heard_at < silent_since:
                for model in list(held.places.elements()):
                    self._leave(held, model)
                for worst_usd in list(held.reserved):
                    self._settle(held, worst_usd, worst_usd)

    def _leave(self, held: _Held, model: str) -> None:
        # a worker that was wrongly taken for gone has lost its slots
        if held.places[model]:
            held.places[model] -= 1
            self._limiter_for(model).leave()

    def _settle(self, held: _Held, worst_usd: float, cost_usd: float) -> None:
        # a worker that was wrongly taken for gone: its calls stay booked at their worst case
        if worst_usd in held.reserved:
            held.reserved.remove(worst_usd)
            self._budget.settle(worst_usd, cost_usd)


class CallKeeper(Protocol):
    """Calls one of the keeper's methods, wherever it is. Leaves at once, whether or not it is awaited."""

    def __call__(self, method: str, *words: Any) -> Awaitable[Any]: ...


class KeeperConnection:
    """A worker's connection to the keeper. Notes that need no answer are sent together."""

    def __init__(self, worker: str, ask: CallKeeper) -> None:
        self._worker = worker
        self._ask = ask
        self._notes: deque[KeeperNote] = deque()
        self._last: Awaitable[Any] | None = None

    async def ask(self, method: str, *words: Any) -> Any:
        """The keeper's answer, after it was told everything so far."""
        self.flush()
        return await self._ask(method, self._worker, *words)

    def tell(self, note: KeeperNote) -> None:
        """Tell the keeper, with the other notes of this turn of the event loop."""
        if not self._notes:
            asyncio.get_running_loop().call_soon(self.flush)
        self._notes.append(note)

    def flush(self) -> None:
        """Send all notes to the keeper."""
        if self._notes:
            notes = tuple(self._notes)
            self._notes.clear()
            self._last = self._ask("tell", self._worker, notes)  # held, so that it is not dropped on its way


class SharedBudget:
    """`judge.asking.budget.Spending`, kept elsewhere."""

    def __init__(self, connection: KeeperConnection, capped: bool) -> None:
        self._connection = connection
        self._capped = capped

    async def reserve(self, worst_usd: float) -> None:
        """As Budget's. Raises what stops all workers."""
        if self._capped and (stop := await self._connection.ask("reserve", worst_usd)) is not None:
            raise stop.error

    async def try_reserve(self, worst_usd: float) -> bool:
        """As Budget's."""
        return not self._capped or bool(await self._connection.ask("try_reserve", worst_usd))

    def settle(self, worst_usd: float, cost_usd: float) -> None:
        """As Budget's."""
        if self._capped:
            self._connection.tell(KeeperNote("settle", "", (worst_usd, cost_usd)))


class SharedRateLimiter:
    """`judge.asking.rate_limits.RateLimiter`, kept elsewhere."""

    def __init__(self, connection: KeeperConnection, model: str, clock: Clock = SYSTEM) -> None:
        """clock: the fan-out's."""
        self._connection = connection
        self._clock = clock
        self._model = model

    def slot(self, request: Request) -> Slot:
        """As LocalRateLimiter's."""
        return Slot(self, request)

    async def enter(self, request: Request) -> SentMark:
        """As LocalRateLimiter's. Raises what stops all workers."""
        entered: Entered = await self._connection.ask("enter", request)
        if entered.stop is not None:
            raise entered.stop.error
        assert entered.mark is not None
        return entered.mark

    def leave(self) -> None:
        """As LocalRateLimiter's."""
        self._connection.tell(KeeperNote("leave", self._model))

    def answered(self) -> None:
        """As LocalRateLimiter's."""
        self._connection.tell(KeeperNote("answered", self._model))

    def throttled(self, left_at: float, retry_after_s: float | None) -> None:
        """As LocalRateLimiter's; clocks of two machines differ, so what is told is how long ago."""
        ago_s = self._clock.monotonic() - left_at
        self._connection.tell(KeeperNote("throttled", self._model, (ago_s, retry_after_s)))

    def observe(self, headers: Mapping[str, str], mark: SentMark) -> None:
        """As LocalRateLimiter's; only what may be a limit is sent on."""
        limits = {name: value for name, value in headers.items() if "ratelimit" in name}
        if limits:
            self._connection.tell(KeeperNote("observe", self._model, (limits, mark)))
