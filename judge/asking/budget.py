"""The cap on what a run spends, held by reserving the worst case of a call before it leaves."""

from __future__ import annotations

import asyncio
from typing import Protocol

from preceptor.constitution.errors import UserError
from preceptor.judge.asking.prices import Prices, most_tokens_in
from preceptor.judge.errors import BudgetReached
from preceptor.judge.models.protocol import Request
from preceptor.judge.models.reply_limits import billed_tokens


def worst_usd(request: Request, cap_usd: float | None, prices: Prices) -> float:
    """The most that a call can cost, 0 where there is no cap to hold. Raises UserError where its price is not known."""
    if cap_usd is None:
        return 0.0
    worst = prices.worst(request.model, most_tokens_in(request), billed_tokens(request))
    if worst is None:
        raise UserError(
            f"the price of {request.model} is not known, so --max-cost {cap_usd:g} "
            "cannot be held; give its price with --price IN,OUT or in a file of prices, or leave --max-cost out"
        )
    return worst


class Spending(Protocol):
    """What a fan-out needs of a budget, its own or one that is shared."""

    async def reserve(self, worst_usd: float) -> None: ...

    async def spare(self, worst_usd: float) -> bool: ...

    def settle(self, worst_usd: float, cost_usd: float) -> None: ...


class Budget:
    """Spent plus reserved never passes the cap. `cap_usd` None: nothing is held back."""

    def __init__(self, cap_usd: float | None) -> None:
        self.cap_usd = cap_usd
        self._reserved: list[float] = []
        self._spent_usd = 0.0
        self._freed = asyncio.Event()

    @property
    def room_usd(self) -> float:
        """What may still be reserved just now; without a cap, infinity."""
        if self.cap_usd is None:
            return float("inf")
        return self.cap_usd - self._spent_usd - sum(self._reserved)

    def owe(self, worst_usd: float) -> None:
        """Reserve for what has left already, whether or not there is room."""
        self._reserved.append(worst_usd)

    async def reserve(self, worst_usd: float) -> None:
        """Set the worst case of a call aside, waiting while calls in flight may still cost less than theirs.

        Raises BudgetReached where nothing is in flight and there is still no room.
        """
        while self.cap_usd is not None and self._spent_usd + sum(self._reserved) + worst_usd > self.cap_usd:
            if not self._reserved:
                raise BudgetReached(
                    f"stopped at the budget: {self._spent_usd:.4f} of {self.cap_usd:g} USD is spent and the "
                    f"next call may cost {worst_usd:.4f}; what is answered is kept, so run the same command "
                    "again with a higher --max-cost to go on"
                )
            await self._freed.wait()
        self._reserved.append(worst_usd)

    async def spare(self, worst_usd: float) -> bool:  # a shared one must ask
        """Reserve without waiting for room; False, and nothing is reserved, where there is no room just now."""
        if self.cap_usd is not None and self._spent_usd + sum(self._reserved) + worst_usd > self.cap_usd:
            return False
        self._reserved.append(worst_usd)
        return True

    def settle(self, worst_usd: float, cost_usd: float) -> None:
        """Give a reservation back and book what the call really cost, 0 where it was not answered."""
        self._reserved.remove(worst_usd)
        self._spent_usd += cost_usd
        self._freed.set()
        self._freed = asyncio.Event()
