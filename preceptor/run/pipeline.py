"""A whole run, stage after stage, in one folder: each stage reads the files before it and writes the next.

    1-prompts -> 2-responses -> 3-revisions -> 4-labels -> 5-preferences -> 6-reward, 7-policy -> 8-heldout, 8-probes

As in Bai et al. 2022 (arXiv 2212.08073), revisions first tune the model by SFT, into 3-sft; what is compared are then
samples of that model, in 3-responses. Without `sft` the first responses are compared, with `revise` also their
revisions.

With `rounds`, the way from samples to a policy is gone again and again (`preceptor.run.rounds`): 4-labels and
5-preferences are then the first round's, and 7-policy and 8-heldout the last one's.

A stage that is finished with the same settings and the same inputs is passed over; the ledger answers what an
unfinished one had asked. Importing this module imports `train`, and so torch.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from preceptor import __version__, folder
from preceptor.asking import stages
from preceptor.asking.work import whole
from preceptor.constitution.errors import UserError
from preceptor.constitution.files import dump
from preceptor.constitution.files import load as load_constitution
from preceptor.evaluation import head_to_head, probes
from preceptor.evaluation.oracles import Oracle, agreement, by_checks, open_oracle, with_gold
from preceptor.judge.audit.audit import audit
from preceptor.judge.records import Label, Preference, Response, Revision
from preceptor.prompts.manifest import versions, write_json, write_text
from preceptor.prompts.rows import read_records, write_rows, writing
from preceptor.records import HeldOut, StageRecord
from preceptor.report import report
from preceptor.run import guard, ppo, rounds
from preceptor.run.config import RunConfig
from preceptor.run.running import (
    HELD_OUT,
    HELD_OUT_PROMPTS,
    LABELS,
    POLICY,
    PREFERENCES,
    PROBES,
    PROMPTS,
    RESPONSES,
    REVISIONS,
    REWARD,
    SFT,
    TUNED_RESPONSES,
    Outcome,
    Run,
    Screen,
    chosen_prompts,
    held_out_replies,
    outcome_of,
    sample,
    statuses,
)
from preceptor.train.data.readers import read_demonstrations
from preceptor.train.loop.output_folder import LIBRARIES
from preceptor.train.reward import train_reward
from preceptor.train.settings import principle_settings
from preceptor.train.sft import train_sft

PROBE = "probe"
REPORT, SUMMARY, MANIFEST = "9-report.html", "summary.json", "manifest.json"


def run(config: RunConfig, screen: Screen) -> dict[str, Any]:
    """Carry out a run and return its summary; run again, it goes on where it stopped.

    Raises UserError for what the user can mend, BudgetReached and ProviderStopped as the fan-out does.
    """
    constitution = load_constitution(config.constitution)
    current = Run(config, Path(config.out), constitution, screen)
    write_text(current.path / "constitution.yaml", dump(constitution))
    oracle = open_oracle(config.evaluate.oracle, constitution)
    if not (current.path / HELD_OUT).exists():  # a finished run is shown again without a key
        head_to_head.require_judge(config.judge, config, constitution, config.label)
    _prompts(current)
    rounds.share_prompts(current)
    _responses(current)
    _revisions(current)
    _sft(current)
    for each in rounds.rounds_of(config):
        rounds.compare(current, each)
        if each.number == 1:
            _reward(current)
        rounds.train(current, each)
        rounds.evaluate(current, each)
    rounds.conclude(current)
    ppo.train(current)
    ppo.evaluate(current)
    _probe(current)
    summary = _summary(current, oracle)
    write_json(current.path / SUMMARY, summary)
    write_text(current.path / REPORT, report.render(read_run(current.path, config.model_dump(mode="json"))))
    _manifest(current, summary)
    return summary


def read_run(path: Path, settings: dict[str, Any]) -> report.Run:
    """What the report shows, read back from the folder."""
    card = path / REWARD / "report_card.json"
    return report.Run(
        constitution=load_constitution(path / "constitution.yaml"),
        settings=settings,
        summary=folder.read_json(path / SUMMARY),
        # not validated: a folder that another version made can be shown as well
        stages=_records(path, RunConfig.model_construct(**settings)),
        labels=list(read_records(path / LABELS, Label)),
        held_out=list(read_records(path / HELD_OUT, HeldOut)),
        reward_card=folder.read_json(card) if card.exists() else {},
        metrics={
            "reward": report.read_jsonl(path / REWARD / "metrics.jsonl"),
            "policy": report.read_jsonl(path / POLICY / "metrics.jsonl"),
            "ppo": report.read_jsonl(path / ppo.PPO_POLICY / "metrics.jsonl"),
        },
        guard=guard.shown(path / ppo.PPO_POLICY, folder.read_json(path / SUMMARY).get("ppo", {})),
    )


def _prompts(run: Run) -> None:
    settings = run.config.prompts

    def work() -> Outcome:
        found = chosen_prompts(run.config)
        write_rows(run.path / HELD_OUT_PROMPTS, found.held_out)
        write_rows(run.path / PROMPTS, found.train)
        chosen = len(found.train)
        return Outcome(chosen + sum(found.set_aside.values()), chosen, found.set_aside)

    sources = {name: folder.content_of(name) for name in (settings.file, settings.held_out) if name}
    wanted = {"settings": settings.model_dump(mode="json"), "seed": run.config.seed, "sources": sources}
    run.stage("prompts", wanted, [], [PROMPTS, HELD_OUT_PROMPTS], work)


def _responses(run: Run) -> None:
    # what is revised for SFT is no round's yet
    prompts = PROMPTS if run.config.sft is not None else _first_prompts(run)
    sample(run, "respond", run.config.model, [prompts], RESPONSES, run.config.seed)


def _first_prompts(run: Run) -> str:
    return rounds.prompts_of(run.config, rounds.rounds_of(run.config)[0])


def _revisions(run: Run) -> None:
    settings = run.config.revise
    if settings is None:
        return
    seeded = settings.model_copy(update={"seed": run.config.seed})
    critic = run.config.critic or run.config.model

    def work() -> Outcome:
        every = run.read(RESPONSES, Response)
        most = run.config.revised_samples
        responses = [response for response in every if most is None or response.sample < most]
        found: Counter[str] = Counter()
        with run.screen.asking("revise") as watch, writing(run.path / REVISIONS) as write:

            def keep(revision: Revision) -> None:
                found[revision.status] += 1
                write(revision)

            to_revise = partial(stages.to_revise, critic, run.asking, run.constitution, seeded)
            asked = whole(stages.Work(responses, to_revise), run.asking, keep, watch)
        beyond = len(every) - len(responses)
        aside = {"past revised_samples": beyond} if beyond else {}
        return Outcome(len(every), asked.rows, aside, asked.progress.cost_usd, {"status": dict(found)})

    wanted = {
        "critic": critic,
        "revised_samples": run.config.revised_samples,
        "constitution": run.constitution.identity,
        "settings": seeded.model_dump(mode="json"),
    }
    run.stage("revise", wanted, [RESPONSES], [REVISIONS], work)


def _sft(run: Run) -> None:
    if run.config.sft is None:
        return
    settings = run.config.sft.model_copy(update={"model": run.config.model, "seed": run.config.seed})

    def work() -> Outcome:
        demonstrations = read_demonstrations(run.path / REVISIONS)
        # whoever learns a reply that a machine can see to be wrong learns the fault
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

    wanted = {"settings": settings.model_dump(mode="json"), "constitution": run.constitution.identity}
    run.stage("sft", wanted, [REVISIONS], [SFT], work)
    inputs = [_first_prompts(run), SFT]
    sample(run, "sample", f"hf/{run.path / SFT}", inputs, TUNED_RESPONSES, run.config.seed)


def _reward(run: Run) -> None:
    if run.config.reward is None:
        return
    settings = run.config.reward.model_copy(update={"model": run.config.model, "seed": run.config.seed})
    if settings.per_principle and not settings.weights:
        settings = settings.model_copy(update=principle_settings(run.constitution))
    sampled = RESPONSES if run.config.sft is None else TUNED_RESPONSES

    def work() -> Outcome:
        preferences, samples = run.read(PREFERENCES, Preference), run.read(sampled, Response)
        with run.screen.training("reward") as watch:
            return outcome_of(
                train_reward(preferences, settings, run.path / REWARD, watch=watch, samples=samples)
            )

    run.stage("reward", settings.model_dump(mode="json"), [PREFERENCES, sampled], [REWARD], work)


def _probe(run: Run) -> None:
    """What tuning broke: the model as it came and the last policy before the same probes."""
    if run.config.probes is None:
        return
    chosen = run.config.probes
    sides = probes.Sides(f"hf/{run.path / POLICY}", run.config.model, held_out_replies(run.config))

    def work() -> Outcome:
        probed = probes.probe(sides, chosen, run.asking, run.screen.asking)
        rows = write_rows(run.path / PROBES, probed.rows)
        aside = {"a call failed": probed.lost} if probed.lost else {}
        return Outcome(rows + probed.lost, rows, aside, probed.cost_usd, probed.figures)

    wanted = {
        "sides": [sides.policy, sides.baseline, sides.respond.model_dump(mode="json")],
        "settings": chosen.model_dump(mode="json"),
    }
    run.stage(PROBE, wanted, [POLICY], [PROBES], work)


def _summary(run: Run, oracle: Oracle) -> dict[str, Any]:
    rows = run.read(HELD_OUT, HeldOut)
    labels = [with_gold(label, oracle, run.constitution) for label in run.read(LABELS, Label)]
    records = _records(run.path, run.config)
    last = rounds.rounds_of(run.config)[-1].last_stage("evaluate")
    evaluated = next(record for record in records if record.stage == last)
    summary: dict[str, Any] = {
        "constitution": run.constitution.identity,
        **head_to_head.figures(rows),
        "oracle": _ORACLE_NAMES[run.config.evaluate.oracle],
        "kl_nats": evaluated.figures["kl_nats"],
        "labels": statuses(labels),
        "label_agreement": agreement(labels, oracle),
        "audit": audit(labels, run.constitution),
        "wall_s": sum(record.wall_s for record in records),
        "cost_usd": sum(record.cost_usd for record in records),
    }
    if run.config.reward is not None:
        card = folder.read_json(run.path / REWARD / "report_card.json")
        if card.get("n"):  # pairs were kept from it
            named = ("n", "accuracy", "ci95", "nll", "brier", "ece")
            summary["reward_model"] = {key: card[key] for key in named}
    if run.config.ppo is not None:
        summary["ppo"] = ppo.figures(run, records)
    if run.config.rounds > 1:
        summary["rounds"] = rounds.figures(run, records)
    if run.config.probes is not None:
        summary["probes"] = next(record.figures for record in records if record.stage == PROBE)
    return summary


def _records(path: Path, config: RunConfig) -> list[StageRecord]:
    """What the stages of this run did; those of other settings that ran here before have no part in it."""
    names = [
        "prompts",
        *(["shares"] if config.rounds > 1 and config.round_prompts == "split" else []),
        "respond",
    ]
    names += ["revise"] if config.revise is not None else []
    names += ["sft", "sample"] if config.sft is not None else []
    done = {record.stage: record for record in folder.stage_records(path)}
    names += [*rounds.stage_names(config), *ppo.stage_names(config)]
    names += [PROBE] if config.probes is not None else []
    return [done[name] for name in names if name in done]


_ORACLE_NAMES = {
    "checks": "the constitution's machine checks",
    "embedded": "the oracle, which knows the facts of the front desk",
}


def _manifest(run: Run, summary: dict[str, Any]) -> None:
    """The run's proof of itself, written last: settings, versions, counts, and the hash of every file."""
    records = _records(run.path, run.config)
    single = ("constitution.yaml", SUMMARY, REPORT)
    write_json(
        run.path / MANIFEST,
        {
            "schema": 1,
            "kind": "run",
            "preceptor": __version__,
            "versions": versions(*LIBRARIES),
            "settings": run.config.model_dump(mode="json"),
            "constitution": run.constitution.identity,
            "stages": [record.model_dump(mode="json", exclude={"figures"}) for record in records],
            "files": {
                **{name: sha for record in records for name, sha in record.outputs.items()},
                **{name: folder.digest(run.path / name) for name in single},
            },
            **({"ppo_stopped": stopped} if (stopped := summary.get("ppo", {}).get("stopped")) else {}),
            "wall_s": summary["wall_s"],
            "cost_usd": summary["cost_usd"],
        },
    )
