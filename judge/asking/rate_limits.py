"""How fast a model may be asked: slots for so many at once, and so many requests and tokens a minute.

The number of slots halves when the provider throttles and grows by one with every answer, up to what the user allows
(additive increase, multiplicative decrease: Chiu and Jain 1989). What flows per minute is held by token buckets, whose
sizes are the user's (`--rpm`, `--tpm`) or are read from the rate-limit headers of every reply. Where there are none,
a request passes without waiting for a clock.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from preceptor.judge.clock import Clock
from preceptor.judge.models.http.waits import allowances
from preceptor.judge.models.protocol import Request
from preceptor.judge.models.reply_limits import billed_tokens
from preceptor.judge.models.token_estimates import likely_tokens_in

ROUNDING = 1e-6
"""A share that is short by no more than this is whole."""
DENIALS = 6
"""Requests in a row turned away with a wait to keep, after which all others keep it too. Where one in seven is turned
away by chance, three in a row come once in 400 requests, six once in 100,000.
"""


class SentMark(NamedTuple):
    """How much had been sent when a request left: by it the headers of its reply are dated."""

    requests: int
    tokens_in: float
    tokens_out: float
    at: float


class _TokenBucket:
    """Fills steadily up to `most`. One request may overdraw it, as soon as it is not empty. So a request
    larger than the bucket waits no longer than one that fits."""

    def __init__(self, per_s: float, most: float, level: float, now: float) -> None:
        self.per_s, self.most, self.level, self.at = per_s, most, level, now

    def wait_s(self, wanted: float, now: float) -> float:
        """How long until so much may be taken."""
        self.level = min(self.most, self.level + (now - self.at) * self.per_s)
        self.at = now
        short = min(wanted, self.most) - self.level
        return short / self.per_s if short > ROUNDING else 0.0

    def take(self, amount: float) -> None:
        self.level -= amount


class RateLimiter(Protocol):
    """What a fan-out needs of one model's rate limiter, its own or a shared one."""

    def slot(self, request: Request) -> Slot: ...

    async def enter(self, request: Request) -> SentMark: ...

    def leave(self) -> None: ...

    def answered(self) -> None: ...

    def throttled(self, left_at: float, retry_after_s: float | None) -> None: ...

    def observe(self, headers: Mapping[str, str], mark: SentMark) -> None: ...


class LocalRateLimiter:
    """The rate limiter of one model. A request waits here for a slot, for the minute's share, and for a throttle to
    end."""

    def __init__(
        self,
        width: int,
        pause: Callable[[float], Awaitable[None]],
        clock: Clock,
        *,
        rpm: float | None = None,
        tpm: float | None = None,
    ) -> None:
        """pause: sleeps, and raises where waiting has become useless."""
        self._most = self._width = float(width)
        self._pause = pause
        self._clock = clock
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._cut_at = float("-inf")
        self._denials = 0
        self._hold_until = float("-inf")
        self._held = False
        self._turn = asyncio.Lock()
        self._sent = SentMark(0, 0.0, 0.0, 0.0)
        self._heard = SentMark(-1, 0.0, 0.0, 0.0)
        now = clock.monotonic()
        # a second's worth at a time: a full minute's at once would be twice the limit in the first minute
        self._buckets = {
            what: _TokenBucket(limit / 60, max(1.0, limit / 60), max(1.0, limit / 60), now)
            for what, limit in (("rpm", rpm), ("tpm", tpm))
            if limit is not None
        }

    @property
    def width(self) -> int:
        """Requests that may be in flight now."""
        return int(self._width)

    def slot(self, request: Request) -> Slot:
        """A slot for a request, taken and given back by `async with`."""
        return Slot(self, request)

    async def enter(self, request: Request) -> SentMark:
        """Wait for a slot and for the minute's share. The mark belongs to the headers of this request's reply."""
        if self._waiting or self._running >= self.width:
            let_in = asyncio.get_running_loop().create_future()
            self._waiting.append(let_in)
            try:
                await let_in
            except asyncio.CancelledError:
                if let_in.done() and not let_in.cancelled():
                    self.leave()
                raise
        else:
            self._running += 1
        try:
            return await self._keep_pace(request)
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """Give the slot back."""
        self._running -= 1
        self._let_in()

    def answered(self) -> None:
        """The model had time for a request."""
        self._denials = 0
        if self._width < self._most:
            self._width = min(self._most, self._width + 1)
            self._let_in()

    def throttled(self, left_at: float, retry_after_s: float | None) -> None:
        """The model had no time for a request that left then. What left before the last cut says nothing new."""
        now = self._clock.monotonic()
        if left_at >= self._cut_at:
            self._width = max(1.0, self._width / 2)
            self._cut_at = now
        if retry_after_s is not None:
            self._denials += 1
            if self._denials >= DENIALS:
                self._hold_until = max(self._hold_until, now + retry_after_s)
                self._held = True

    def observe(self, headers: Mapping[str, str], mark: SentMark) -> None:
        """Learn from the headers of a reply to the request that left with this mark."""
        if mark.requests < self._heard.requests:
            return  # an older reply than the one heard last
        now = self._clock.monotonic()
        for what, said in allowances(headers, datetime.fromtimestamp(self._clock.time(), UTC)).items():
            rate = said.limit / 60
            if said.reset_s and said.remaining < said.limit:
                rate = min(rate, (said.limit - said.remaining) / said.reset_s)
            # what left after this request is not in its reply's count, and some has flowed in meanwhile
            since = _part(what, self._sent) - _part(what, mark)
            level = min(said.limit, said.remaining - since + (now - mark.at) * rate)
            self._buckets[what] = _TokenBucket(rate, said.limit, level, now)
            self._heard = mark

    def _let_in(self) -> None:
        while self._waiting and self._running < self.width:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._running += 1
                waiter.set_result(None)

    async def _keep_pace(self, request: Request) -> SentMark:
        if self._buckets or self._held:
            async with self._turn:  # one at a time sleeps on the clock; the others keep their order behind it
                await self._wait_for_share(request)
        sent = self._sent
        self._sent = sent._replace(requests=sent.requests + 1, at=self._clock.monotonic())
        return self._sent

    async def _wait_for_share(self, request: Request) -> None:
        tokens_in, tokens_out = float(likely_tokens_in(request)), float(billed_tokens(request))
        wanted = SentMark(1, tokens_in, tokens_out, 0.0)
        while True:
            now = self._clock.monotonic()
            wait_s = max(
                self._hold_until - now,
                *(bucket.wait_s(_part(what, wanted), now) for what, bucket in self._buckets.items()),
                0.0,
            )
            if wait_s <= 0:
                break
            await self._pause(wait_s)
        self._held = self._hold_until > now
        for what, bucket in self._buckets.items():
            bucket.take(_part(what, wanted))
        sent = self._sent
        self._sent = sent._replace(
            tokens_in=sent.tokens_in + tokens_in, tokens_out=sent.tokens_out + tokens_out
        )


class Slot:
    """A request's slot at a rate limiter."""

    def __init__(self, limiter: RateLimiter, request: Request) -> None:
        self._limiter = limiter
        self._request = request
        self._inside = False
        self._mark: SentMark | None = None

    async def __aenter__(self) -> Slot:
        await self._acquire()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._release()

    async def release_during(self, pause: Awaitable[None]) -> None:
        """Give the slot back, await `pause`, and take a slot again."""
        self._release()
        await pause
        await self._acquire()

    async def take_again(self) -> None:
        """Give the slot back and wait for one anew: for one more request in the same place."""
        self._release()
        await self._acquire()

    def observe(self, headers: Mapping[str, str]) -> None:
        """Hand the headers of this request's reply to its rate limiter."""
        if self._mark is not None:
            self._limiter.observe(headers, self._mark)

    async def _acquire(self) -> None:
        self._mark = await self._limiter.enter(self._request)
        self._inside = True

    def _release(self) -> None:
        if self._inside:
            self._inside = False
            self._limiter.leave()


def _part(what: str, sent: SentMark) -> float:
    """How much of a quantity is in what was sent."""
    match what:
        case "requests" | "rpm":
            return sent.requests
        case "input-tokens":
            return sent.tokens_in
        case "output-tokens":
            return sent.tokens_out
        case _:
            return sent.tokens_in + sent.tokens_out
