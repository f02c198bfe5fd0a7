"""The flags of `preceptor train ppo | grpo | rloo` that say who gives rewards and who draws replies."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from preceptor.constitution.errors import UserError

if TYPE_CHECKING:
    from preceptor.train.rollout.rewards import RewardSource

JUDGE = "judge"
NEEDS_JUDGE = ("judge", "constitution", "max_cost", "judge_base_url")

Reward = Annotated[
    str,
    typer.Option(
        help="Folder of a reward model, module:function of a Python function (prompts, completions, **columns), or "
        "judge: the one that --judge names."
    ),
]
Judge = Annotated[
    str | None, typer.Option("--judge", help="With --reward judge: provider/model or embedded.")
]
ConstitutionName = Annotated[
    str | None,
    typer.Option(
        "--constitution", "-c", help="What a judge goes by: a shipped constitution's name or a YAML file."
    ),
]
JudgeMode = Annotated[
    Literal["group", "score"],
    typer.Option(
        "--judge-mode", help="group: replies to a prompt against one another; score: each graded on its own."
    ),
]
Principles = Annotated[
    Literal["joint", "each"],
    typer.Option("--principles", help="The judge is asked about all at once, or about each on its own."),
]
JudgeBaseUrl = Annotated[
    str | None, typer.Option("--judge-base-url", help="A compatible server for the judge.")
]
Rollouts = Annotated[
    Literal["local", "vllm"],
    typer.Option(
        "--rollouts", help="Who draws the policy's replies: this process, or the vLLM server at --base-url."
    ),
]
BaseUrl = Annotated[
    str | None, typer.Option("--base-url", help="With --rollouts vllm: the server's address.")
]
MaxCost = Annotated[
    float | None,
    typer.Option("--max-cost", min=0, help="USD that the judge may cost; training stops at the cap."),
]


def source_of(reward: str, flags: dict[str, Any], also: Collection[str] = ()) -> RewardSource:
    """The reward that the flags name. `also`: flags of the judge that somebody else goes by, a guard.

    Raises UserError where they do not go together.
    """
    sys.path.insert(0, str(Path.cwd()))  # where a person keeps the module of a reward function
    if reward != JUDGE:
        if idle := [
            f"--{name.replace('_', '-')}"
            for name in NEEDS_JUDGE
            if flags[name] is not None and name not in also
        ]:
            raise UserError(f"{' and '.join(idle)}: no effect without --reward judge")
        return reward
    for name in ("judge", "constitution"):
        if flags[name] is None:
            raise UserError(f"--reward judge needs --{name}")
    if flags["judge"] == "checks":
        raise UserError(
            "--judge checks: machine checks alone give no reward here; wanted provider/model or embedded, or a "
            "--reward module:function that checks"
        )
    from preceptor.judge.label import LabelSettings
    from preceptor.judge.reward import JudgeReward, RewardSettings
    from preceptor.judge.score import ScoreSettings

    settings = RewardSettings(
        mode=flags["judge_mode"],
        label=LabelSettings(principles=flags["principles"], seed=flags["seed"]),
        score=ScoreSettings(principles=flags["principles"], seed=flags["seed"]),
        ledger=flags["ledger"],
        concurrency=flags["concurrency"],
        max_cost_usd=flags["max_cost"],
    )
    return JudgeReward(flags["judge"], flags["constitution"], settings, base_url=flags["judge_base_url"])


def server_of(flags: dict[str, Any]) -> str | None:
    """The server that draws replies; None: nobody but this process. Raises UserError where flags contradict."""
    url: str | None = flags["base_url"]
    if flags["rollouts"] == "local":
        if url is not None:
            raise UserError(
                "--base-url has no effect without --rollouts vllm; the judge's is --judge-base-url"
            )
        return None
    if url is None:
        raise UserError("--rollouts vllm needs --base-url, such as http://localhost:8000")
    return url
