"""A ledger without threads, for a clock that does not wait for any."""

from __future__ import annotations

from collections.abc import Sequence

from preceptor.judge.ledger.ledger import Ledger
from preceptor.judge.models.protocol import Completion, Request


class InMemory(Ledger):
    """Keeps answers; of what failed nothing is remembered."""

    def __init__(self) -> None:
        self._answers: dict[str, Completion] = {}

    async def find(self, keys: Sequence[str]) -> dict[str, Completion]:
        return {key: self._answers[key] for key in keys if key in self._answers}

    async def intend(self, request: Request) -> bool:
        return request.key not in self._answers

    async def answer(self, request: Request, completion: Completion, cost_usd: float | None) -> Completion:
        assert cost_usd is not None
        self._answers[request.key] = completion
        return completion

    async def fail(
        self,
        request: Request,
        problem: str,
        paid: Completion | None = None,
        cost_usd: float | None = None,
    ) -> None:
        pass
