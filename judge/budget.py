"""The cap on what a run spends, held by reserving the worst case of a call before it leaves."""

from __future__ import annotations

import asyncio
from typing import Protocol

from judge.errors import BudgetReached


class Spending(Protocol):
    """What a fan-out needs of a budget, its own or one that is shared."""

    async def reserve(self, worst_usd: float) -> None: ...

    async def spare(self, worst_usd: float) -> bool: ...

    def settle(self, worst_usd: float, cost_usd: float) -> None: ...


class Budget:
    """Spent plus reserved never passes the cap. `cap_usd` None: nothing is held back."""

    def __init__(self, cap_usd: float | None) -> None:
        self._cap_usd = cap_usd
        self._reserved: list[float] = []
        self._spent_usd = 0.0
        self._freed = asyncio.Event()

    async def reserve(self, worst_usd: float) -> None:
        """Set the worst case of a call aside, waiting while calls in flight may still cost less than theirs.

        Raises BudgetReached where nothing is in flight and there is still no room.
        """
        while self._cap_usd is not None and self._spent_usd + sum(self._reserved) + worst_usd > self._cap_usd:
            if not self._reserved:
                raise BudgetReached(
                    f"stopped at the budget: {self._spent_usd:.4f} of {self._cap_usd:g} USD is spent and the "
                    f"next call may cost {worst_usd:.4f}; what is answered is kept, so run the same command "
                    "again with a higher --max-cost to go on"
                )
            await self._freed.wait()
        self._reserved.append(worst_usd)

    async def spare(self, worst_usd: float) -> bool:  # a shared one must ask
        """Reserve without waiting for room; False, and nothing is reserved, where there is no room just now."""
        if self._cap_usd is not None and self._spent_usd + sum(self._reserved) + worst_usd > self._cap_usd:
            return False
        self._reserved.append(worst_usd)
        return True

    def settle(self, worst_usd: float, cost_usd: float) -> None:
        """Give a reservation back and book what the call really cost, 0 where it was not answered."""
        self._reserved.remove(worst_usd)
        self._spent_usd += cost_usd
        self._freed.set()
        self._freed = asyncio.Event()
