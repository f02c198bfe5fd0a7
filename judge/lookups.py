"""Questions to the ledger, gathered: looking up one key costs about as much as looking up fifty."""

from __future__ import annotations

import asyncio

from judge.ledger import Ledger
from judge.models.protocol import Completion

TOGETHER_S = 0.002
"""How long a look-up waits for others to go with it."""


class LookUps:
    """The ledger's answers, one key at a time for those who ask."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._wanted: dict[str, asyncio.Future[Completion | None]] = {}
        self._going: set[asyncio.Task[None]] = set()

    async def find(self, key: str) -> Completion | None:
        """The answer, None where there is none. A key is asked for by one at a time."""
        wanted: asyncio.Future[Completion | None] = asyncio.get_running_loop().create_future()
        self._wanted[key] = wanted
        if len(self._wanted) == 1:
            task = asyncio.create_task(self._together())
            self._going.add(task)
            task.add_done_callback(self._going.discard)
        return await wanted

    async def _together(self) -> None:
        await asyncio.sleep(TOGETHER_S)
        wanted, self._wanted = self._wanted, {}
        try:
            found = await self._ledger.find(list(wanted))
        except Exception as exc:  # whatever it is, those who wait must hear of it
            for waiter in wanted.values():
                if not waiter.done():
                    waiter.set_exception(exc)
            return
        for key, waiter in wanted.items():
            if not waiter.done():
                waiter.set_result(found.get(key))
