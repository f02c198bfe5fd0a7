"""OpenRLHF's remote reward model, and slime's."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from preceptor.judge.score import ReplyToScore
from preceptor.prompts.pool import conversation
from preceptor.prompts.records import Message
from preceptor.prompts.rows import BadRowError
from preceptor.serve.auth import Caller
from preceptor.serve.doors.asking import AtDoor, Refusals, reply_to, rewards_of, unjudged
from preceptor.serve.doors.turns import prompt_turns, reply_in, without_end
from preceptor.serve.problems import Problem, documented
from preceptor.serve.rewards import Reward
from preceptor.serve.service import Served, Service

router = APIRouter(tags=["doors"], responses=documented(402, 404))
_tries = Refusals()


class OpenRlhfRequest(BaseModel):
    """What `--reward.remote_url` sends: decoded sequences with their special tokens, and the prompts that they begin
    with. Of several URLs all but the first get empty lists."""

    model_config = ConfigDict(extra="ignore")

    query: list[str]
    prompts: list[str]
    labels: list[Any] | None = None


class SlimeRequest(BaseModel):
    """What `--rm-type remote_rm` sends: one sample."""

    model_config = ConfigDict(extra="ignore")

    prompt: str | list[dict[str, Any]]
    response: str
    label: Any = None


@router.post("/get_reward")
async def get_reward(asked: OpenRlhfRequest, served: Served, caller: AtDoor) -> dict[str, Any]:
    """`/doors/openrlhf/NAME`, where the configuration binds one reward to that door."""
    return await _openrlhf(asked, served, None, caller)


@router.post("/doors/openrlhf/{name}")
async def openrlhf(name: str, asked: OpenRlhfRequest, served: Served, caller: AtDoor) -> dict[str, Any]:
    """Rewards in OpenRLHF's form. A reply that is not judged is 503, which OpenRLHF tries again."""
    return await _openrlhf(asked, served, name, caller)


async def _openrlhf(
    asked: OpenRlhfRequest, served: Service, name: str | None, caller: Caller
) -> dict[str, Any]:
    if len(asked.query) != len(asked.prompts):
        raise Problem(
            422,
            "invalid_request",
            f"{len(asked.query)} queries with {len(asked.prompts)} prompts; wanted as many",
        )
    replies = [
        _of_sequence(query, prompt, number)
        for number, (query, prompt) in enumerate(zip(asked.query, asked.prompts, strict=True), 1)
    ]
    rows = await rewards_of(replies, served, "openrlhf", name, caller)
    made, fallen = _with_fallback(rows, served, "openrlhf")
    extra = {"unjudged": fallen} if fallen else {}
    return {"rewards": made, "scores": made, "extra_logs": extra}


@router.post("/doors/slime/{name}")
async def slime(name: str, asked: SlimeRequest, served: Served, caller: AtDoor) -> float:
    """The reward itself, which is all that slime takes. A reply that is not judged is 503, which it tries again."""
    given = asked.prompt
    turns = prompt_turns(given) if isinstance(given, str) else messages_in("prompt", given)
    rows = await rewards_of([reply_to(turns, without_end(asked.response))], served, "slime", name, caller)
    return _with_fallback(rows, served, "slime")[0][0]


def _of_sequence(query: str, prompt: str, number: int) -> ReplyToScore:
    text = reply_in(query, prompt)
    if text is None:
        raise Problem(
            422,
            "invalid_request",
            f"query {number} does not begin with its prompt, so its reply cannot be told",
        )
    return reply_to(prompt_turns(prompt), text)


def messages_in(name: str, value: Any) -> list[Message]:
    """Messages as a request gives them. Raises Problem."""
    try:
        return list(conversation(name, value))
    except BadRowError as bad:
        raise Problem(422, "invalid_request", f"{bad.came}; wanted {bad.wanted}") from None


def _with_fallback(
    rows: list[Reward], served: Service, door: Literal["openrlhf", "slime"]
) -> tuple[list[float], int]:
    """(a number for each row, how many of them are the stated fallback). Raises Problem 503 for a row without one."""
    found = _tries.fallbacks(rows, served.config.fallback.get(door))
    missing = [row for row in rows if row.reward is None]
    for row, reward in zip(rows, found, strict=True):
        if reward is None:
            raise unjudged(row, len(missing), len(rows))
    return [reward for reward in found if reward is not None], len(missing)
