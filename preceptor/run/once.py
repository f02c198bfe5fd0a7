"""The stages that a run does once, whatever its rounds: prompts, first replies, revisions, SFT, reward model, probes.

As in Bai et al. 2022 (arXiv 2212.08073), revisions first tune the model by SFT; what is compared are then samples of
that model. Without `sft` the first responses are compared, with `revise` also their revisions.

Importing this module imports `train`, and so torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from preceptor import folder
from preceptor.asking import stages
from preceptor.asking.work import run_job_or_raise
from preceptor.constitution.errors import UserError
from preceptor.evaluation import probes
from preceptor.evaluation.oracles import by_checks
from preceptor.figures import RewardSummary
from preceptor.judge.models.protocol import Dialogue
from preceptor.judge.records import Preference, Response, Revision
from preceptor.judge.settings import ReviseSettings
from preceptor.judge.voting.cascade import together
from preceptor.prompts.rows import write_rows, writing
from preceptor.records import StageRecord
from preceptor.run import rounds
from preceptor.run.cast import Cast, Way
from preceptor.run.config import RunConfig
from preceptor.run.files import (
    HELD_OUT_PROMPTS,
    POLICY,
    PREFERENCES,
    PROBES,
    PROMPTS,
    RESPONSES,
    REVISIONS,
    REWARD,
    SFT,
    TUNED_RESPONSES,
)
from preceptor.run.running import (
    Run,
    Stage,
    StageOutcome,
    chosen_prompts,
    held_out_replies,
    outcome_of,
    sampling,
)
from preceptor.settings import ProbeSettings
from preceptor.train.data.readers import read_demonstrations
from preceptor.train.reward import train_reward
from preceptor.train.settings import RewardModelSettings, SftSettings, principle_settings
from preceptor.train.sft import train_sft

PROBE = "probe"


def prompts(config: RunConfig) -> Stage:
    """Which prompts are trained on, and which are held out."""
    settings = config.prompts

    def work(run: Run) -> StageOutcome:
        found = chosen_prompts(config)
        write_rows(run.path / HELD_OUT_PROMPTS, found.held_out)
        write_rows(run.path / PROMPTS, found.train)
        chosen = len(found.train)
        return StageOutcome(chosen + sum(found.set_aside.values()), chosen, found.set_aside)

    def wanted(_: Run) -> dict[str, Any]:
        sources = {name: folder.content_of(name) for name in (settings.file, settings.held_out) if name}
        return {"settings": settings.model_dump(mode="json"), "seed": config.seed, "sources": sources}

    return Stage(
        name="prompts",
        sections=("prompts", "seed"),
        inputs=(),
        outputs=(PROMPTS, HELD_OUT_PROMPTS),
        settings=wanted,
        work=work,
    )


def responses(config: RunConfig) -> Stage:
    """The model's first replies: to all prompts where they are revised for SFT, which is no round's yet."""
    asked = PROMPTS if config.sft is not None else _first_prompts(config)
    return sampling(config, "respond", asked, RESPONSES, config.seed)


def _first_prompts(config: RunConfig) -> str:
    return rounds.prompts_of(config, rounds.rounds_of(config)[0])


def revisions(config: RunConfig) -> list[Stage]:
    """Replies criticised and revised; with `revise` alone."""
    return [] if config.revise is None else [_revise(config, config.revise)]


def _revise(config: RunConfig, chosen: ReviseSettings) -> Stage:
    seeded = chosen.model_copy(update={"seed": config.seed})
    critic = config.critic or config.model
    most = config.revised_samples

    def work(run: Run) -> StageOutcome:
        every = run.read(RESPONSES, Response)
        wanted = [response for response in every if most is None or response.sample < most]
        found: Counter[str] = Counter()
        with run.screen.asking("revise") as watch, writing(run.path / REVISIONS) as write:

            def keep(revision: Revision) -> None:
                found[revision.status] += 1
                write(revision)

            to_revise = partial(stages.to_revise, critic, run.asking, run.constitution, seeded)
            asked = run_job_or_raise(stages.AskJob(wanted, to_revise), run.asking, keep, watch)
        beyond = len(every) - len(wanted)
        aside = {"past revised_samples": beyond} if beyond else {}
        return StageOutcome(len(every), asked.rows, aside, asked.progress.cost_usd, {"status": dict(found)})

    def walk(way: Way, cast: Cast) -> Dialogue[None]:
        first = way.rows.get(RESPONSES, ())[:most]
        revised = yield from together(list(stages.revising(first, cast.constitution, cast.critic, seeded)))
        way.rows[REVISIONS] = revised

    return Stage(
        name="revise",
        sections=("revise", "revised_samples", "critic", "constitution"),
        inputs=(RESPONSES,),
        outputs=(REVISIONS,),
        settings=lambda run: {
            "critic": critic,
            "revised_samples": most,
            "constitution": run.constitution.identity,
            "settings": seeded.model_dump(mode="json"),
        },
        work=work,
        walk=walk,
    )


def sft(config: RunConfig) -> list[Stage]:
    """The model tuned on the revisions, and its replies, which are compared; with `sft` alone."""
    if config.sft is None:
        return []
    sampled = sampling(config, "sample", _first_prompts(config), TUNED_RESPONSES, config.seed, SFT)
    return [_tune(config, config.sft), sampled]


def _tune(config: RunConfig, chosen: SftSettings) -> Stage:
    settings = chosen.model_copy(update={"model": config.model, "seed": config.seed})

    def work(run: Run) -> StageOutcome:
        demonstrations = read_demonstrations(run.path / REVISIONS)
        # a model trained on a reply with a fault that a check finds learns the fault
        faulty = {
            row.id
            for row in run.read(REVISIONS, Revision)
            if not all(by_checks(run.constitution, row.response.prompt, row.text).values())
        }
        rows = [row for row in demonstrations.rows if row.id not in faulty]
        if not rows:
            raise UserError(
                f"{run.path / REVISIONS}: every revised reply fails a machine check of {run.constitution.identity}; "
                "give `revise` more rounds or another critic, or leave `sft` out"
            )
        with run.screen.training("sft") as watch:
            trained = train_sft(rows, settings, run.path / SFT, watch=watch)
        aside = {"the revised reply fails a machine check": len(demonstrations.rows) - len(rows)}
        return outcome_of(trained, demonstrations.set_aside | {reason: n for reason, n in aside.items() if n})

    return Stage(
        name="sft",
        sections=("sft", "model", "seed", "constitution"),
        inputs=(REVISIONS,),
        outputs=(SFT,),
        settings=lambda run: {
            "settings": settings.model_dump(mode="json"),
            "constitution": run.constitution.identity,
        },
        work=work,
    )


def reward(config: RunConfig) -> list[Stage]:
    """The reward model, from the first round's preferences; with `reward` alone."""
    return [] if config.reward is None else [_reward(config, config.reward)]


def _reward(config: RunConfig, chosen: RewardModelSettings) -> Stage:
    settings = chosen.model_copy(update={"model": config.model, "seed": config.seed})
    sampled = RESPONSES if config.sft is None else TUNED_RESPONSES

    def resolved(run: Run) -> RewardModelSettings:
        if settings.per_principle and not settings.weights:
            return settings.model_copy(update=principle_settings(run.constitution))
        return settings

    def work(run: Run) -> StageOutcome:
        preferences, samples = run.read(PREFERENCES, Preference), run.read(sampled, Response)
        with run.screen.training("reward") as watch:
            return outcome_of(
                train_reward(preferences, resolved(run), run.path / REWARD, watch=watch, samples=samples)
            )

    return Stage(
        name="reward",
        sections=("reward", "model", "seed", "constitution"),
        inputs=(PREFERENCES, sampled),
        outputs=(REWARD,),
        settings=lambda run: resolved(run).model_dump(mode="json"),
        work=work,
        tells=_tell_reward,
    )


def _tell_reward(run: Run, _: Sequence[StageRecord]) -> Mapping[str, RewardSummary]:
    card = folder.read_json(run.path / REWARD / "report_card.json")
    if not card.get("n"):  # no pairs were kept from it
        return {}
    told: RewardSummary = {
        "n": card["n"],
        "accuracy": card["accuracy"],
        "ci95": card["ci95"],
        "nll": card["nll"],
        "brier": card["brier"],
        "ece": card["ece"],
    }
    return {"reward_model": told}


def probing(config: RunConfig) -> list[Stage]:
    """What tuning broke: the model as it came and the last policy before the same probes; with `probes` alone."""
    return [] if config.probes is None else [_probe(config, config.probes)]


def _probe(config: RunConfig, chosen: ProbeSettings) -> Stage:
    sides = probes.Sides(f"hf/{Path(config.out) / POLICY}", config.model, held_out_replies(config))

    def work(run: Run) -> StageOutcome:
        probed = probes.probe(sides, chosen, run.asking, run.screen.asking)
        rows = write_rows(run.path / PROBES, probed.rows)
        aside = {"a call failed": probed.lost} if probed.lost else {}
        return StageOutcome(rows + probed.lost, rows, aside, probed.cost_usd, probed.figures)

    def asks(cast: Cast) -> Iterator[Dialogue[Any]]:
        return probes.asks((cast.start, cast.trained(POLICY)), sides, chosen)

    return Stage(
        name=PROBE,
        sections=("probes", "model", "respond", "evaluate"),
        inputs=(POLICY,),
        outputs=(PROBES,),
        settings=lambda _: {
            "sides": [sides.policy, sides.baseline, sides.respond.model_dump(mode="json")],
            "settings": chosen.model_dump(mode="json"),
        },
        work=work,
        asks=asks,
        tells=lambda _, records: {
            "probes": next(record.figures for record in records if record.stage == PROBE)
        },
    )
