"""What every door does: its replies to the reward that it is bound to, and what becomes of those without a number."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, Request

from preceptor.judge.score import ReplyToScore
from preceptor.prompts.records import Message, Prompt, content_id
from preceptor.serve import metrics
from preceptor.serve.auth import Caller, caller, require
from preceptor.serve.config import DoorName, Fallback
from preceptor.serve.problems import Problem, unavailable
from preceptor.serve.rewards import Reward, count
from preceptor.serve.rows import bounded, counted
from preceptor.serve.service import Service

REMEMBERED = 10_000
"""Replies without a reward whose tries are counted, the latest."""
FATAL = frozenset({402, 429})
"""Statuses that a trainer never tries again, where a later try could succeed."""


async def at_door(request: Request) -> Caller:
    """Who asks; a key that asks too often gets 503, for trainers give up on 429."""
    try:
        found = await caller(request)
    except Problem as problem:
        if problem.status in FATAL:
            raise unavailable(problem.code, problem.message) from problem
        raise
    return require(found, "reward")


AtDoor = Annotated[Caller, Depends(at_door)]


def reply_to(turns: Sequence[Message], text: str) -> ReplyToScore:
    """A reply as rewards take it. Raises Problem for a conversation without turns."""
    if not turns:
        raise Problem(422, "invalid_request", "the conversation before the reply is empty")
    said = [turn.model_dump() for turn in turns]
    prompt = Prompt(id=content_id("prompt", said), messages=tuple(turns))
    return ReplyToScore(content_id("reply", said, text), prompt, text)


async def rewards_of(
    replies: Sequence[ReplyToScore], service: Service, door: DoorName, name: str | None, caller: Caller
) -> list[Reward]:
    """A reward for each reply, some perhaps None. Raises Problem; never one whose status a trainer gives up on."""
    limits = service.config.limits
    counted(replies, limits)
    for reply in replies:
        bounded([reply.text, *(turn.content for turn in reply.prompt.messages)], limits)
    rewarder = service.rewards.named(name, service.bound(door))
    try:
        rows = await rewarder.of(replies, caller)
    except Problem as problem:
        if problem.status in FATAL:
            raise unavailable(problem.code, problem.message, 30) from problem
        raise
    count(rows)
    metrics.UNJUDGED.labels(door).inc(sum(row.reward is None for row in rows))
    return rows


def numbers(rows: Sequence[Reward]) -> list[float]:
    """Raises Problem 503 where a reply has no reward: a door whose answers are numbers has no way to say so."""
    made = [row.reward for row in rows]
    if missing := [row for row in rows if row.reward is None]:
        raise unjudged(missing[0], len(missing), len(rows))
    return [reward for reward in made if reward is not None]


def unjudged(row: Reward, missing: int, of: int) -> Problem:
    """The problem that a reply without a reward is."""
    return unavailable(
        "not_judged", f"{missing} of {of} replies have no reward ({row.status}): {row.reason[:200]}"
    )


class Refusals:
    """How often each reply came that got no reward, so that a fallback follows only then when a user allowed it."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, int] = OrderedDict()

    def fallbacks(self, rows: Sequence[Reward], fallback: Fallback | None) -> list[float | None]:
        """For each row its reward, or the stated number once the reply was refused often enough; None: not yet, or none
        is stated. Every row of a request counts, also beside one that is refused for the first time."""
        refused = {row.id for row in rows if row.reward is None}
        stated = {reply: self._fallback(reply, fallback) for reply in refused}
        return [stated[row.id] if row.reward is None else row.reward for row in rows]

    def _fallback(self, reply: str, fallback: Fallback | None) -> float | None:
        if fallback is None:
            return None
        tries = self._seen.pop(reply, 0)
        self._seen[reply] = min(tries + 1, fallback.after)
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return fallback.reward if tries >= fallback.after else None
