"""A worker of the pipeline in `preceptor.asking.ray_engine`, and what goes to it and comes from it."""

from __future__ import annotations

import asyncio
import os
import pickle
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from preceptor.asking.stages import WorkerContext
from preceptor.constitution.errors import UserError
from preceptor.judge.asking.fanout import Fanout, Limits
from preceptor.judge.asking.prices import Prices
from preceptor.judge.asking.shared import (
    BEAT_S,
    KeeperConnection,
    SharedBudget,
    SharedRateLimiter,
    Stop,
    stop_of,
)
from preceptor.judge.ledger.ledger import open_ledger
from preceptor.judge.settings import Price


class RowBatch(NamedTuple):
    """What goes through the pipeline: rows, or what became of them."""

    number: int
    """From 0, without gaps."""
    rows: list[Any]
    """What came in; on the way back what was made, up to the first that is incomplete."""
    stop: Stop | None = None
    """Why rows are missing here and after."""
    last: bool = False
    """Nothing comes after."""


class RayWorkerSpec(NamedTuple):
    """How a worker works: everything that it is sent."""

    open_context: Callable[[], WorkerContext]
    ledger: str
    limits: Limits
    prices: dict[str, Price]
    run: str
    """On the bill, one name for all workers."""
    folder: str
    """Where the command was given: relative names mean the same in every worker on a machine that has it."""


class RayWorker:
    """An actor of the pipeline: it holds the models, and asks them from one event loop for all its batches."""

    def __init__(self, plan: RayWorkerSpec, keeper: Any) -> None:
        with suppress(OSError):
            os.chdir(plan.folder)
        self._plan = plan
        self._keeper = keeper
        self._loop = asyncio.new_event_loop()
        self._context: WorkerContext | None = None
        self._cannot: Stop | None = None
        threading.Thread(target=self._loop.run_forever, name="worker", daemon=True).start()
        self._wait_for(self._open())

    def __call__(self, table: Any) -> Any:
        """A batch of rows -> a batch of what became of them. Called by several threads."""
        return table_of(self._wait_for(self._carry_out(batch_of(table))))

    def _wait_for(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _open(self) -> None:
        connection = KeeperConnection(
            secrets.token_hex(8), lambda method, *words: getattr(self._keeper, method).remote(*words)
        )
        self._connection = connection
        try:
            self._context = self._plan.open_context()
            models = {model.name: model for model in self._context.models if model is not None}
            # held until the process ends: what is in flight then is found by its owner's being gone
            self._held_open = open_ledger(self._plan.ledger, run=self._plan.run)
            limits = self._plan.limits
            self._fanout = Fanout(
                models,
                await self._held_open.__aenter__(),
                limits,
                Prices.load(self._plan.prices),
                spending=SharedBudget(connection, limits.max_cost_usd is not None),
                limiters={
                    name: SharedRateLimiter(connection, name)
                    for name, model in models.items()
                    if not model.capabilities.queueing
                },
            )
        except UserError as exc:
            self._cannot = Stop("user", str(exc))
            return
        self._beating = asyncio.create_task(self._beat())

    async def _beat(self) -> None:
        while True:
            await self._tell()
            await asyncio.sleep(BEAT_S)

    async def _tell(self) -> None:
        stop: Stop | None = await self._connection.ask("beat", self._fanout.progress)
        if stop is not None:
            self._fanout.stop(stop.error)

    async def _carry_out(self, batch: RowBatch) -> RowBatch:
        if self._cannot is not None:
            await self._keeper.stop.remote(self._cannot)
        if self._cannot is not None or batch.last:
            return batch._replace(rows=[], stop=self._cannot or batch.stop)
        assert self._context is not None
        dialogues = [self._context.dialogue(row) for row in batch.rows]
        made = await asyncio.gather(*map(self._fanout.run_dialogue, dialogues), return_exceptions=True)
        await self._tell()
        complete = next((at for at, row in enumerate(made) if isinstance(row, BaseException)), len(made))
        if complete == len(made):
            return batch._replace(rows=made)
        error = made[complete]
        assert isinstance(error, BaseException)
        stop = stop_of(error)
        if stop is None:
            raise error
        await self._keeper.stop.remote(stop)
        return batch._replace(rows=made[:complete], stop=stop)


def table_of(batch: RowBatch) -> Any:
    """One row of one column: between our own processes nobody looks inside."""
    import pyarrow

    return pyarrow.table({"batch": pyarrow.array([pickle.dumps(batch)], pyarrow.large_binary())})


def batch_of(table: Any) -> RowBatch:
    batch: RowBatch = pickle.loads(table.column("batch")[0].as_py())
    return batch
