"""PPO beside DPO: a second policy from the same start, the same prompts and the same labels, measured alike.

7-ppo/                 the policy, tuned against the reward model of 6-reward (Ouyang et al. 2022, arXiv 2203.02155)
8-heldout-ppo.jsonl    its held-out replies beside those of the run's start
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from preceptor.asking.stages import labelling
from preceptor.evaluation import head_to_head
from preceptor.evaluation.oracles import ORACLE, guard_judge
from preceptor.figures import PpoFigures
from preceptor.folder import content_of
from preceptor.judge.models.protocol import Dialogue
from preceptor.judge.records import Pair
from preceptor.judge.settings import LabelSettings
from preceptor.prompts.records import Prompt
from preceptor.records import HeldOut, StageRecord
from preceptor.run.cast import Cast
from preceptor.run.config import RunConfig, RunPpoSettings
from preceptor.run.files import HELD_OUT_PROMPTS, POLICY, PPO_HELD_OUT, PPO_POLICY, PROMPTS, REWARD, SFT
from preceptor.run.guard import part
from preceptor.run.running import Run, Stage, StageOutcome, evaluation, outcome_of
from preceptor.settings import CHECKS
from preceptor.train.estimate.schedule import saved_steps
from preceptor.train.guard.held_out import HeldOutGuard
from preceptor.train.guard.rules import rules_from
from preceptor.train.ppo.train import train_ppo
from preceptor.train.rollout.prompts import drawings
from preceptor.train.settings import PpoSettings

TRAIN, EVALUATE = "ppo", "evaluate-ppo"


def stages(config: RunConfig) -> list[Stage]:
    """The stages of this half, in order; none where a run has no PPO."""
    return [] if config.ppo is None else [_train(config, config.ppo), _evaluate(config)]


def _train(config: RunConfig, chosen: RunPpoSettings) -> Stage:
    """PPO on the run's prompts from where DPO began or where it ended, against the run's reward model, under a guard
    where the run has one."""
    begun = SFT if config.sft is not None else None
    start = POLICY if chosen.start == "dpo" else begun
    guarded = chosen.guard
    adapter = str(Path(config.out) / start) if start else None
    settings = PpoSettings.model_validate(
        chosen.model_dump(exclude={"guard", "start"})
        | {"model": config.model, "seed": config.seed, "adapter": adapter}
        | ({"guard_every": guarded.every} if guarded else {})
    )
    inputs = [PROMPTS, REWARD, *([start] if start else []), *([HELD_OUT_PROMPTS] if guarded else [])]

    def wanted(run: Run) -> dict[str, Any]:
        dumped = settings.model_dump(mode="json")
        if guarded is not None:
            dumped["guard"] = guarded.model_dump(mode="json") | {"constitution": run.constitution.identity}
            dumped["guard"]["content"] = content_of(guarded.prompts) if guarded.prompts else None
            dumped["guard"] |= {"map": config.prompts.map} if config.prompts.map else {}
        return dumped

    def work(run: Run) -> StageOutcome:
        prompts = run.read(PROMPTS, Prompt)
        reward, out = str(run.path / REWARD), run.path / PPO_POLICY
        with run.screen.training("ppo") as watch:
            if guarded is None:
                return outcome_of(train_ppo(prompts, settings, out, reward=reward, watch=watch))
            held_out, columns = run.read(HELD_OUT_PROMPTS, Prompt), config.prompts.columns
            parted = part(prompts, held_out, guarded, config.seed, columns)
            judge = guard_judge(guarded.judge, run.constitution, run.asking)
            guard = HeldOutGuard(parted.looked_at, judge, rules_from(guarded.rules), settings)
            trained = train_ppo(parted.train, settings, out, reward=reward, guard=guard, watch=watch)
        outcome = outcome_of(trained, parted.set_aside)
        about = {"judge": judge.name, "meaning": judge.meaning, "prompts": len(parted.looked_at)}
        about |= {"prompts_left_out": parted.left_out} if parted.left_out else {}
        figures = {**outcome.figures, "guard": {**trained.metrics["guard"], **about}}
        return outcome._replace(figures=figures, cost_usd=judge.spent_usd())

    return Stage(
        name=TRAIN,
        sections=("ppo", "model", "seed"),
        inputs=tuple(inputs),
        outputs=(PPO_POLICY,),
        settings=wanted,
        work=work,
        asks=partial(_guarding, chosen),
    )


def _guarding(chosen: RunPpoSettings, cast: Cast) -> Iterator[Dialogue[Any]]:
    """What a model that guards PPO is asked at most, with replies as long as they may be: no look after a stop."""
    guarded = chosen.guard
    if guarded is None or guarded.judge == CHECKS or guarded.judge.startswith(ORACLE):
        return
    judge = cast.config.open_judge(guarded.judge)
    parted = part(cast.train, cast.held_out, guarded, cast.config.seed, cast.config.prompts.columns)
    steps = drawings(
        len(parted.train), epochs=chosen.epochs, samples=chosen.samples, batch_size=chosen.batch_size
    )
    for step in (0, *saved_steps(steps, guarded.every)):
        new, old = (f"{name} {step}" + " mmm" * chosen.max_new_tokens for name in ("policy", "start"))
        pairs = [
            Pair(id=f"guard-{prompt.id}", prompt=prompt, response_a=new, response_b=old)
            for prompt in parted.looked_at
        ]
        yield from labelling(pairs, cast.constitution, judge, LabelSettings())


def _evaluate(config: RunConfig) -> Stage:
    """Its held-out replies beside those of the run's start, and how far it has moved."""
    stage = evaluation(config, EVALUATE, PPO_POLICY, PPO_HELD_OUT)
    return replace(stage, tells=lambda run, records: {"ppo": figures(run, records)})


def figures(run: Run, records: Sequence[StageRecord]) -> PpoFigures:
    """As `summary.json` has them under `ppo`: what it has of the first policy, KL in nats a reply, and seconds."""
    by_name = {record.stage: record for record in records}
    trained, evaluated = (by_name[name] for name in (TRAIN, EVALUATE))
    found: dict[str, Any] = {
        **head_to_head.figures(run.read(PPO_HELD_OUT, HeldOut)),
        **evaluated.figures,
        "steps": trained.figures.get("step"),
        "wall_s": trained.wall_s,
        **{name: trained.figures[name] for name in ("stopped", "guard") if name in trained.figures},
    }
    return cast("PpoFigures", found)  # a record's figures are what its stage has written there
