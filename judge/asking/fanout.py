"""Carrying out dialogues: many requests at once, each asked once, retried while it can succeed, within the
budget.

A request's way: the ledger's answer, else the answer of the same request in flight, else a reservation in the
budget, a slot of the model's rate limiter, the intent in the ledger, the call with its retries, the answer in the
ledger. The order is the same everywhere, the budget before the slot. A call that holds a slot never waits for the
budget. A call that waits for its next try keeps its reservation and gives up its slot. So no two calls wait for each
other.

Only what a second try can mend is tried again, under one deadline for all tries of a call. Where no request can
succeed the run stops; what is in flight is finished and written down first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import Field

from preceptor.constitution.errors import UserError
from preceptor.judge.asking import prices as table
from preceptor.judge.asking.budget import Budget, Spending, worst_usd
from preceptor.judge.asking.prices import Prices
from preceptor.judge.asking.rate_limits import LocalRateLimiter, RateLimiter, Slot
from preceptor.judge.asking.retry import Tries, retryable, retryable_error
from preceptor.judge.clock import SYSTEM, Clock
from preceptor.judge.errors import BudgetReached, ModelError, ProviderStopped, Rejected, own
from preceptor.judge.ledger.ledger import Ledger
from preceptor.judge.models.protocol import (
    Completion,
    Dialogue,
    Failure,
    GivesTime,
    KnowsRoom,
    Model,
    Outcome,
    Request,
    RowT,
)
from preceptor.judge.models.reply_limits import billed_tokens
from preceptor.prompts.records import Record

QUEUED_AT_ONCE = 1024
"""Requests in flight to a model that queues and batches them itself."""
DRAWN = 4
"""Unfinished dialogues for each request that may be in flight: some wait for their next try, which takes no slot."""
HELD_ROWS = 8192
"""Most rows that are held in memory, finished or not, while an earlier one is not done."""
SHOWN_EVERY_S = 0.1
"""Between two reports of progress: a bar takes longer to draw than a request to make."""
DEADLINE_S = 120.0
GRACE_S = 10.0
"""How long what is in flight may take to finish once the run is interrupted."""
FIRST_LOOK_S = 0.05
LAST_LOOK_S = 1.0
"""Waits between looks for an answer that another process is asking for: doubled from the first to the last."""


class RunInterruptedError(Exception):
    """The run was cancelled or its rows are no longer wanted; raised only inside what is being wound up."""


class AskedElsewhere(Exception):
    """Another process asks the same, or has just had its answer; raised only inside a Fanout."""


class Limits(Record):
    """How hard and how long to ask."""

    concurrency: int = Field(default=16, gt=0)
    """Requests in flight to one model."""
    deadline_s: float | None = Field(default=None, gt=0)
    """For one call, over all its tries and the waits between them; None: twice what one try may take, at least
    `DEADLINE_S`."""
    attempts: int = Field(default=12, gt=0)
    """Most tries of one call."""
    max_cost_usd: float | None = Field(default=None, ge=0)
    """Cap for what this run spends; None: no cap."""
    rpm: float | None = Field(default=None, gt=0)
    """Requests a minute to one model; None: what the provider's replies say, if they say anything."""
    tpm: float | None = Field(default=None, gt=0)
    """Tokens a minute to one model, in and out; None: likewise."""


class Progress(NamedTuple):
    """Where a run stands."""

    done: int
    """Rows handed out."""
    total: int | None
    asked: int
    """Calls that a model answered."""
    from_ledger: int
    failed: int
    """Calls that ended without an answer."""
    cost_usd: float
    """Of the answers whose price is known."""
    tokens_in: int
    tokens_out: int
    estimated: int = 0
    """Calls whose tokens, and so whose cost, are an estimate, because the provider did not count them."""


class _Got(NamedTuple):
    """What a call brought and was paid for."""

    completion: Completion
    problem: ModelError | None
    """Why it is no answer."""

    def holds_more_than(self, other: _Got) -> bool:
        """Whether the other brings nothing that this lacks."""
        if self.problem is not None or other.problem is not None:
            return self.problem is None
        return bool(self.completion.text) and not other.completion.text


def added(completion: Completion, *parts: Completion) -> Completion:
    """A completion with the tokens of all the parts that it took."""
    names = ("tokens_in", "tokens_out", "tokens_cached", "tokens_cache_written", "tokens_cache_written_long")
    sums = {name: sum(getattr(part, name) for part in parts) for name in names}
    guessed = any(part.usage == "estimated" for part in parts)
    return completion.model_copy(update={**sums, "usage": "estimated" if guessed else "reported"})


def failure(problem: ModelError) -> Failure:
    """What a request's own error is to its row."""
    refused = isinstance(problem, Rejected) and problem.refused
    return Failure(kind="refused" if refused else "failed", problem=str(problem))


class Fanout:
    """Asks models on behalf of dialogues. One for each run: it holds the run's budget and counts."""

    def __init__(
        self,
        models: Mapping[str, Model],
        ledger: Ledger,
        limits: Limits,
        prices: Prices,
        on_progress: Callable[[Progress], None] | None = None,
        *,
        spending: Spending | None = None,
        limiters: Mapping[str, RateLimiter] | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        """models: by the name that requests carry. on_progress is called now and then, and at the end.

        spending, limiters: a budget and rate limiters that are shared with other fan-outs; without them, its own.
        clock: all that is waited for here is waited for by it.
        """
        self._models = models
        self._ledger = ledger
        self.clock = clock
        self._limits = limits
        self._prices = prices
        self._on_progress = on_progress
        self._progress = Progress(0, None, 0, 0, 0, 0.0, 0, 0)
        self._asking: dict[str, asyncio.Task[Outcome]] = {}
        self._limiters = {
            name: self._limiter_for(model, (limiters or {}).get(name)) for name, model in models.items()
        }
        self._shown_at = float("-inf")
        self._tries = {name: self._tries_of(name, model) for name, model in models.items()}
        self._stopped: Exception | None = None
        self._stopping = asyncio.Event()
        self._live = False
        self.budget = Budget(limits.max_cost_usd)
        """The run's own: who else spends for it reserves here."""
        self._spending: Spending = spending or self.budget

    @property
    def progress(self) -> Progress:
        """Where the run stands now."""
        return self._progress

    @property
    def stopped(self) -> bool:
        """Whether nothing more is asked: what is not in the ledger raises."""
        return self._stopped is not None

    async def ask(self, request: Request) -> Outcome:
        """The answer to one request, or a Failure that is this request's alone.

        Raises BudgetReached, ProviderStopped or a UserError where the whole run must stop; from then on every
        request that is not in the ledger raises the same.
        """
        return await self._asked(request)

    def _asked(self, request: Request) -> asyncio.Future[Outcome]:
        key = request.key
        task = self._asking.get(key)
        if task is None:
            task = asyncio.create_task(self._once(key, request))
            self._asking[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        # the call goes on when the one who asked is cancelled: it is paid for, and others may wait for it
        return asyncio.shield(task)

    async def run(
        self, dialogues: Iterable[Dialogue[RowT]], total: int | None = None
    ) -> AsyncGenerator[RowT, None]:
        """The dialogues' rows in the order of the dialogues, which are drawn only while slots are free.

        When the run must stop, the rows that are complete up to the first incomplete one come first, what is
        in flight is finished and written down, and then the reason is raised. A dialogue's own exception is
        such a reason too.
        """
        self._step(total=total)
        waiting: Iterator[Dialogue[RowT]] = iter(dialogues)
        window = DRAWN * max((self._width(model) for model in self._models.values()), default=1)
        going: deque[asyncio.Task[RowT]] = deque()
        unfinished = 0
        moved = asyncio.Event()
        drawn = False

        def finished(_: asyncio.Task[RowT]) -> None:
            nonlocal unfinished
            unfinished -= 1
            moved.set()

        try:
            while True:
                # a slow row holds back those after it, but not the asking: they wait here, finished
                while not drawn and self._stopped is None and unfinished < window and len(going) < HELD_ROWS:
                    dialogue = next(waiting, None)
                    if dialogue is None:
                        drawn = True
                    else:
                        unfinished += 1
                        going.append(asyncio.create_task(self.run_dialogue(dialogue)))
                        going[-1].add_done_callback(finished)
                if not going:
                    break
                if not going[0].done():
                    moved.clear()
                    await moved.wait()
                    continue
                row = going.popleft().result()
                self._step(done=self._progress.done + 1)
                yield row
            if self._stopped is not None:
                raise self._stopped
        except BaseException as exc:
            self.stop(exc)
            raise
        finally:
            await self._wind_up(going)
            if self._on_progress is not None:
                self._on_progress(self._progress)

    async def run_dialogue(self, dialogue: Dialogue[RowT]) -> RowT:
        """The row of one dialogue. Raises what `ask` raises, and the dialogue's own exceptions."""
        try:
            requests = next(dialogue)
            while True:
                # all calls end before an error is raised, so that none is left running
                results = await asyncio.gather(*map(self._asked, requests), return_exceptions=True)
                outcomes: list[Outcome] = []
                for one in results:
                    if isinstance(one, BaseException):
                        raise one
                    outcomes.append(one)
                requests = dialogue.send(outcomes)
        except StopIteration as end:
            row: RowT = end.value
            return row
        finally:
            dialogue.close()

    async def _once(self, key: str, request: Request) -> Outcome:
        """`_answer`, waiting while another process asks the same."""
        look_s = FIRST_LOOK_S
        while True:
            try:
                return await self._answer(key, request)
            except AskedElsewhere:
                await self._pause(look_s)
            look_s = min(LAST_LOOK_S, 2 * look_s)

    async def _answer(self, key: str, request: Request) -> Outcome:
        try:
            known = (await self._ledger.find([key])).get(key)
            if known is not None:
                self._step(from_ledger=self._progress.from_ledger + 1)
                return known
            self._raise_if_stopped()
            self.require_live()
            worst_usd = self._worst_usd(request)
            await self._spending.reserve(worst_usd)
            cost_usd = 0.0
            try:
                async with self._limiters[request.model].slot(request) as slot:
                    self._raise_if_stopped()
                    try:
                        outcome, cost_usd = await self._call(request, slot)
                    except asyncio.CancelledError:
                        cost_usd = worst_usd  # it may have been answered: nobody knows what it cost
                        raise
                    return outcome
            finally:
                self._spending.settle(worst_usd, cost_usd)
        except (BudgetReached, ProviderStopped, UserError) as exc:
            self.stop(exc)
            raise

    def require_live(self) -> None:
        """Before the first request that is not in the ledger: raises RetiredModel where one of the models is gone, so
        that nobody is asked for rows that cannot be finished."""
        if not self._live:
            table.require_live(self._prices, self._models.values(), table.today())
            self._live = True

    async def _call(self, request: Request, slot: Slot) -> tuple[Outcome, float]:
        """(outcome, USD that are to be settled, as far as known) of a request that is not in the ledger."""
        if not await self._ledger.intend(request):
            raise AskedElsewhere
        room = self._billed(request)
        booked_usd = 0.0
        try:
            got = await self._asked_once(request, slot)
            longer_allowed = self._billed(request) > room
            if (
                retryable(got.completion, request, longer_allowed)
                if got.problem is None
                else retryable_error(got.problem)
            ):
                got, booked_usd = await self._second(request, slot, got)
        except ModelError as exc:
            await self._ledger.fail(request, str(exc))
            self._step(failed=self._progress.failed + 1)
            if isinstance(exc, ProviderStopped):
                raise
            return failure(exc), 0.0
        except (BudgetReached, UserError) as exc:
            # the run stopped while this call waited to be tried again: nothing of it is under way, so it is not lost
            await self._ledger.fail(request, f"not tried again: {exc}")
            raise
        completion, problem = got
        cost = self._prices.cost(request.model, completion)
        if problem is None:
            completion = await self._ledger.answer(request, completion, cost)
        else:
            await self._ledger.fail(request, str(problem), completion, cost)
        self._step(
            asked=self._progress.asked + (problem is None),
            failed=self._progress.failed + (problem is not None),
            cost_usd=self._progress.cost_usd + (cost or 0.0),
            tokens_in=self._progress.tokens_in + completion.tokens_in,
            tokens_out=self._progress.tokens_out + completion.tokens_out,
            estimated=self._progress.estimated + (completion.usage == "estimated"),
        )
        outcome = completion if problem is None else failure(problem)
        return outcome, max(0.0, (cost or 0.0) - booked_usd)

    async def _asked_once(self, request: Request, slot: Slot) -> _Got:
        """What one call brought. Raises the ModelError that ended it where nothing came that was paid for."""
        try:
            return _Got(await self._tries[request.model].complete(request, slot), None)
        except ModelError as exc:
            if exc.paid is None:
                raise
            return _Got(exc.paid, exc)

    async def _second(self, request: Request, slot: Slot, first: _Got) -> tuple[_Got, float]:
        """Another reply in the place of one that holds nothing, its tokens added; the first where the budget or the
        provider gives no other. And the USD of the second, which are settled here."""
        worst_usd = self._worst_usd(request)
        if not await self._spending.try_reserve(worst_usd):
            return first, 0.0
        cost_usd = 0.0
        try:
            await slot.take_again()  # it takes its share of the minute, as any request
            second = await self._asked_once(request, slot)
            cost_usd = self._prices.cost(request.model, second.completion) or 0.0
        except ProviderStopped as exc:
            self.stop(exc)
            return first, 0.0  # it is paid for
        except (ModelError, BudgetReached, UserError):  # the latter two: the run has stopped meanwhile
            return first, 0.0
        except asyncio.CancelledError:
            cost_usd = worst_usd
            raise
        finally:
            self._spending.settle(worst_usd, cost_usd)
        better = first if first.holds_more_than(second) else second
        return better._replace(
            completion=added(better.completion, first.completion, second.completion)
        ), cost_usd

    async def _pause(self, wait_s: float) -> None:
        """Sleep, or raise the reason why the run stops as soon as there is one."""
        try:
            async with self.clock.timeout(wait_s):
                await self._stopping.wait()
        except TimeoutError:
            return
        self._raise_if_stopped()

    def _raise_if_stopped(self) -> None:
        if self._stopped is not None:
            raise own(self._stopped)

    def _worst_usd(self, request: Request) -> float:
        return worst_usd(request, self._limits.max_cost_usd, self._prices, self._billed(request))

    def _billed(self, request: Request) -> int:
        """The most tokens that a reply can be billed for, as far as its model knows by now."""
        model = self._models[request.model]
        return model.billed_tokens(request) if isinstance(model, KnowsRoom) else billed_tokens(request)

    def _limiter_for(self, model: Model, shared: RateLimiter | None) -> RateLimiter:
        return shared or LocalRateLimiter(
            self._width(model), self._pause, self.clock, rpm=self._limits.rpm, tpm=self._limits.tpm
        )

    def _tries_of(self, name: str, model: Model) -> Tries:
        deadline_s = self._limits.deadline_s
        if deadline_s is None:
            deadline_s = max(DEADLINE_S, 2 * model.timeout_s if isinstance(model, GivesTime) else 0.0)
        if model.capabilities.queueing:
            deadline_s = None
        return Tries(model, self._limiters[name], deadline_s, self._limits.attempts, self._pause, self.clock)

    def _width(self, model: Model) -> int:
        return QUEUED_AT_ONCE if model.capabilities.queueing else self._limits.concurrency

    def stop(self, reason: BaseException) -> None:
        """Ask nothing more: from now on every request that is not in the ledger raises the first reason given."""
        if self._stopped is None:
            if not isinstance(reason, Exception):
                reason = RunInterruptedError("the run was interrupted")
            self._stopped = reason
            self._stopping.set()
            self.budget.stop(reason)

    def _forget(self, key: str, done: asyncio.Task[Outcome]) -> None:
        del self._asking[key]
        if not done.cancelled():
            done.exception()  # the waiting callers have it; read here, or asyncio reports it as lost

    async def _wind_up(self, going: Iterable[asyncio.Task[RowT]]) -> None:
        """Let what is in flight finish, for a limited time where the run was interrupted from outside."""
        rest: list[asyncio.Task[RowT] | asyncio.Task[Outcome]] = [*going, *self._asking.values()]
        if not rest:
            return
        interrupted = isinstance(self._stopped, RunInterruptedError)
        try:
            async with self.clock.timeout(GRACE_S if interrupted else None):
                await asyncio.wait(rest)
        except TimeoutError:
            for task in rest:
                task.cancel()
            await asyncio.wait(rest)
        for task in rest:
            if not task.cancelled():
                task.exception()

    def _step(self, **changes: Any) -> None:
        self._progress = self._progress._replace(**changes)
        now = self.clock.monotonic()
        if self._on_progress is not None and now >= self._shown_at + SHOWN_EVERY_S:
            self._shown_at = now
            self._on_progress(self._progress)
