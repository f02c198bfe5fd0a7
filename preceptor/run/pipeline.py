"""A whole run, stage after stage, in one folder: each stage reads the files before it and writes the next.

What the stages are stands in one table (`preceptor.run.stages`). A stage that is finished with the same settings and
the same inputs is passed over; the ledger answers what an unfinished one had asked. Importing this module imports
`train`, and so torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

from pydantic import ValidationError

from preceptor import __version__, folder
from preceptor.constitution.errors import UserError
from preceptor.constitution.files import dump
from preceptor.constitution.files import load as load_constitution
from preceptor.evaluation import head_to_head
from preceptor.evaluation.oracles import Oracle, agreement, open_oracle, with_gold
from preceptor.figures import RunManifest, RunSummary, StageRow, StoppedFigures, WholeSummary
from preceptor.judge.audit.audit import audit
from preceptor.judge.records import Label
from preceptor.prompts.manifest import versions, write_json, write_text
from preceptor.prompts.rows import read_records
from preceptor.records import HeldOut, StageRecord
from preceptor.report import report
from preceptor.run import guard, rounds
from preceptor.run.config import RunConfig, asked_models
from preceptor.run.files import (
    CONSTITUTION,
    HELD_OUT,
    LABELS,
    MANIFEST,
    PPO_POLICY,
    REPORT,
    REWARD,
    SUMMARY,
)
from preceptor.run.running import Run, Screen, Stage, statuses
from preceptor.run.stages import stages_of
from preceptor.train.evaluation.reward_figures import RewardFigures
from preceptor.train.loop.output_folder import LIBRARIES


def run(config: RunConfig, screen: Screen) -> RunSummary:
    """Carry out a run and return its summary; run again, it goes on where it stopped.

    Raises UserError for what the user can mend, BudgetReached and ProviderStopped as the fan-out does.
    """
    constitution = load_constitution(config.constitution)
    table = stages_of(config)
    current = Run(config, Path(config.out), constitution, screen)
    write_text(current.path / CONSTITUTION, dump(constitution))
    oracle = open_oracle(config.evaluate.oracle, constitution)
    if not (current.path / HELD_OUT).exists():  # a finished run is shown again without a key
        head_to_head.require_judge(config.judge, config, constitution, config.label)
        config.require_live(asked_models(config))
    records = [current.carry_out(stage) for stage in table]
    summary = _summary(current, oracle, table, records)
    write_json(current.path / SUMMARY, summary)
    shown = _read(current.path, config.model_dump(mode="json"), records)
    write_text(current.path / REPORT, report.render(shown))
    _manifest(current, summary, records)
    return summary


def read_run(path: Path, settings: dict[str, Any]) -> report.FinishedRun:
    """What the report shows of a finished run, read back from the folder."""
    return _read(path, settings, _records(path, settings))


def _read(path: Path, settings: dict[str, Any], records: Sequence[StageRecord]) -> report.FinishedRun:
    card = path / REWARD / "report_card.json"
    summary = cast("RunSummary", folder.read_json(path / SUMMARY))
    return report.FinishedRun(
        constitution=load_constitution(path / CONSTITUTION),
        settings=settings,
        summary=summary,
        stages=records,
        labels=list(read_records(path / LABELS, Label)),
        held_out=list(read_records(path / HELD_OUT, HeldOut)),
        reward_card=cast("RewardFigures", folder.read_json(card)) if card.exists() else None,
        metrics=_metrics(path, records),
        guard=guard.shown(path / PPO_POLICY, summary.get("ppo")),
    )


def _records(path: Path, settings: dict[str, Any]) -> list[StageRecord]:
    """What the stages of these settings did; those of other settings that ran here before have no part in it."""
    try:
        names = [stage.name for stage in stages_of(RunConfig.model_validate(settings))]
    except (
        ValidationError,
        UserError,
    ):  # another version made the folder, or with packages that are not here
        names = [stage["stage"] for stage in folder.read_json(path / MANIFEST)["stages"]]
    done = {record.stage: record for record in folder.stage_records(path)}
    return [done[name] for name in names if name in done]


def _metrics(path: Path, records: Sequence[StageRecord]) -> dict[str, list[dict[str, Any]]]:
    """What the trainings of the run measured as they went, by what they trained: "policy" for 7-policy."""
    trained = [name for record in records for name in record.outputs if "/" not in name]
    found = {name.partition("-")[2]: report.read_jsonl(path / name / "metrics.jsonl") for name in trained}
    return {name: rows for name, rows in found.items() if rows}


def _summary(run: Run, oracle: Oracle, table: Sequence[Stage], records: Sequence[StageRecord]) -> RunSummary:
    rows = run.read(HELD_OUT, HeldOut)
    labels = [with_gold(label, oracle, run.constitution) for label in run.read(LABELS, Label)]
    last = rounds.rounds_of(run.config)[-1].last_stage("evaluate")
    evaluated = next(record for record in records if record.stage == last)
    summary: WholeSummary = {
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
    told: dict[str, Any] = {}
    for stage in table:
        if stage.tells is not None:
            told |= stage.tells(run, records)
    outside = {record.stage: record.figures for record in records if record.stage in run.config.stages}
    told |= {"stages": outside} if outside else {}
    return cast("RunSummary", {**summary, **told})  # a stage of another package may tell more


_ORACLE_NAMES = {
    "checks": "the constitution's machine checks",
    "embedded": "the oracle, which knows the facts of the front desk",
}


def _manifest(run: Run, summary: RunSummary, records: Sequence[StageRecord]) -> None:
    """The run's proof of itself, written last: settings, versions, counts, and the hash of every file."""
    single = (CONSTITUTION, SUMMARY, REPORT)
    files = {name: sha for record in records for name, sha in record.outputs.items()}
    files |= {name: folder.digest(run.path / name) for name in single}
    manifest: RunManifest = {
        "schema": 1,
        "kind": "run",
        "preceptor": __version__,
        "versions": versions(*LIBRARIES),
        "settings": run.config.model_dump(mode="json"),
        "constitution": run.constitution.identity,
        "stages": [
            cast("StageRow", record.model_dump(mode="json", exclude={"figures"})) for record in records
        ],
        "files": files,
        **_stopped(summary),
        "wall_s": summary["wall_s"],
        "cost_usd": summary["cost_usd"],
    }
    write_json(run.path / MANIFEST, manifest)


class _Stopped(TypedDict, total=False):
    ppo_stopped: StoppedFigures


def _stopped(summary: RunSummary) -> _Stopped:
    stopped = summary["ppo"].get("stopped") if "ppo" in summary else None
    return {"ppo_stopped": stopped} if stopped else {}
