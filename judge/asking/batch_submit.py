"""How a batch gets to its provider, once: filled up to the limits, sent, and looked for where nobody knows whether it
arrived."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt

from preceptor.judge.asking.retry import wait_before_next, wait_s
from preceptor.judge.clock import Clock
from preceptor.judge.errors import ModelError, ProviderStopped, Rejected, Transient
from preceptor.judge.ledger import batches as books
from preceptor.judge.ledger.ledger import Ledger
from preceptor.judge.ledger.owner import is_gone
from preceptor.judge.models.batch_protocol import BatchLimits, BatchProvider, Remote, custom_id
from preceptor.judge.models.protocol import Request

FIRST_POLL_S = 5.0
LAST_POLL_S = 60.0
"""Between two looks at the batches that run, growing by half from the first to the last."""
SETTLE_S = 15.0
"""How long after it was sent a batch may still appear in the provider's list."""
UPLOAD_S = 1800.0
"""How long a process on another machine may be sending a batch before it counts as gone."""
SKEW_S = 300.0
"""How far the provider's clock may be behind ours."""
TRIES = 8
"""Of one request to the batch API itself."""
ENVELOPE = 64
"""Bytes around the lines of a batch."""

AnswerT = TypeVar("AnswerT")


class Chunk:
    """A batch that is being filled."""

    def __init__(self, provider: BatchProvider, most: int | None = None) -> None:
        """most: requests, where the provider is known to take fewer than its limit says."""
        limits = provider.limits
        self.token = secrets.token_hex(6)
        self.asked: dict[str, Request] = {}
        self.worst_usd: dict[str, float] = {}
        self.total_usd = 0.0
        self._limits = BatchLimits(min(limits.requests, most or limits.requests), limits.bytes)
        self._provider = provider
        self._bytes = ENVELOPE

    def takes(self, request: Request, each_usd: float, room_usd: float) -> bool:
        """Whether there is room for one more; then it is in. The first always is."""
        line = self._provider.line(custom_id(self.token, request.key), request)
        size = len(json.dumps(line, ensure_ascii=False).encode()) + 1
        full = len(self.asked) >= self._limits.requests or self._bytes + size > self._limits.bytes
        if self.asked and (full or self.total_usd + each_usd > room_usd):
            return False
        self.asked[request.key] = request
        self.worst_usd[request.key] = each_usd
        self.total_usd += each_usd
        self._bytes += size
        return True

    def lines(self, keys: frozenset[str]) -> list[dict[str, Any]]:
        """Those of these keys, as the provider wants them."""
        asked = ((key, request) for key, request in self.asked.items() if key in keys)
        return [self._provider.line(custom_id(self.token, key), request) for key, request in asked]


async def submit(
    provider: BatchProvider,
    ledger: Ledger,
    batch: books.BatchRecord,
    lines: Sequence[Mapping[str, Any]],
    clock: Clock,
) -> Remote:
    """The batch at the provider. Raises ProviderStopped where it is not taken; its calls can be asked again then."""
    tries = 0
    while True:
        tries += 1
        try:
            return await provider.submit(batch.token, batch.run, lines)
        except Transient as exc:
            problem: ModelError = exc
            await clock.sleep(SETTLE_S + wait_s(tries, exc))
            # the reply was lost, perhaps not the batch
            if (there := await _listed(provider, ledger, batch, clock)) is not None:
                return there
            if tries < TRIES:
                continue
        except ModelError as exc:
            problem = exc
        await ledger.write(partial(books.unsent, token=batch.token, problem=str(problem), now_s=clock.time()))
        hint = "; not every compatible server has a batch API: leave --batch out" if batch.endpoint else ""
        raise ProviderStopped(f"the batch was not taken: {problem}{hint}") from problem


async def find_out(
    provider: BatchProvider, ledger: Ledger, batch: books.BatchRecord, clock: Clock
) -> Remote | None:
    """A batch whose sender was killed before it could write down whether it arrived. Where it did not, what was
    uploaded for it is thrown away and its calls can be asked again."""
    remote = await _listed(provider, ledger, batch, clock)
    if remote is None:
        # it may have left just before its sender was killed, however long the upload before it took
        await clock.sleep(SETTLE_S)
        remote = await _listed(provider, ledger, batch, clock)
    if remote is None:
        await patiently(lambda: provider.sweep(batch.token, batch.intended_at - SKEW_S), clock)
        why = "its sender was killed before it left"
        await ledger.write(partial(books.unsent, token=batch.token, problem=why, now_s=clock.time()))
    return remote


async def _listed(
    provider: BatchProvider, ledger: Ledger, batch: books.BatchRecord, clock: Clock
) -> Remote | None:
    """A batch of which we have no id, among those that the provider lists."""
    # another process may have found this very batch and written its id down: it is still to be found here
    known = {one.remote for one in await ledger.read(books.listed) if one.token != batch.token}

    async def listed() -> list[Remote]:
        return [one async for one in provider.recent(batch.intended_at - SKEW_S) if one.id not in known]

    found = await patiently(listed, clock)
    for remote in found:
        if remote.token == batch.token:
            return remote
    for remote in found:
        # without a mark: only its results tell, and only if it may be the one is it waited for
        if not remote.token and remote.requests == batch.requests:
            ended = await _ended(provider, remote, clock)
            if await patiently(partial(provider.token_of, ended), clock) == batch.token:
                return ended
    return None


async def _ended(provider: BatchProvider, remote: Remote, clock: Clock) -> Remote:
    waits = pauses()
    while not remote.ended:
        await clock.sleep(next(waits))
        remote = await patiently(partial(provider.retrieve, remote.id), clock)
    return remote


def pauses() -> Iterator[float]:
    """Seconds between looks at what runs."""
    pause_s = FIRST_POLL_S
    while True:
        yield pause_s
        pause_s = min(LAST_POLL_S, 1.5 * pause_s)


async def patiently(ask: Callable[[], Coroutine[Any, Any, AnswerT]], clock: Clock) -> AnswerT:
    """A request that can be made again. Raises ProviderStopped where it never succeeds."""
    again = AsyncRetrying(
        retry=retry_if_exception_type(Transient),
        stop=stop_after_attempt(TRIES),
        wait=wait_before_next,
        sleep=clock.sleep,
        reraise=True,
    )

    async def once() -> AnswerT:
        return await ask()

    try:
        return await again(once)
    except Transient as exc:
        raise ProviderStopped(
            f"the batches cannot be looked at: {exc}; they run on: the same command goes on from there"
        ) from exc
    except Rejected as exc:
        raise ProviderStopped(f"the batches cannot be looked at: {exc}") from exc


def abandoned(batch: books.BatchRecord, owner: str, now_s: float) -> bool:
    """Whether whoever wanted to send a batch is gone, or is this very process, which sends one at a time."""
    same = batch.owner.rpartition(":")[0] == owner.rpartition(":")[0]
    return same or is_gone(batch.owner) or now_s - batch.intended_at > UPLOAD_S
