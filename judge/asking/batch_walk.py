"""Dialogues walked on answers that are at hand: to their row, or to what stands to be asked next. Nobody is asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from preceptor.judge.models.protocol import Dialogue, Outcome, Request

RowT = TypeVar("RowT")
Find = Callable[[Sequence[str]], Awaitable[Mapping[str, Outcome]]]
"""Keys -> the outcomes that are at hand; a key without one is absent."""


class Missing(NamedTuple):
    """What a dialogue waits for."""

    requests: tuple[Request, ...]


class Done(NamedTuple, Generic[RowT]):
    """A dialogue at its end."""

    row: RowT


async def walk(dialogues: Sequence[Dialogue[RowT]], find: Find) -> list[Done[RowT] | Missing]:
    """Where each dialogue comes to; those that miss something are closed. A round of all is looked up in one go."""
    ends: dict[int, Done[RowT] | Missing] = {}
    answers: dict[int, Sequence[Outcome] | None] = dict.fromkeys(range(len(dialogues)))
    while answers:
        asking: dict[int, Sequence[Request]] = {}
        for number, outcomes in answers.items():
            try:
                asking[number] = (
                    next(dialogues[number]) if outcomes is None else dialogues[number].send(outcomes)
                )
            except StopIteration as end:
                ends[number] = Done(end.value)
        known = await find(list({request.key for requests in asking.values() for request in requests}))
        answers = {}
        for number, requests in asking.items():
            missing = tuple(request for request in requests if request.key not in known)
            if missing:
                dialogues[number].close()
                ends[number] = Missing(missing)
            else:
                answers[number] = [known[request.key] for request in requests]
    return [ends[number] for number in range(len(dialogues))]
