"""The desk at which all models of the server are asked: one ledger, one budget, and each equal request once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from contextvars import ContextVar
from typing import NamedTuple

from preceptor.constitution.errors import UserError
from preceptor.judge.asking.budget import Budget, left_usd
from preceptor.judge.asking.fanout import Fanout, Limits, Progress, RunInterruptedError
from preceptor.judge.asking.prices import Prices
from preceptor.judge.errors import BudgetReached
from preceptor.judge.ledger import queries
from preceptor.judge.ledger.ledger import Ledger, open_ledger
from preceptor.judge.ledger.location import reading
from preceptor.judge.models.protocol import Dialogue, Model, RowT
from preceptor.judge.settings import CHECKS, Price
from preceptor.judge.user_prices import user_prices
from preceptor.serve import metrics
from preceptor.serve.auth import ANYBODY, Caller
from preceptor.serve.config import ModelEntry, ServeConfig
from preceptor.serve.jobs.store import unbooked
from preceptor.serve.keys import FRESH_S, Keyring
from preceptor.serve.problems import Problem, problem_of, unavailable
from preceptor.settings import Access

UNCAPPED = float("inf")
_log = logging.getLogger(__name__)
_payer: ContextVar[Caller] = ContextVar("payer", default=ANYBODY)
"""Whose key pays for what is asked in this context; of equal requests in flight, whoever came first."""
_most: ContextVar[Budget | None] = ContextVar("most", default=None)
"""What this one ask may spend, beside the caps of its key and of the server; None: as much as those let it."""


class ServedModel:
    """A model of the configuration, and how it is asked."""

    def __init__(self, entry: ModelEntry, ledger: Ledger, purse: Purse) -> None:
        """Raises UserError and ProviderStopped where the model cannot be used."""
        self.entry = entry
        access = Access(
            base_url={entry.model: entry.base_url} if entry.base_url else {},
            timeout_s=entry.timeout_s,
            flex=entry.flex,
        )
        self.model: Model | None = access.open_judge(entry.model)
        if self.model is not None and self.model.capabilities.person:
            raise UserError(f"{entry.model} is a person at a terminal, who cannot be served")
        own: Mapping[str, Price] = {entry.model: entry.price} if entry.price else {}
        self._prices = Prices.load({**user_prices(), **own})
        self.priced = self.model is None or self._prices.worst(self.model.name, 1, 1) is not None
        """Whether a cap can be held: the price is known, or there is none to pay."""
        self._ledger, self._purse = ledger, purse
        self._fanout: Fanout | None = None
        self._before = Progress(0, None, 0, 0, 0, 0.0, 0, 0)

    @property
    def name(self) -> str:
        """As rows name it."""
        return CHECKS if self.model is None else self.model.name

    def fanout(self) -> Fanout:
        """Another one where the last was stopped by its provider: what was wrong may have been mended."""
        if self._fanout is not None and self._fanout.stopped:
            self._before, self._fanout = self.progress, None
        if self._fanout is None:
            limits = Limits(
                concurrency=self.entry.concurrency,
                max_cost_usd=UNCAPPED if self.priced else None,
                rpm=self.entry.rpm,
                tpm=self.entry.tpm,
            )
            models = {self.model.name: self.model} if self.model else {}
            self._fanout = Fanout(models, self._ledger, limits, self._prices, spending=self._purse)
        return self._fanout

    @property
    def progress(self) -> Progress:
        """All that was asked of this model."""
        if self._fanout is None:
            return self._before
        now, before = self._fanout.progress, self._before
        names = ("asked", "from_ledger", "failed", "cost_usd", "tokens_in", "tokens_out", "estimated")
        return now._replace(**{name: getattr(now, name) + getattr(before, name) for name in names})

    async def close(self) -> None:
        """Finish what is in flight, for a limited time, and let go of the model."""
        if self._fanout is not None:
            self._fanout.stop(KeyboardInterrupt())
            with suppress(RunInterruptedError):
                async for _ in self._fanout.run(()):
                    pass
        if self.model is not None:
            await self.model.close()


class Purse:
    """What may be spent: by all together, and by each key that has a cap. Keys' spending is written down.

    What others spend under the same caps, jobs and other servers, is read from the database, at most once a second.
    """

    def __init__(
        self, keys: Keyring, cap_usd: float | None, database: str, run: str, fresh_s: float = FRESH_S
    ) -> None:
        """run: what this process's own calls are called on the bill. fresh_s: how old what is known of others may
        be."""
        self._keys, self._database, self._run, self._fresh_s = keys, database, run, fresh_s
        self._cap_usd = cap_usd
        self._all = Budget(cap_usd)
        self._by_key: dict[str, Budget] = {}
        self._known_at: dict[str, float] = {}
        """Key -> when it was read what others have spent with it; empty: of the server's bill."""
        self._looking = asyncio.Lock()
        self._writing: set[asyncio.Future[None]] = set()

    def cap(self, cap_usd: float | None) -> None:
        """Another cap for all together, from now on."""
        self._cap_usd = cap_usd
        self._all.cap_usd = cap_usd
        self._known_at.pop("", None)

    async def reserve(self, worst_usd: float) -> None:
        """As a fan-out's budget; raises Problem, which ends this request and not the fan-out."""
        await self._look()
        held: list[Budget] = []
        try:
            for whose, budget in self._budgets():
                try:
                    await budget.reserve(worst_usd)
                except BudgetReached:
                    raise _over(whose, worst_usd) from None
                held.append(budget)
        except BaseException:
            _let_go(held, worst_usd)
            raise

    async def try_reserve(self, worst_usd: float) -> bool:
        """As a fan-out's budget."""
        await self._look()
        held: list[Budget] = []
        for _, budget in self._budgets():
            if not await budget.try_reserve(worst_usd):
                _let_go(held, worst_usd)
                return False
            held.append(budget)
        return True

    def settle(self, worst_usd: float, cost_usd: float) -> None:
        """As a fan-out's budget."""
        for _, budget in self._budgets():
            budget.settle(worst_usd, cost_usd)
        payer = _payer.get()
        if payer.key and cost_usd:
            # not on the loop: the database may be busy
            writing = asyncio.get_running_loop().run_in_executor(None, self._keys.spend, payer.key, cost_usd)
            self._writing.add(writing)
            writing.add_done_callback(self._written)

    async def close(self) -> None:
        """Wait for what is being written."""
        if self._writing:
            await asyncio.wait(set(self._writing))

    def _written(self, writing: asyncio.Future[None]) -> None:
        self._writing.discard(writing)
        if not writing.cancelled() and (error := writing.exception()) is not None:
            _log.error("what a key has spent could not be written down: %s", error)

    async def _look(self) -> None:
        """Have the caps be what others have left of them. Raises LedgerError."""
        payer = _payer.get()
        mine = self._mine()
        async with self._looking:
            if self._cap_usd is not None and self._is_old(""):
                others_usd = await asyncio.to_thread(spent, self._database, self._run)
                self._all.cap_usd = left_usd(self._cap_usd, others_usd)
                self._known_at[""] = time.monotonic()
            if mine is not None and self._is_old(payer.key):
                others_usd = await asyncio.to_thread(self._spent_with, payer.key)
                mine.cap_usd = left_usd(payer.budget_usd, others_usd)
                self._known_at[payer.key] = time.monotonic()

    def _is_old(self, key: str) -> bool:
        return time.monotonic() >= self._known_at.get(key, float("-inf")) + self._fresh_s

    def _spent_with(self, key: str) -> float:
        """USD that others have spent with a key; what its jobs have spent so far counts before they end."""
        # a job that ends between the two looks counts twice until the next, and not never
        with reading(self._database) as connection:
            going_usd = unbooked(connection, key)
        return self._keys.spent_elsewhere(key) + going_usd

    def _budgets(self) -> list[tuple[str, Budget]]:
        """Every budget that a call of this context has to fit into, and what each is called."""
        named = (("this ask's budget", _most.get()), ("the budget of this key", self._mine()))
        return [
            *((whose, budget) for whose, budget in named if budget is not None),
            ("the server's budget", self._all),
        ]

    def _mine(self) -> Budget | None:
        payer = _payer.get()
        if payer.budget_usd is None:
            return None
        return self._by_key.setdefault(payer.key, Budget(payer.budget_usd))


def _let_go(held: Iterable[Budget], worst_usd: float) -> None:
    """Give reservations back of which nothing was spent."""
    for budget in held:
        budget.settle(worst_usd, 0.0)


def _over(whose: str, worst_usd: float) -> Problem:
    return Problem(
        402,
        "budget_exceeded",
        f"{whose} has no room for a call that may cost {worst_usd:.4f} USD; what is answered already stays answered",
        "insufficient_quota",
    )


class Asked(NamedTuple):
    """What a model was asked and is, for metrics."""

    model: str
    """The configuration's name of it."""
    progress: Progress


class Desk:
    """Asks the models of a configuration; made by `open_desk`."""

    def __init__(self, config: ServeConfig, ledger: Ledger, purse: Purse) -> None:
        self._ledger, self._purse = ledger, purse
        self._ways: dict[str, ServedModel] = {}
        self._put_away: list[ServedModel] = []
        self.take(config)

    def take(self, config: ServeConfig) -> None:
        """Serve the models of this configuration from now on; what is unchanged stays open.

        Raises UserError with everything that is wrong, and then nothing has changed.
        """
        cap_usd = config.limits.max_cost_usd
        kept = {way.entry.model_dump_json(): way for way in self._ways.values()}
        ways, faults = {}, []
        for name, entry in config.models.items():
            same = entry.model_dump_json()
            try:
                if same not in kept:
                    kept[same] = ServedModel(entry, self._ledger, self._purse)
            except Exception as error:
                if not hasattr(error, "exit_code"):
                    raise
                faults.append(f"  models.{name}: {error}")
                continue
            if cap_usd is not None and not kept[same].priced:
                faults.append(
                    f"  models.{name}: the price of {entry.model} is not known, so max_cost_usd cannot be held; "
                    "add price: {input: …, output: …}"
                )
            ways[name] = kept[same]
        if faults:
            raise UserError("\n".join(["the configuration cannot be served:", *faults]))
        self._put_away += [way for way in set(self._ways.values()) if way not in ways.values()]
        self._ways = ways
        self._config = config
        self._purse.cap(cap_usd)

    def way(self, name: str | None) -> ServedModel:
        """The model of this name; the only one where none is named. Raises Problem."""
        if name is None and len(self._ways) == 1:
            return next(iter(self._ways.values()))
        if name is None or name not in self._ways:
            came = "no model is named" if name is None else f"{name[:80]!r} is no model here"
            raise Problem(
                404 if name else 422, "unknown_model", f"{came}; wanted one of {', '.join(self._ways)}"
            )
        return self._ways[name]

    async def ask(
        self,
        way: ServedModel,
        dialogues: Iterable[Dialogue[RowT]],
        caller: Caller,
        most_usd: float | None = None,
    ) -> list[RowT]:
        """The rows of the dialogues, in their order. most_usd: what these may spend, whatever the key and the server
        may. Raises Problem.

        Where the deadline passes, what is in flight goes on, so that the same request finds it in the ledger.
        """
        if (caller.budget_usd is not None or most_usd is not None) and not way.priced:
            whose = "this key" if most_usd is None else "this ask"
            raise Problem(
                402,
                "price_unknown",
                f"the price of {way.name} is not known, and {whose} has a budget to hold",
            )
        fanout = way.fanout()
        token, limit = _payer.set(caller), _most.set(None if most_usd is None else Budget(most_usd))
        tasks = [asyncio.ensure_future(fanout.run_dialogue(dialogue)) for dialogue in dialogues]
        _payer.reset(token)
        _most.reset(limit)
        metrics.IN_FLIGHT.inc(len(tasks))
        try:
            async with asyncio.timeout(self._config.limits.deadline_s):
                made = await asyncio.gather(*tasks, return_exceptions=True)
        except TimeoutError:
            raise unavailable("deadline", "not every row was judged in time; ask the same again") from None
        finally:
            metrics.IN_FLIGHT.dec(len(tasks))
        rows: list[RowT] = []
        for one in made:
            if isinstance(one, UserError):  # of the judge: who asked did nothing wrong
                raise unavailable("judge_unusable", str(one), 30)
            if isinstance(one, BaseException):
                raise problem_of(one) or one
            rows.append(one)
        return rows

    def asked(self) -> list[Asked]:
        """What every model was asked so far."""
        return [Asked(name, way.progress) for name, way in self._ways.items()]

    @property
    def names(self) -> Sequence[str]:
        """Of the models."""
        return tuple(self._ways)

    async def close(self) -> None:
        """Finish what is in flight, for a limited time."""
        for way in {*self._ways.values(), *self._put_away}:
            await way.close()
        await self._purse.close()


async def open_desk(config: ServeConfig, keys: Keyring, stack: AsyncExitStack) -> Desk:
    """A desk over the configuration's database, closed with the stack. Raises UserError, LedgerError."""
    ledger = await stack.enter_async_context(open_ledger(config.database))
    desk = Desk(config, ledger, Purse(keys, config.limits.max_cost_usd, config.database, ledger.run))
    stack.push_async_callback(desk.close)
    return desk


def spent(database: str, but: str | None = None) -> float:
    """USD of all calls in a database whose price is known. but: except those of this run."""
    with reading(database) as connection:
        return queries.spent_usd(connection, but)
