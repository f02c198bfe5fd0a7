"""The cap on what a run spends, held by reserving the worst case of a call before it leaves."""

from __future__ import annotations

import asyncio
from typing import Protocol

from preceptor.constitution.errors import UserError
from preceptor.judge.asking.prices import Prices
from preceptor.judge.errors import BudgetReached, own
from preceptor.judge.models.protocol import Request
from preceptor.judge.models.reply_limits import billed_tokens
from preceptor.judge.models.token_estimates import most_tokens_in


def worst_usd(
    request: Request, cap_usd: float | None, prices: Prices, tokens_out: int | None = None
) -> float:
    """The most that a call can cost, 0 where there is no cap to hold. tokens_out: the most that its reply is billed
    for; None: as its provider declares. Raises UserError where its price is not known."""
    if cap_usd is None:
        return 0.0
    worst = prices.worst(
        request.model, most_tokens_in(request), billed_tokens(request) if tokens_out is None else tokens_out
    )
    if worst is None:
        raise UserError(
            f"the price of {request.model} is not known, so --max-cost {cap_usd:g} "
            "cannot be held; give its price with --price IN,OUT (`prices` in a run file) or in a file of "
            "prices, or leave --max-cost out"
        )
    return worst


def left_usd(cap_usd: float | None, spent_usd: float) -> float | None:
    """What is left of a cap for work that comes later, never less than nothing; None: there is no cap."""
    return None if cap_usd is None else max(0.0, cap_usd - spent_usd)


class Spending(Protocol):
    """What a fan-out needs of a budget, its own or one that is shared."""

    async def reserve(self, worst_usd: float) -> None: ...

    async def try_reserve(self, worst_usd: float) -> bool: ...

    def settle(self, worst_usd: float, cost_usd: float) -> None: ...


class Budget:
    """Spent plus reserved never passes the cap. `cap_usd` None: nothing is held back."""

    def __init__(self, cap_usd: float | None) -> None:
        self.cap_usd = cap_usd
        self._reserved: list[float] = []
        self._spent_usd = 0.0
        self._freed = asyncio.Event()
        self._stopped: Exception | None = None

    @property
    def room_usd(self) -> float:
        """What may still be reserved just now; without a cap, infinity."""
        if self.cap_usd is None:
            return float("inf")
        return self.cap_usd - self._spent_usd - sum(self._reserved)

    def fits(self, worst_usd: float) -> bool:
        """Whether so much may be reserved just now."""
        return self.cap_usd is None or self._spent_usd + sum(self._reserved) + worst_usd <= self.cap_usd

    def reached(self, worst_usd: float) -> BudgetReached:
        """The error for a call that will never fit under the cap."""
        return BudgetReached(
            f"stopped at the budget: {self._spent_usd:.4f} of {self.cap_usd:g} USD is spent and the "
            f"next call may cost {worst_usd:.4f}; what is answered is kept, so run the same command "
            "again with a higher --max-cost to go on"
        )

    def force_reserve(self, worst_usd: float) -> None:
        """Reserve for what has left already, whether or not there is room."""
        self._reserved.append(worst_usd)

    async def reserve(self, worst_usd: float) -> None:
        """Set the worst case of a call aside, waiting while calls that hold a reservation may still cost less.

        Who waits here must hold nothing that a call with a reservation waits for, such as a slot of a rate limiter.
        Raises BudgetReached where nothing is reserved and there is still no room, and what `stop` was given.
        """
        while not self.fits(worst_usd):
            if self._stopped is not None:
                raise own(self._stopped)
            if not self._reserved:
                raise self.reached(worst_usd)
            await self._freed.wait()
        self._reserved.append(worst_usd)

    async def try_reserve(self, worst_usd: float) -> bool:  # a shared one must ask
        """Reserve without waiting for room; False, and nothing is reserved, where there is no room just now."""
        if not self.fits(worst_usd):
            return False
        self._reserved.append(worst_usd)
        return True

    def settle(self, worst_usd: float, cost_usd: float) -> None:
        """Give a reservation back and book what the call really cost, 0 where it was not answered."""
        self._reserved.remove(worst_usd)
        self._spent_usd += cost_usd
        self._wake()

    def stop(self, reason: Exception) -> None:
        """Waiting ends: every call that waits raises the reason."""
        self._stopped = reason
        self._wake()

    def _wake(self) -> None:
        self._freed.set()
        self._freed = asyncio.Event()
