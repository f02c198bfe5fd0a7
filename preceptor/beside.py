"""PPO beside DPO: a second policy from the same start, the same prompts and the same labels, measured alike.

7-ppo/                 the policy, tuned against the reward model of 6-reward (Ouyang et al. 2022, arXiv 2203.02155)
8-heldout-ppo.jsonl    its held-out replies beside those of the run's start
"""

from __future__ import annotations

from typing import Any

from preceptor import evaluation, running
from preceptor.config import RunConfig
from preceptor.records import HeldOut, StageRecord
from preceptor.running import PROMPTS, REWARD, SFT, Outcome, Run, outcome_of
from prompts.records import Prompt
from train.ppo import train_ppo

PPO_POLICY, PPO_HELD_OUT = "7-ppo", "8-heldout-ppo.jsonl"
STAGES = ("ppo", "evaluate-ppo")


def stage_names(config: RunConfig) -> tuple[str, ...]:
    """The stages of this half, in order; none where a run has no PPO."""
    return STAGES if config.ppo is not None else ()


def train(run: Run) -> None:
    """PPO on the run's prompts from the SFT model or the base, against the run's reward model."""
    if run.config.ppo is None:
        return
    start = SFT if run.config.sft is not None else None
    settings = run.config.ppo.model_copy(
        update={
            "model": run.config.model,
            "seed": run.config.seed,
            "adapter": str(run.path / start) if start else None,
        }
    )

    def work() -> Outcome:
        prompts = run.read(PROMPTS, Prompt)
        with run.screen.training("ppo") as watch:
            trained = train_ppo(
                prompts, settings, run.path / PPO_POLICY, reward=str(run.path / REWARD), watch=watch
            )
        return outcome_of(trained)

    inputs = [PROMPTS, REWARD, *([start] if start else [])]
    run.stage("ppo", settings.model_dump(mode="json"), inputs, [PPO_POLICY], work)


def evaluate(run: Run) -> None:
    """Its held-out replies beside those of the run's start, and how far it has moved."""
    if run.config.ppo is not None:
        running.evaluate(run, "evaluate-ppo", PPO_POLICY, PPO_HELD_OUT)


def figures(run: Run, records: list[StageRecord]) -> dict[str, Any]:
    """As `summary.json` has them under `ppo`: what it has of the first policy, KL in nats a reply, and seconds."""
    by_name = {record.stage: record for record in records}
    trained, evaluated = (by_name[name] for name in STAGES)
    return {
        **evaluation.figures(run.read(PPO_HELD_OUT, HeldOut)),
        **evaluated.figures,
        "steps": trained.figures.get("step"),
        "wall_s": trained.wall_s,
        **({"stopped": trained.figures["stopped"]} if "stopped" in trained.figures else {}),
    }
