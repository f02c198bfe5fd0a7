"""Who gives rewards and who draws replies: the flags of `preceptor train ppo | grpo | rloo` beside their settings."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from preceptor.cli.flags import Flags, given, warn_of_old
from preceptor.cli.train.options import PLACES
from preceptor.constitution.errors import UserError
from preceptor.judge.groupings import ScoreGrouping
from preceptor.prompts.records import Settings
from preceptor.settings import CHECKS, Asking

if TYPE_CHECKING:
    from preceptor.train.rollout.rewards import RewardSource

JUDGE = "judge"
"""Former value of --reward for the judge."""

JudgeAsking = Annotated[Asking, Flags(only=PLACES)]
"""How a judge that rewards, or that guards, is asked."""


class Rewarding(Settings):
    """Who gives the rewards, and who draws the replies that get them."""

    reward: str | None = None
    """Folder of a reward model, or module:function of a Python function (prompts, completions, **columns); else the
    judge that --judge names."""
    judge: str | None = None
    """In the place of --reward: who judges the replies, provider/model or embedded."""
    constitution: str | None = None
    """What a judge goes by: a shipped constitution's name or a YAML file."""
    rubric: Path | None = None
    """In the place of --constitution: a file of weighted criteria, by which each reply is graded."""
    judge_mode: Literal["group", "score"] = "group"
    """group: replies to a prompt against one another; score: each graded on its own.

    With --rubric every reply is graded; group: each criterion is normalised among the replies to a prompt.
    """
    principles: ScoreGrouping = "joint"
    """joint: the judge is asked about all at once; each: about each on its own."""
    vllm: str | None = None
    """Address of a vLLM server that draws the policy's replies; else this process draws them."""


class FormerFlags(Settings):
    """Spellings of before, when --base-url was the server that draws, and --judge-base-url the judge's."""

    rollouts: Literal["local", "vllm"] | None = None
    judge_base_url: str | None = None


Former = Annotated[FormerFlags, Flags(hidden=True)]


class RewardSources(NamedTuple):
    """Where a training's rewards and replies come from."""

    reward: RewardSource
    server: str | None
    asking: Asking
    """How judges are asked."""


def sources_of(
    rewarding: Rewarding, asking: Asking, former: FormerFlags, seed: int, also: Collection[str] = ()
) -> RewardSources:
    """The reward and the server that the flags name. also: fields of a judge's flags that a guard goes by.

    Raises UserError where they do not go together.
    """
    server = rewarding.vllm
    if former.rollouts is not None:
        warn_of_old("--rollouts vllm --base-url URL", "--vllm URL")
        if former.rollouts == "vllm":
            server = asking.base_url.get("")
            if server is None:
                raise UserError("--rollouts vllm needs --base-url, such as http://localhost:8000")
            asking = _at(asking, None)
    if former.judge_base_url is not None:
        warn_of_old("--judge-base-url", "--base-url")
        asking = _at(asking, former.judge_base_url)
    return RewardSources(_reward_of(rewarding, asking, seed, also), server, asking)


def _at(asking: Asking, url: str | None) -> Asking:
    """The same, at another server."""
    said = {name: value for name, value in given(asking).items() if name != "base_url"}
    return Asking(**said, **({"base_url": url} if url else {}))


def _reward_of(rewarding: Rewarding, asking: Asking, seed: int, also: Collection[str]) -> RewardSource:
    reward = rewarding.reward
    if reward == JUDGE:
        warn_of_old("--reward judge", "--judge alone")
        reward = None
        if rewarding.judge is None:
            raise UserError("--reward judge needs --judge")
    if reward is not None:
        _refuse_idle(rewarding, asking, also)
        # where a person keeps the module of a reward function; last, so that nothing there hides another module
        sys.path.append(str(Path.cwd()))
        return reward
    if rewarding.judge is None:
        raise UserError(
            "nobody rewards; name a reward model or a function with --reward, or a judge with --judge"
        )
    if (rewarding.constitution is None) is (rewarding.rubric is None):
        raise UserError("--judge needs --constitution or --rubric, one of them, which says what is rewarded")
    if rewarding.judge == CHECKS:
        raise UserError(
            "--judge checks: machine checks alone give no reward here; wanted provider/model or embedded, or a "
            "--reward module:function that checks"
        )
    asking.require_use([rewarding.judge])
    from preceptor.asking.judge_reward import judge_reward
    from preceptor.judge.rubric_forms import read_rubric

    by = rewarding.constitution if rewarding.rubric is None else read_rubric(rewarding.rubric)
    assert by is not None
    return judge_reward(
        rewarding.judge,
        by,
        asking,
        mode=rewarding.judge_mode,
        principles=rewarding.principles,
        seed=seed,
    )


def _refuse_idle(rewarding: Rewarding, asking: Asking, also: Collection[str]) -> None:
    said = [*given(rewarding), *given(asking)]
    idle = ("judge", "judge_mode", "principles", "constitution", "rubric", *PLACES)
    flags = Flags()
    found = [flags.spelling(name)[0] for name in idle if name in said and name not in also]
    if found := [flag for flag in found if flag not in ("--ledger", "--concurrency")]:
        raise UserError(
            f"{' and '.join(found)}: no effect with --reward; leave --reward out to have a judge reward"
        )
