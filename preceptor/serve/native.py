"""The service's own routes: pairs -> labels, replies -> scores, replies -> rewards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse
from pydantic import Discriminator, Field, Tag

from preceptor.asking.stages import judging, ranking
from preceptor.constitution.principle import Constitution
from preceptor.judge.label import require_order, template_for
from preceptor.judge.records import Label, Pair
from preceptor.judge.settings import LabelSettings, Schedule, ScoreSettings
from preceptor.judge.voting.cascade import Judge, Step
from preceptor.prompts.records import Record, Settings
from preceptor.serve import metrics
from preceptor.serve.auth import Caller, caller, needs, require
from preceptor.serve.desk import ServedModel
from preceptor.serve.doors.scoring import PairsRequest
from preceptor.serve.doors.scoring import score as score_pairs
from preceptor.serve.problems import Problem, documented
from preceptor.serve.rewards import Reward, count, graded, require_some
from preceptor.serve.rows import groups_in_request, pairs_in_request, replies_in
from preceptor.serve.service import Served, Service

router = APIRouter(tags=["judging"], responses=documented(402, 404))
MayJudge = Annotated[Caller, Depends(needs("judge"))]
MayReward = Annotated[Caller, Depends(needs("reward"))]
WithKey = Annotated[Caller, Depends(caller)]
Items = Annotated[list[dict[str, Any]], Field(min_length=1)]


class JudgeRequest(Settings):
    """Pairs, or groups, that are to be labelled."""

    items: Items
    """Rows as `preceptor label` reads them."""
    judge: str | None = None
    """One of the configuration's models; may be absent where there is one."""
    constitution: str | None = None
    """One of the configuration's constitutions; may be absent where there is one."""
    settings: LabelSettings = LabelSettings()
    """As the flags of `preceptor label`, but for `template`."""
    groups: Schedule | None = None
    """Rank all replies of a row, comparing them by this schedule."""


class ScoreRequest(Settings):
    """Replies that are to be graded."""

    items: Items
    """Rows with `prompt` or `messages`, `response`, and where they have them `id` and `tags`."""
    judge: str | None = None
    constitution: str | None = None
    settings: ScoreSettings = ScoreSettings()
    """As the flags of `preceptor score`, but for `template`."""


class RewardRequest(Settings):
    """Replies that are to be rewarded."""

    items: Items
    """Rows with `prompt` or `messages`, `response`, and where they have them `id` and `tags`."""
    reward: str | None = None
    """One of the configuration's rewards; may be absent where there is one."""


class RewardAnswer(Record):
    """Rewards in the order of the request."""

    items: list[Reward]


@router.post("/v1/judge")
async def judge(asked: JudgeRequest, served: Served, caller: MayJudge) -> Response:
    """Labels as `preceptor label` writes them, in the order of the request; of groups also their rankings."""
    _require_own_template(asked.settings)
    way, rules = served.desk.way(asked.judge), served.rewards.constitution(asked.constitution)
    limits = served.config.limits
    if asked.groups is None:
        pairs = pairs_in_request(asked.items, limits)
        labels = await labelled(pairs, rules, way, asked.settings, served, caller)
        rankings = None
    else:
        groups = groups_in_request(asked.items, limits)
        steps = alone(way, asked.settings)
        ranked = await served.desk.ask(
            way, ranking(groups, rules, steps, asked.settings, "mean", asked.groups), caller
        )
        labels = [label for one in ranked for label in one.labels]
        rankings = [one.ranking for one in ranked]
    for label in labels:
        metrics.ROWS.labels("label", label.status).inc()
    return _as_written({"items": labels} if rankings is None else {"items": labels, "rankings": rankings})


async def labelled(
    pairs: Sequence[Pair],
    rules: Constitution,
    way: ServedModel,
    settings: LabelSettings,
    served: Service,
    caller: Caller,
) -> list[Label]:
    """The labels of pairs by one judge, in their order. Raises Problem."""
    steps = alone(way, settings)
    return await served.desk.ask(way, judging(pairs, rules, steps, settings, "mean"), caller)


def alone(way: ServedModel, settings: LabelSettings) -> tuple[Step, ...]:
    """A panel of this one judge."""
    require_order([way.model], settings)
    template = template_for(way.model, settings) if way.model else None
    return (Step((Judge(way.model, template),)),)


def _kind(body: Any) -> str:
    """vLLM has a route of the same name, whose requests name what is asked and what is replied apart."""
    return (
        "pairs" if isinstance(body, Mapping) and {"queries", "text_1", "data_1"} & body.keys() else "replies"
    )


Scored = Annotated[
    Annotated[ScoreRequest, Tag("replies")] | Annotated[PairsRequest, Tag("pairs")], Discriminator(_kind)
]


@router.post("/v1/score")
async def score(asked: Scored, served: Served, caller: WithKey) -> Response:
    """Scores as `preceptor score` writes them, in the order of the request; or vLLM's, as `/score` answers."""
    if isinstance(asked, PairsRequest):
        return JSONResponse(await score_pairs(asked, served, require(caller, "reward")))
    require(caller, "judge")
    _require_own_template(asked.settings)
    way, rules = served.desk.way(asked.judge), served.rewards.constitution(asked.constitution)
    replies = replies_in(asked.items, served.config.limits)
    rows = await graded(replies, rules, way, asked.settings, served.desk, caller)
    count(rows)
    require_some(rows)
    return _as_written({"items": rows})


@router.post("/v1/reward")
async def reward(asked: RewardRequest, served: Served, caller: MayReward) -> RewardAnswer:
    """A reward for each reply, or null with a status and the reason."""
    rewarder = served.rewards.named(asked.reward)
    rows = await rewarder.of(replies_in(asked.items, served.config.limits), caller)
    count(rows)
    require_some(rows)
    return RewardAnswer(items=rows)


def _as_written(parts: dict[str, Iterable[Record]]) -> Response:
    """The rows as the command's files hold them, byte for byte."""
    members = (f'"{name}":[{",".join(row.line() for row in rows)}]' for name, rows in parts.items())
    return Response(f"{{{','.join(members)}}}", media_type="application/json")


def _require_own_template(settings: LabelSettings | ScoreSettings) -> None:
    """Raises Problem where a client names a file of the server's."""
    if settings.template:
        raise Problem(
            422,
            "invalid_request",
            "a template is a file of the server's; rewards in its configuration may have one",
        )
