"""Dialogues asked through the providers' batch APIs, at their price and in their time.

In rounds: all dialogues are walked as far as the ledger's answers take them, what they miss is sent in batches, the
batches are waited for and written down, and it begins anew, until nothing is missing. Then the rows are made. What no
batch can be made of is asked by the ordinary fan-out.

A batch is in the ledger before it is uploaded, under a token that is in each of its custom ids, and the provider's id
for it as soon as there is one. A run that was killed in between finds out by listing whether the batch arrived, so that
none is ever sent twice or forgotten.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from preceptor.judge.asking.batch_submit import Chunk, abandoned, find_out, patiently, pauses, submit
from preceptor.judge.asking.batch_walk import Done, Missing, walk
from preceptor.judge.asking.budget import worst_usd
from preceptor.judge.asking.fanout import Fanout, Progress, failure
from preceptor.judge.asking.prices import Prices
from preceptor.judge.errors import (
    BudgetReached,
    LedgerError,
    ModelError,
    ProviderStopped,
    Rejected,
    Transient,
    Unreadable,
)
from preceptor.judge.ledger import batches as books
from preceptor.judge.ledger.ledger import Ledger
from preceptor.judge.ledger.owner import new_owner
from preceptor.judge.models.batch_protocol import BatchResult, Remote, parts_of
from preceptor.judge.models.door import admitted
from preceptor.judge.models.http.faults import Throttled
from preceptor.judge.models.protocol import Dialogue, Failure, Model, Outcome, Request
from preceptor.judge.models.registry import open_batches
from preceptor.prompts.seen import SeenIds

MOST_BATCHES = 3
"""In which a call is asked before its row is given up."""
AT_ONCE = 500
"""Dialogues walked, and results written, together."""

RowT = TypeVar("RowT")
Make = Callable[[], Iterable[Dialogue[RowT]]]
"""The dialogues from their beginning, equal ones each time."""

_log = logging.getLogger(__name__)


class _Going(NamedTuple):
    """A batch that is at the provider."""

    batch: books.BatchRecord
    done: int


class Batches:
    """One run's asking in batches. Its budget is the fan-out's."""

    def __init__(
        self,
        fanout: Fanout,
        models: Mapping[str, Model],
        ledger: Ledger,
        prices: Prices,
        then_sync: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        """models: by the name that requests carry. then_sync: what one batch did not answer is asked directly."""
        self._fanout = fanout
        self._clock = fanout.clock
        self._models = models
        self._ledger = ledger
        self._prices = prices.in_batches()
        self._then_sync = then_sync
        self._on_progress = on_progress
        self._providers = {name: made for name, model in models.items() if (made := open_batches(model))}
        self._owner = new_owner()
        self._going: dict[str, _Going] = {}
        self._wanted: set[str] = set()
        """Tokens of the batches that this round waits for."""
        self._elsewhere = False
        """Whether another process is asking what this round misses."""
        self._given_up: dict[str, Failure] = {}
        self._unanswered: set[str] = set()
        """What a batch did not answer and may be answered yet."""
        self._found = 0
        self._tries: Counter[str] = Counter()
        """By key, how many of this run's batches did not answer it."""
        self._most: dict[str, int] = {}
        """Requests that a batch to a model may hold, where its provider has refused more."""
        self._stopped: ProviderStopped | None = None
        self._counts = Progress(0, None, 0, 0, 0, 0.0, 0, 0)

    @property
    def progress(self) -> Progress:
        """Where the run stands, with what the fan-out asked."""
        own, other = self._counts, self._fanout.progress
        sums = {
            name: getattr(own, name) + getattr(other, name)
            for name in ("asked", "cost_usd", "tokens_in", "tokens_out", "estimated")
        }
        return own._replace(**sums, failed=len(self._given_up))

    async def run(self, make: Make[RowT], total: int | None = None) -> AsyncIterator[RowT]:
        """The rows in the dialogues' order. Where the run must stop, those that are complete up to the first incomplete
        one come before the reason is raised; what was sent goes on at the provider and is found by the next run.
        """
        stopped: BudgetReached | ProviderStopped | None = None
        try:
            await self._settle(make)
        except (BudgetReached, ProviderStopped) as exc:
            stopped = exc
        finally:
            if self._going:
                _log.info(
                    "%s still with the provider: the same command goes on from there",
                    _of(len(self._going), "batch is", "batches are"),
                )
        self._step(done=0, total=total)
        asked = self.progress.asked
        self._found = 0
        async for ends in self._walked(make):
            for end in ends:
                if isinstance(end, Missing):
                    raise stopped or LedgerError(
                        "answers that were there are gone from the ledger; run the same command again"
                    )
                self._step(done=self._counts.done + 1, from_ledger=max(0, self._found - asked))
                yield end.row
        if stopped is not None:
            raise stopped

    async def _settle(self, make: Make[RowT]) -> None:
        """Ask until nothing is missing."""
        while True:
            await self._adopt()
            await self._look()
            self._wanted.clear()
            self._elsewhere = False
            alone = await self._send_missing(make)
            if not (alone or self._wanted or self._elsewhere):
                return
            await self._wait()
            await self._directly(alone)

    async def _send_missing(self, make: Make[RowT]) -> list[Request]:
        """Send what stands to be asked next; what no batch can be made of is handed back."""
        chunks: dict[str, Chunk] = {}
        alone: list[Request] = []
        seen = SeenIds()
        async for ends in self._walked(make):
            for request in (one for end in ends if isinstance(end, Missing) for one in end.requests):
                if seen.add(request.key) is not None:
                    continue
                self._fanout.require_live()
                direct = self._then_sync and request.key in self._unanswered
                if request.model in self._providers and not direct:
                    await self._add(request, chunks)
                else:
                    alone.append(request)
        for chunk in chunks.values():
            await self._send(chunk)
        return alone

    async def _add(self, request: Request, chunks: dict[str, Chunk]) -> None:
        provider = self._providers[request.model]
        each_usd = worst_usd(request, self._fanout.budget.cap_usd, self._prices)
        waiting_usd = sum(chunk.total_usd for name, chunk in chunks.items() if name != request.model)
        chunk = chunks.setdefault(request.model, Chunk(provider, self._most.get(request.model)))
        if chunk.takes(request, each_usd, self._fanout.budget.room_usd - waiting_usd):
            return
        await self._send(chunks.pop(request.model))
        await self._make_room(each_usd)
        chunks[request.model] = Chunk(provider, self._most.get(request.model))
        chunks[request.model].takes(request, each_usd, 0.0)

    async def _send(self, chunk: Chunk) -> None:
        """Write the intents, upload, write the provider's id."""
        await self._make_room(chunk.total_usd)
        first = next(iter(chunk.asked.values()))
        batch = books.BatchRecord(
            token=chunk.token,
            model=first.model,
            endpoint=first.endpoint,
            run=self._ledger.run,
            owner=self._owner,
            state="intended",
            remote=None,
            requests=0,
            worst_usd=0.0,
            intended_at=self._clock.time(),
        )
        asked = list(chunk.asked.values())
        held = await self._ledger.write(
            partial(books.intend, batch=batch, asked=asked, worst_usd=chunk.worst_usd)
        )
        if len(held) < len(asked):
            others = [key for key in chunk.asked if key not in held]
            tokens = await self._ledger.read(partial(books.holders, keys=others))
            self._wanted |= tokens & self._going.keys()
            self._elsewhere |= not tokens <= self._going.keys() or not tokens
        if not held:
            return
        worst = sum(chunk.worst_usd[key] for key in held)
        batch = batch.model_copy(update={"requests": len(held), "worst_usd": worst})
        remote = await submit(
            self._providers[first.model], self._ledger, batch, chunk.lines(held), self._clock
        )
        await self._sent(batch, remote)
        self._wanted.add(batch.token)

    async def _sent(self, batch: books.BatchRecord, remote: Remote) -> None:
        await self._ledger.write(
            partial(books.sent, token=batch.token, remote=remote.id, now_s=self._clock.time())
        )
        self._keep(batch.model_copy(update={"state": "sent", "remote": remote.id}))
        _log.info("%s sent to %s as %s", _of(batch.requests, "request"), batch.model, remote.id)

    def _keep(self, batch: books.BatchRecord) -> None:
        self._fanout.budget.force_reserve(batch.worst_usd)
        self._going[batch.token] = _Going(batch, 0)

    async def _make_room(self, needed_usd: float) -> None:
        """Wait until a batch's worst case fits under the cap. Raises BudgetReached where it never will."""
        waits = pauses()
        budget = self._fanout.budget
        while not budget.fits(needed_usd):
            if not self._going:
                raise budget.reached(needed_usd)
            await self._clock.sleep(next(waits))
            await self._look()

    async def _adopt(self) -> None:
        """Take up the batches of these models that another run left, or is sending: those whose fate is not known are
        looked for in the provider's list."""
        for batch in await self._ledger.read(books.listed):
            model = self._models.get(batch.model)
            ours = model is not None and model.endpoint == batch.endpoint and batch.model in self._providers
            if not ours or batch.token in self._going or batch.state in ("ended", "unsent"):
                continue
            if batch.state == "sent":
                self._keep(batch)
            elif abandoned(batch, self._owner, self._clock.time()):
                remote = await find_out(self._providers[batch.model], self._ledger, batch, self._clock)
                if remote is not None:
                    _log.info("found %s, which another run had sent when it was killed", remote.id)
                    await self._sent(batch, remote)

    async def _wait(self) -> None:
        """Until the batches that this round needs have ended; where another process asks for it, a while."""
        waits = pauses()
        if self._elsewhere and not self._wanted:
            await self._clock.sleep(next(waits))
        while self._wanted & self._going.keys():
            await self._clock.sleep(next(waits))
            await self._look()

    async def _look(self) -> None:
        """See how far the batches are, and write down what has ended. Raises ProviderStopped where a result says that
        none can succeed."""
        for token, going in list(self._going.items()):
            provider = self._providers[going.batch.model]
            assert going.batch.remote is not None
            remote = await patiently(partial(provider.retrieve, going.batch.remote), self._clock)
            if not remote.ended:
                self._going[token] = going._replace(done=remote.done)
                continue
            spent_before = self._counts.cost_usd
            await patiently(partial(self._collect, going.batch, remote), self._clock)
            cost_usd = self._counts.cost_usd - spent_before
            if going.batch.owner == self._owner:
                # another process that looked at it before has perhaps written its results down; it is paid by this one
                cost_usd = await self._ledger.read(partial(books.cost_usd, token=token))
            del self._going[token]
            self._fanout.budget.settle(going.batch.worst_usd, cost_usd)
        self._show_batches()
        if self._stopped is not None:
            raise self._stopped

    async def _collect(self, batch: books.BatchRecord, remote: Remote) -> None:
        """Write a batch's results down; all of it can be done again."""
        block: list[BatchResult] = []
        async for result in self._providers[batch.model].results(remote):
            block.append(result)
            if len(block) == AT_ONCE:
                await self._book(batch, block)
                block = []
        await self._book(batch, block)
        rest = await self._ledger.write(
            partial(books.end, token=batch.token, problem=remote.problem, now_s=self._clock.time())
        )
        why = remote.refused or Transient(remote.problem or "the batch held no result for it")
        if isinstance(why, Throttled):
            # too much waits at the provider: the next round sends half as many at once, when all of this one has ended
            self._most[batch.model] = max(1, batch.requests // 2)
        elif remote.refused is not None and not isinstance(why, Transient):
            why = ProviderStopped(f"the provider took none of {remote.id}: {why}")
        if not isinstance(why, Throttled) or batch.requests == 1:
            self._tries.update(rest if batch.owner == self._owner else ())
        for key in rest:
            self._sort_out(key, why)
        if rest:
            _log.info("%s: %s unanswered; %s", remote.id, _of(len(rest), "request"), why)

    async def _book(self, batch: books.BatchRecord, block: Sequence[BatchResult]) -> None:
        bodies = {
            key: result
            for result in block
            for key, token in (parts_of(result.custom_id),)
            if token == batch.token
        }
        asked = await self._ledger.read(partial(books.requests_of, token=batch.token, keys=list(bodies)))
        answered: list[books.BatchAnswer] = []
        failed: dict[str, ModelError] = {}
        for key, request in asked.items():
            try:
                completion = admitted(self._providers[batch.model].read(bodies[key], request), request)
            except ModelError as exc:
                failed[key] = exc
            else:
                answered.append(
                    books.BatchAnswer(key, completion, self._prices.cost(request.model, completion))
                )
        said = {
            key: books.Failed(
                str(exc),
                exc.paid,
                None if exc.paid is None else self._prices.cost(asked[key].model, exc.paid),
            )
            for key, exc in failed.items()
        }
        booked = await self._ledger.write(
            partial(
                books.collect, token=batch.token, answered=answered, failed=said, now_s=self._clock.time()
            )
        )
        self._tries.update(booked.failed if batch.owner == self._owner else ())
        for key in booked.failed:
            self._sort_out(key, failed[key])
        new = [one for one in answered if one.key in booked.answered]
        paid = [(one.completion, one.cost_usd) for one in new]
        paid += [(one.paid, one.cost_usd) for key, one in said.items() if key in booked.failed and one.paid]
        counts = self._counts
        self._counts = counts._replace(
            asked=counts.asked + len(new),
            cost_usd=counts.cost_usd + sum(cost_usd or 0.0 for _, cost_usd in paid),
            tokens_in=counts.tokens_in + sum(one.tokens_in for one, _ in paid),
            tokens_out=counts.tokens_out + sum(one.tokens_out for one, _ in paid),
            estimated=counts.estimated + sum(one.usage == "estimated" for one, _ in paid),
        )

    def _sort_out(self, key: str, problem: ModelError) -> None:
        """What becomes of a call that a batch did not answer: its row is given up, or it is asked again."""
        if isinstance(problem, ProviderStopped):
            self._stopped = self._stopped or problem
        elif isinstance(problem, Rejected) or (isinstance(problem, Unreadable) and self._tries[key] > 1):
            self._given_up[key] = failure(problem)
        elif self._then_sync or self._tries[key] < MOST_BATCHES:
            self._unanswered.add(key)
        else:
            said = f"no answer in {MOST_BATCHES} batches: {problem}"
            self._given_up[key] = Failure(kind="failed", problem=said)

    async def _directly(self, requests: Sequence[Request]) -> None:
        """By the ordinary fan-out, which finishes what is in flight where it must stop."""
        if not requests:
            return
        answered = asyncio.Event()
        looking = asyncio.create_task(self._look_until(answered))
        try:
            async with aclosing(self._fanout.run(map(_alone, requests))) as outcomes:
                async for key, outcome in outcomes:
                    if isinstance(outcome, Failure):
                        self._given_up[key] = outcome
                    self._step()
        finally:
            answered.set()
            await looking  # a look is not broken off: what it has booked is to be settled too

    async def _look_until(self, answered: asyncio.Event) -> None:
        """Look at the batches that other runs left while the fan-out asks: it may wait for what they have reserved."""
        waits = pauses()
        try:
            while self._going:
                with suppress(TimeoutError):
                    async with self._clock.timeout(next(waits)):
                        await answered.wait()
                if answered.is_set():
                    return
                await self._look()
        except Exception as exc:
            self._fanout.stop(exc)

    async def _walked(self, make: Make[RowT]) -> AsyncIterator[list[Done[RowT] | Missing]]:
        waiting = iter(make())
        while block := list(islice(waiting, AT_ONCE)):
            yield await walk(block, self._find)

    async def _find(self, keys: Sequence[str]) -> Mapping[str, Outcome]:
        found: dict[str, Outcome] = dict(await self._ledger.find(keys))
        self._found += len(found)
        return {key: self._given_up[key] for key in keys if key in self._given_up} | found

    def _show_batches(self) -> None:
        if self._going:
            self._step(
                done=sum(going.done for going in self._going.values()),
                total=sum(going.batch.requests for going in self._going.values()),
            )

    def _step(self, **changes: Any) -> None:
        self._counts = self._counts._replace(**changes)
        if self._on_progress is not None:
            self._on_progress(self.progress)


def _alone(request: Request) -> Dialogue[tuple[str, Outcome]]:
    (outcome,) = yield (request,)
    return request.key, outcome


async def warn_of_batches(ledger: Ledger, models: Mapping[str, Model]) -> None:
    """Say what is with a provider already: whoever asks the same directly would wait for it."""
    running = [
        one
        for one in await ledger.read(books.listed)
        if one.state in ("intended", "sent") and one.model in models
    ]
    if running:
        _log.warning(
            "%s asked in batches that still run; --batch goes on with them, without it what is in them is waited for "
            "until they are 26 hours old",
            _of(sum(one.requests for one in running), "call is being", "calls are being"),
        )


def _of(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"
