"""PPO beside DPO: a second policy from the same start, the same prompts and the same labels, measured alike.

7-ppo/                 the policy, tuned against the reward model of 6-reward (Ouyang et al. 2022, arXiv 2203.02155)
8-heldout-ppo.jsonl    its held-out replies beside those of the run's start
"""

from __future__ import annotations

from typing import Any

from preceptor.evaluation import head_to_head
from preceptor.evaluation.oracles import guard_judge
from preceptor.folder import content_of
from preceptor.prompts.records import Prompt
from preceptor.records import HeldOut, StageRecord
from preceptor.run import running
from preceptor.run.config import RunConfig
from preceptor.run.guard import part
from preceptor.run.running import HELD_OUT_PROMPTS, POLICY, PROMPTS, REWARD, SFT, Outcome, Run, outcome_of
from preceptor.train.guard.held_out import HeldOutGuard
from preceptor.train.guard.rules import rules_from
from preceptor.train.ppo.train import train_ppo
from preceptor.train.settings import PpoSettings

PPO_POLICY, PPO_HELD_OUT = "7-ppo", "8-heldout-ppo.jsonl"
STAGES = ("ppo", "evaluate-ppo")


def stage_names(config: RunConfig) -> tuple[str, ...]:
    """The stages of this half, in order; none where a run has no PPO."""
    return STAGES if config.ppo is not None else ()


def train(run: Run) -> None:
    """PPO on the run's prompts from where DPO began or where it ended, against the run's reward model, under a guard
    where the run has one."""
    if run.config.ppo is None:
        return
    begun = SFT if run.config.sft is not None else None
    start = POLICY if run.config.ppo.start == "dpo" else begun
    guarded = run.config.ppo.guard
    plain = run.config.ppo.model_dump(exclude={"guard", "start"})
    settings = PpoSettings.model_validate(
        plain
        | {
            "model": run.config.model,
            "seed": run.config.seed,
            "adapter": str(run.path / start) if start else None,
        }
        | ({"guard_every": guarded.every} if guarded else {})
    )

    def work() -> Outcome:
        prompts = run.read(PROMPTS, Prompt)
        reward, out = str(run.path / REWARD), run.path / PPO_POLICY
        with run.screen.training("ppo") as watch:
            if guarded is None:
                return outcome_of(train_ppo(prompts, settings, out, reward=reward, watch=watch))
            parted = part(prompts, run.read(HELD_OUT_PROMPTS, Prompt), guarded, run.config.seed)
            judge = guard_judge(guarded.judge, run.constitution, run.asking)
            guard = HeldOutGuard(parted.looked_at, judge, rules_from(guarded.rules), settings)
            trained = train_ppo(parted.train, settings, out, reward=reward, guard=guard, watch=watch)
        outcome = outcome_of(trained, parted.set_aside)
        about = {"judge": judge.name, "meaning": judge.meaning, "prompts": len(parted.looked_at)}
        about |= {"prompts_left_out": parted.left_out} if parted.left_out else {}
        figures = {**outcome.figures, "guard": {**trained.metrics["guard"], **about}}
        return outcome._replace(figures=figures, cost_usd=judge.spent_usd())

    inputs = [PROMPTS, REWARD, *([start] if start else [])]
    wanted = settings.model_dump(mode="json")
    if guarded is not None:
        inputs.append(HELD_OUT_PROMPTS)
        wanted["guard"] = guarded.model_dump(mode="json") | {"constitution": run.constitution.identity}
        wanted["guard"]["content"] = content_of(guarded.prompts) if guarded.prompts else None
    run.stage("ppo", wanted, inputs, [PPO_POLICY], work)


def evaluate(run: Run) -> None:
    """Its held-out replies beside those of the run's start, and how far it has moved."""
    if run.config.ppo is not None:
        running.evaluate(run, "evaluate-ppo", PPO_POLICY, PPO_HELD_OUT)


def figures(run: Run, records: list[StageRecord]) -> dict[str, Any]:
    """As `summary.json` has them under `ppo`: what it has of the first policy, KL in nats a reply, and seconds."""
    by_name = {record.stage: record for record in records}
    trained, evaluated = (by_name[name] for name in STAGES)
    return {
        **head_to_head.figures(run.read(PPO_HELD_OUT, HeldOut)),
        **evaluated.figures,
        "steps": trained.figures.get("step"),
        "wall_s": trained.wall_s,
        **{name: trained.figures[name] for name in ("stopped", "guard") if name in trained.figures},
    }
