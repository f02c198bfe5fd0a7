"""Clients by failures: what a trainer takes for the reward."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from preceptor.constitution.errors import UserError
from preceptor.serve.conform.clients import Ask, client_named
from preceptor.serve.conform.failing import ASKED, FAILURES, TRUE, FailingServer, JudgeFailure

CellOutcome = Literal["none", "raises", "right", "invented"]
"""None, an exception, the judge's own numbers, or a number that nobody gave."""
MOST_S = 300.0
"""How long a client may take over one failure; then it counts as one that raises."""


class Cell(NamedTuple):
    """What came of one failure at one client."""

    outcome: CellOutcome
    said: str
    """The exception's name, or the numbers that were invented."""

    def told(self) -> str:
        """As the table has it."""
        if self.outcome == "invented":
            return f"**invented** {self.said}"
        return f"raises {self.said}" if self.outcome == "raises" else self.outcome


Table = Mapping[str, Mapping[str, Cell]]
"""JudgeFailure -> client -> what came of it."""


def looked_at(names: Sequence[str]) -> Table:
    """Every failure at every client. Raises UserError for a client that is none, or that takes no right answer."""
    makes = {name: client_named(name) for name in names}
    with FailingServer().serving() as server:
        clients = {name: make(server.url) for name, make in makes.items()}
        for name, ask in clients.items():
            right = _cell(ask, None)
            if right.outcome != "right":
                raise UserError(
                    f"{name} does not take a right answer ({right.told()}), so that failures show nothing of it; "
                    "wanted the rewards that POST /v1/reward gives"
                )
        table: dict[str, dict[str, Cell]] = {}
        for failure, way in FAILURES.items():
            server.failure = way
            table[failure] = {name: _cell(ask, way) for name, ask in clients.items()}
    return table


def markdown_of(table: Table, failures: Mapping[str, JudgeFailure] = FAILURES) -> str:
    """The table as Markdown."""
    names = list(next(iter(table.values())))
    lines = [f"| failure | what is sent | {' | '.join(names)} |", f"|---|---|{'---|' * len(names)}"]
    lines += [
        f"| {failure} | {failures[failure].what} | {' | '.join(row[name].told() for name in names)} |"
        for failure, row in table.items()
    ]
    return "\n".join(lines)


def invented(table: Table) -> list[tuple[str, str]]:
    """(failure, client) of every cell with a number that nobody gave."""
    return [
        (failure, name)
        for failure, row in table.items()
        for name, cell in row.items()
        if cell.outcome == "invented"
    ]


def _cell(ask: Ask, failure: JudgeFailure | None) -> Cell:
    replies = list(TRUE)

    async def bounded() -> list[Any]:
        return await asyncio.wait_for(ask([ASKED] * len(replies), replies), MOST_S)

    try:
        rewards = asyncio.run(bounded())
    except Exception as error:
        return Cell("raises", type(error).__name__)
    return _judged(rewards, [*TRUE.values()], failure is None or failure.has_rewards)


def _judged(rewards: Sequence[Any], true: Sequence[float], may_be_right: bool) -> Cell:
    """A number is invented unless the answer held it for that very reply."""
    numbers = [None if reward is None or math.isnan(reward) else float(reward) for reward in rewards]
    if len(numbers) != len(true):
        return Cell("invented", f"{len(numbers)} rewards for {len(true)} replies")
    wrong = [
        number
        for number, one in zip(numbers, true, strict=True)
        if number is not None and not (may_be_right and number == one)
    ]
    if wrong:
        return Cell("invented", ", ".join(f"{number:g}" for number in dict.fromkeys(wrong)))
    return Cell("none", "") if None in numbers else Cell("right", "")
