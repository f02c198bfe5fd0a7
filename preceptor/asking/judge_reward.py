"""A judge that rewards, reached and asked as the settings of asking say."""

from __future__ import annotations

from typing import Literal

from preceptor.judge.groupings import ScoreGrouping
from preceptor.judge.reward import JudgeReward, RewardSettings
from preceptor.judge.rubric import Rubric
from preceptor.judge.settings import LabelSettings, ScoreSettings
from preceptor.settings import Asking


def judge_reward(
    judge: str,
    constitution: str | Rubric,
    asking: Asking,
    *,
    mode: Literal["group", "score"],
    principles: ScoreGrouping,
    seed: int,
) -> JudgeReward:
    """The rewards of a judge, provider/model, by a constitution or a rubric.

    Raises UserError where one of them cannot be used.
    """
    settings = RewardSettings(
        mode=mode,
        label=LabelSettings(principles=principles, seed=seed),
        score=ScoreSettings(principles=principles, seed=seed),
        ledger=asking.ledger,
        concurrency=asking.concurrency,
        max_cost_usd=asking.max_cost_usd,
        rpm=asking.rpm,
        tpm=asking.tpm,
    )
    return JudgeReward(asking.open(judge), constitution, settings, prices=asking.prices)
