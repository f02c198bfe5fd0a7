"""NeMo Gym's resources server. It is the one trainer's language that can say that a sample has no reward."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from preceptor.asking.stages import ranking
from preceptor.judge.label import template_for
from preceptor.judge.records import Group
from preceptor.judge.score import ReplyToScore
from preceptor.judge.settings import LabelSettings
from preceptor.judge.voting.cascade import Judge, Step
from preceptor.prompts.records import Message, Prompt, content_id
from preceptor.serve.doors.asking import AtDoor, reply_to, rewards_of
from preceptor.serve.doors.trainers import messages_in
from preceptor.serve.problems import Problem, documented, unavailable
from preceptor.serve.rewards import JudgedReward
from preceptor.serve.rows import counted
from preceptor.serve.service import Served

router = APIRouter(tags=["doors"], responses=documented(402, 404), prefix="/doors/nemo-gym/{name}")
ROLES = {"developer": "system"}
"""Roles of OpenAI's Responses under our names."""


class Verify(BaseModel):
    """A sample: the request of OpenAI's Responses, its response, and whatever else its row of the data set holds."""

    model_config = ConfigDict(extra="allow")

    responses_create_params: dict[str, Any]
    response: dict[str, Any]


class Compare(BaseModel):
    """Replies to one conversation, which are compared with one another."""

    model_config = ConfigDict(extra="ignore")

    conversation_history: list[dict[str, Any]]
    response_objs: list[dict[str, Any]] = Field(min_length=2)
    principle: str | None = None


class Samples(BaseModel):
    """Samples that were verified, of which the means are wanted."""

    model_config = ConfigDict(extra="ignore")

    verify_responses: list[dict[str, Any]] = Field(default_factory=list)


@router.post("/seed_session")
async def seed_session(name: str, served: Served, _: AtDoor) -> dict[str, Any]:
    """There is nothing to remember between samples."""
    served.rewards.named(name, served.bound("nemo-gym"))
    return {}


@router.post("/verify")
async def verify(name: str, asked: Verify, served: Served, caller: AtDoor) -> dict[str, Any]:
    """The sample with its reward; one that could not be judged is masked, in both places where trainers look."""
    echo = asked.model_dump()
    served.rewards.named(name, served.bound("nemo-gym"))
    try:
        row = (await rewards_of([_sample(asked)], served, "nemo-gym", name, caller))[0]
    except Problem as problem:
        if problem.status < 500:
            raise
        return echo | _masked(echo, "judge_unavailable", problem.message)
    if row.reward is None:
        return echo | _masked(echo, row.status, row.reason)
    return echo | {"reward": row.reward}


@router.post("/compare")
async def compare(name: str, asked: Compare, served: Served, caller: AtDoor) -> dict[str, Any]:
    """Bradley-Terry strengths of the replies among themselves. Where one has none the whole group is 503: the answer
    has no place for a mask."""
    rewarder = served.rewards.named(name, served.bound("nemo-gym"))
    if not isinstance(rewarder, JudgedReward):
        raise Problem(
            422, "invalid_request", f"{name} is no judge under a constitution, which comparing wants"
        )
    if asked.principle:
        raise Problem(
            422, "invalid_request", "a principle came; this reward has those of its own constitution"
        )
    counted(asked.response_objs, served.config.limits)
    turns = _turns("conversation_history", asked.conversation_history)
    texts = tuple(_text(one) for one in asked.response_objs)
    said = [turn.model_dump() for turn in turns]
    group = Group(
        id=content_id("group", said, texts),
        prompt=Prompt(id=content_id("prompt", said), messages=tuple(turns)),
        responses=texts,
        sources=tuple(str(number) for number in range(len(texts))),
    )
    way, settings = rewarder.way, LabelSettings()
    assert way.model is not None
    steps = (Step((Judge(way.model, template_for(way.model, settings)),)),)
    asking = ranking([group], rewarder.constitution, steps, settings, "mean", "circular")
    ranked = (await served.desk.ask(way, asking, caller))[0]
    if (missing := sum(score is None for score in ranked.ranking.scores)) > 0:
        raise unavailable("not_judged", f"{missing} of {len(texts)} replies have no usable comparison")
    results = [
        {
            "response_i": int(label.sources[0]),
            "response_j": int(label.sources[1]),
            "judge_idx": 0,
            "score_1": label.probability,
            "score_2": None if label.probability is None else 1 - label.probability,
            "ranking": None,
        }
        for label in ranked.labels
        if label.sources is not None
    ]
    return {
        "rewards": list(ranked.ranking.scores),
        "comparison_results": results,
        "metrics": {"comparisons": len(ranked.labels)},
    }


@router.post("/aggregate_metrics")
async def aggregate_metrics(name: str, asked: Samples, served: Served, _: AtDoor) -> dict[str, Any]:
    """Mean reward of the samples that are not masked, and the share of those that are."""
    served.rewards.named(name, served.bound("nemo-gym"))
    rows = asked.verify_responses
    rewards = [row["reward"] for row in rows if not row.get("mask_sample") and _is_number(row.get("reward"))]
    mean = {"mean/reward": sum(rewards) / len(rewards)} if rewards else {}
    masked = {"masked": (len(rows) - len(rewards)) / len(rows)} if rows else {}
    return {"agent_metrics": mean | masked, "key_metrics": mean, "group_level_metrics": []}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _masked(echo: dict[str, Any], kind: str, reason: str) -> dict[str, Any]:
    before = echo.get("instance_config")
    return {
        "reward": 0.0,
        "mask_sample": True,
        "instance_config": {**(before if isinstance(before, dict) else {}), "mask_sample": True},
        "_ng_failure_class": "judge_failed",
        "_ng_failure_judge_error": reason,
        "failure_kind": kind,
        "failure_reason": reason,
    }


def _sample(asked: Verify) -> ReplyToScore:
    given = asked.responses_create_params.get("input")
    if isinstance(given, str):
        turns = [Message(role="user", content=given)]
    else:
        turns = _turns("responses_create_params.input", given)
    if instructions := asked.responses_create_params.get("instructions"):
        turns.insert(0, Message(role="system", content=str(instructions)))
    return reply_to(turns, _text(asked.response))


def _turns(name: str, value: Any) -> list[Message]:
    """Turns of text; parts of a message that are text are joined. Raises Problem."""
    if not isinstance(value, list):
        raise Problem(422, "invalid_request", f"{name} is no list of messages")
    plain = []
    for item in value:
        role = item.get("role") if isinstance(item, dict) else None
        content = item.get("content") if isinstance(item, dict) else None
        if isinstance(content, list):
            content = "".join(
                str(part.get("text", "")) for part in content if isinstance(part, dict) and "text" in part
            )
        plain.append({"role": ROLES.get(str(role), role), "content": content})
    return messages_in(name, plain)


def _text(response: dict[str, Any]) -> str:
    """The words of a Responses object. Raises Problem where it has none of the form."""
    output = response.get("output")
    if not isinstance(output, list):
        raise Problem(
            422,
            "invalid_request",
            "the response has no list `output`; wanted an object of OpenAI's Responses",
        )
    parts = [
        part.get("text", "")
        for item in output
        if isinstance(item, dict) and isinstance(item.get("content"), list)
        for part in item["content"]
        if isinstance(part, dict) and part.get("type") == "output_text"
    ]
    return "".join(part for part in parts if isinstance(part, str))
