"""A call with its tries: whether another can help, how long to wait before it, and when a provider counts as down."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable

from tenacity import RetryCallState

from preceptor.judge.asking.rate_limits import RateLimiter, Slot
from preceptor.judge.clock import SYSTEM, Clock
from preceptor.judge.errors import ModelError, ProviderStopped, Rejected, Transient, Unreadable
from preceptor.judge.models.door import admitted
from preceptor.judge.models.http.faults import Throttled, TimedOut, Unreachable
from preceptor.judge.models.protocol import Completion, GivesTime, Model, Request, TellsLimits
from preceptor.judge.models.reply_limits import reply_tokens

log = logging.getLogger(__name__)

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
"""Waits between tries are drawn from 0 to a bound that doubles from the first to the longest: full jitter
(Brooker 2015, "Exponential Backoff and Jitter")."""
UNREACHABLE_TRIES = 3
"""Tries after which a provider that has never answered and does not even take a connection counts as down."""
CONSECUTIVE_FAILURES = 5
"""Calls in a row that ended without an answer, after all their tries, after which a provider counts as
down."""
LONGEST_DEADLINE_S = 1800.0
"""Up to here a server that is there, and does not answer in time, gets twice as long."""
LONGEST_HOLD_S = 600.0
"""The longest wait that a provider may ask for before the run stops instead, to be resumed then."""


def retryable(completion: Completion, request: Request, longer_allowed: bool = False) -> bool:
    """Whether a second try may bring what this answer lacks: it is empty, broken off, or cut off before it was as
    long as it may be. One that is as long as it may be would be cut off again, unless it gets more room now (roomier).
    """
    if completion.finish_reason == "refused" or completion.probabilities is not None:
        return False
    if completion.finish_reason == "cut":
        return True
    empty = not completion.text.strip()
    if completion.finish_reason == "stop":
        return empty
    if empty and longer_allowed:
        return True
    return completion.usage == "reported" and 0 < completion.tokens_out < reply_tokens(request)


def retryable_error(problem: ModelError) -> bool:
    """Whether a second try may bring what this error says that nobody could read."""
    return isinstance(problem, Unreadable)


def wait_s(tries: int, problem: Exception) -> float:
    """Seconds before the next try: drawn below a bound that grows with the tries, and never less than the provider
    asks for. A wish of nothing, of the past or of a moment does not use up all tries at once."""
    bound = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** (tries - 1))
    drawn = random.uniform(0, bound)
    wished = problem.retry_after_s if isinstance(problem, Transient) else None
    if wished is None:
        return drawn
    # those who were told the same wait do not all come back at once
    return max(drawn, wished + random.uniform(0, min(FIRST_WAIT_S, wished / 4)))


def _late(problem: Exception) -> bool:
    return isinstance(problem, TimeoutError | TimedOut)


def wait_before_next(state: RetryCallState) -> float:
    """`wait_s` as tenacity asks for it."""
    problem = state.outcome.exception() if state.outcome else None
    return wait_s(state.attempt_number, problem if isinstance(problem, Exception) else Exception())


class Tries:
    """Calls to one model, each tried again while that can help."""

    def __init__(
        self,
        model: Model,
        limiter: RateLimiter,
        deadline_s: float | None,
        attempts: int,
        pause: Callable[[float], Awaitable[None]],
        clock: Clock = SYSTEM,
    ) -> None:
        """deadline_s: for one call; None: it may take as long as it takes. attempts: most tries of a call.
        pause: sleeps, and raises where waiting has become useless.
        """
        self._model = model
        self._limiter = limiter
        self._deadline_s = deadline_s
        self._attempts = attempts
        self._pause = pause
        self._clock = clock
        self._has_answered = False
        self._consecutive_failures = 0
        self._given_at = float("-inf")

    async def complete(self, request: Request, slot: Slot) -> Completion:
        """One call with its retries, each of which waits for its turn anew. Raises the ModelError that ended it.

        The deadline runs while the model is asked and between tries; not while the call waits for a slot, nor in
        waits that the provider asks for: a rate limit of a minute would else fail every row.
        """
        left_s = self._deadline_s
        tries = 0
        while True:
            tries += 1
            left_at = self._clock.monotonic()
            try:
                async with self._clock.timeout(left_s):
                    completion = await self._ask(request, slot)
            except (Transient, TimeoutError) as exc:
                problem = exc
            except (Rejected, Unreadable):
                self._has_answered = True
                self._consecutive_failures = 0
                self._limiter.answered()
                raise
            else:
                self._has_answered = True
                self._consecutive_failures = 0
                self._limiter.answered()
                return completion
            if isinstance(problem, Unreachable) and tries >= UNREACHABLE_TRIES and not self._has_answered:
                raise ProviderStopped(str(problem)) from problem
            asked_for_s = problem.retry_after_s if isinstance(problem, Transient) else None
            throttled = isinstance(problem, Throttled | TimeoutError)
            if throttled:
                self._limiter.throttled(left_at, asked_for_s)
                if asked_for_s is not None and asked_for_s > LONGEST_HOLD_S:
                    raise ProviderStopped(
                        f"{problem}; it asks to be left alone for {asked_for_s:.0f} s: run the same command again "
                        "then, what is answered is kept"
                    ) from problem
            pause_s = wait_s(tries, problem)
            if left_s is not None and _late(problem) and await self._gives_time(left_at):
                left_s = self._deadline_s  # anew
            elif left_s is not None:
                waited_s = 0 if throttled and asked_for_s is not None else pause_s
                left_s -= self._clock.monotonic() - left_at + waited_s
            if tries >= self._attempts or (left_s is not None and left_s <= 0):
                raise self._gave_up(tries, problem) from problem
            await slot.release_during(self._pause(pause_s))

    async def _ask(self, request: Request, slot: Slot) -> Completion:
        if isinstance(self._model, TellsLimits):
            completion = await self._model.complete_with_headers(request, slot.observe)
        else:
            completion = await self._model.complete(request)
        return admitted(completion, request)

    async def _gives_time(self, left_at: float) -> bool:
        """Whether a server that was too late for a call that left then is given more time instead of being counted as
        dead. What left before it was given last says nothing new."""
        if left_at < self._given_at:
            return True
        longer_s = 2 * (self._deadline_s or 0.0)
        if longer_s > LONGEST_DEADLINE_S or not isinstance(self._model, GivesTime):
            return False
        self._given_at = self._clock.monotonic()
        if not await self._model.gives_time():
            self._given_at = float("-inf")
            return False
        self._deadline_s = longer_s
        log.warning(
            "%s is slow: fewer calls at once, and up to %g s for each from now on", self._model.name, longer_s
        )
        return True

    def _gave_up(self, tries: int, problem: Exception) -> ModelError:
        said = str(problem) or f"no answer within {self._deadline_s:g} s"
        self._consecutive_failures += 1
        if self._consecutive_failures >= CONSECUTIVE_FAILURES:
            return ProviderStopped(
                f"{self._model.name} is down: {CONSECUTIVE_FAILURES} calls in a row failed after all their tries, "
                f"the last with: {said}; run the same command again later, what is answered is kept"
            )
        return ModelError(f"no answer after {tries} {'try' if tries == 1 else 'tries'}: {said}")
