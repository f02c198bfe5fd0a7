"""One worker thread that answers whatever waits in batches, so that a model in this process serves many
askers.

The event loop enqueues, the thread takes. Which requests go together is decided again before every batch, so
that requests that arrive while a batch runs are not held back by older, longer plans.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from preceptor.judge.errors import ModelError, own

ItemT = TypeVar("ItemT")
AnswerT = TypeVar("AnswerT")

LINGER_S = 0.004
"""How long the thread waits for more company once something waits; askers come in bursts."""


class QueuedItem(NamedTuple, Generic[ItemT, AnswerT]):
    """One item that waits, and where its answer is awaited."""

    item: ItemT
    future: asyncio.Future[AnswerT]
    loop: asyncio.AbstractEventLoop


class Microbatcher(Generic[ItemT, AnswerT]):
    """Runs `answer` in its own thread on batches that `choose` picks.

    choose: items that wait, oldest first -> indices of those to run now, at least one.
    answer: those items -> for each its answer, or the error that this item alone meets. An error that
    `answer` raises is every item's of the batch.
    """

    def __init__(
        self,
        choose: Callable[[Sequence[ItemT]], Sequence[int]],
        answer: Callable[[Sequence[ItemT]], Sequence[AnswerT | Exception]],
    ) -> None:
        self._choose = choose
        self._answer = answer
        self._queue: queue.SimpleQueue[QueuedItem[ItemT, AnswerT] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def ask(self, item: ItemT) -> AnswerT:
        """The answer to `item`, or the error that `answer` met."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="local-model", daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[AnswerT] = loop.create_future()
        self._queue.put(QueuedItem(item, future, loop))
        return await future

    async def close(self) -> None:
        """End the thread after the batch that runs; whoever still waits gets a ModelError."""
        if self._thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    def _work(self) -> None:
        waiting: list[QueuedItem[ItemT, AnswerT]] = []
        while self._take(waiting):
            chosen = set(self._choose([job.item for job in waiting]))
            batch = [job for index, job in enumerate(waiting) if index in chosen]
            waiting = [job for index, job in enumerate(waiting) if index not in chosen]
            # an asker that was cancelled meanwhile needs no answer
            batch = [job for job in batch if not job.future.cancelled()]
            if batch:
                _deliver(batch, self._run([job.item for job in batch]))
        _deliver(waiting, [ModelError("the local model was closed before it answered")] * len(waiting))

    def _take(self, waiting: list[QueuedItem[ItemT, AnswerT]]) -> bool:
        """Move what is queued into `waiting`, blocking only while nothing waits; False once the end was asked
        for."""
        try:
            while True:
                job = self._queue.get(timeout=LINGER_S if waiting else None)
                if job is None:
                    return False
                waiting.append(job)
        except queue.Empty:
            return True

    def _run(self, items: Sequence[ItemT]) -> Sequence[AnswerT | Exception]:
        try:
            return self._answer(items)
        except Exception as exc:
            return [exc] * len(items)


def _deliver(batch: Sequence[QueuedItem[ItemT, AnswerT]], answers: Sequence[AnswerT | Exception]) -> None:
    """Hand the answers over with one wake-up of each event loop."""
    for loop in {job.loop for job in batch}:
        mine = [(job.future, answer) for job, answer in zip(batch, answers, strict=True) if job.loop is loop]
        if not loop.is_closed():
            loop.call_soon_threadsafe(_settle, mine)


def _settle(answered: Sequence[tuple[asyncio.Future[AnswerT], AnswerT | Exception]]) -> None:
    for future, answer in answered:
        if future.done():
            continue
        if isinstance(answer, Exception):
            future.set_exception(own(answer))
        else:
            future.set_result(answer)
