"""A whole run, stage after stage, in one folder: each stage reads the files before it and writes the next.

    1-prompts -> 2-responses -> 3-revisions -> 4-labels -> 5-preferences -> 6-reward, 7-policy -> 8-heldout

As in Bai et al. 2022 (arXiv 2212.08073), revisions first tune the model by SFT, into 3-sft; what is compared are then
samples of that model, in 3-responses. Without `sft` the first responses are compared, with `revise` also their
revisions.

A stage that is finished with the same settings and the same inputs is passed over; the ledger answers what an
unfinished one had asked. Importing this module imports `train`, and so torch.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeVar

from constitution.errors import UserError
from constitution.files import dump
from constitution.files import load as load_constitution
from constitution.principle import Constitution
from judge.audit import audit
from judge.fanout import Progress
from judge.models.registry import open_model
from judge.preferences import preference
from judge.records import Label, Preference, Response, Revision
from preceptor import __version__, evaluation, folder, report, stages
from preceptor.config import RunConfig
from preceptor.oracles import Oracle, agreement, by_checks, open_oracle, with_gold
from preceptor.records import HeldOut, StageRecord
from prompts.manifest import versions, write_json, write_text
from prompts.pool import pool_path, prompts_from, shipped_pools, split
from prompts.records import Prompt, Record
from prompts.rows import read_records, write_rows, writing
from train.dpo import train_dpo
from train.evaluate import kl_nats, reply_logprobs
from train.folder import LIBRARIES, Trained
from train.loop import Progress as TrainProgress
from train.reward import train_reward
from train.rows import read_demonstrations
from train.sft import train_sft

Kept = TypeVar("Kept", bound=Record)

PROMPTS, HELD_OUT_PROMPTS = "1-prompts.jsonl", "1-prompts-held-out.jsonl"
RESPONSES, REVISIONS = "2-responses.jsonl", "3-revisions.jsonl"
SFT, TUNED_RESPONSES = "3-sft", "3-responses.jsonl"
LABELS, PREFERENCES = "4-labels.jsonl", "5-preferences.jsonl"
REWARD, POLICY = "6-reward", "7-policy"
CACHE = ".preceptor"
"""Where the reference's log-probabilities are kept for another run of DPO with other settings."""
HELD_OUT, REPORT, SUMMARY, MANIFEST = "8-heldout.jsonl", "9-report.html", "summary.json", "manifest.json"


class Screen(Protocol):
    """What shows a run to a person while it goes on."""

    def asking(self, stage: str) -> AbstractContextManager[Callable[[Progress], None]]:
        """A bar for a stage that asks models."""
        ...

    def training(self, stage: str) -> AbstractContextManager[Callable[[TrainProgress], None]]:
        """A bar for a stage that trains."""
        ...

    def done(self, record: StageRecord, again: bool) -> None:
        """A stage is finished; `again`: it had been before."""
        ...


class Outcome(NamedTuple):
    """What a stage hands to its record."""

    rows_in: int
    rows_out: int
    set_aside: Mapping[str, int] = MappingProxyType({})
    cost_usd: float = 0.0
    figures: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Run:
    """What every stage of a run needs to know."""

    config: RunConfig
    path: Path
    constitution: Constitution
    screen: Screen

    @property
    def asking(self) -> stages.Asking:
        return stages.Asking(
            ledger=str(self.path / "ledger.db"),
            concurrency=self.config.concurrency,
            max_cost_usd=self.config.max_cost_usd,
            base_url=self.config.base_url,
        )

    def stage(
        self,
        name: str,
        settings: Any,
        inputs: Sequence[str],
        outputs: Sequence[str],
        work: Callable[[], Outcome],
    ) -> StageRecord:
        """Run one stage unless it is finished; its record is written after its outputs are."""
        wanted = folder.fingerprint(settings, {each: self.path / each for each in inputs})
        if (record := folder.finished(self.path, name, wanted)) is not None:
            self.screen.done(record, again=True)
            return record
        folder.begin_stage(self.path, name, wanted, outputs)
        began_s = time.monotonic()
        outcome = work()
        if outcome.rows_in != outcome.rows_out + sum(outcome.set_aside.values()):
            raise AssertionError(f"{name}: rows were lost: {outcome}")
        record = StageRecord(
            stage=name,
            fingerprint=wanted,
            outputs={each: folder.digest(self.path / each) for each in outputs},
            rows_in=outcome.rows_in,
            rows_out=outcome.rows_out,
            set_aside=dict(outcome.set_aside),
            figures=dict(outcome.figures),
            wall_s=time.monotonic() - began_s,
            cost_usd=outcome.cost_usd,
        )
        folder.record_stage(self.path, record)
        self.screen.done(record, again=False)
        return record

    def read(self, name: str, kind: type[Kept]) -> list[Kept]:
        return list(read_records(self.path / name, kind))


def run(config: RunConfig, screen: Screen) -> dict[str, Any]:
    """Carry out a run and return its summary; run again, it goes on where it stopped.

    Raises UserError for what the user can mend, BudgetReached and ProviderStopped as the fan-out does.
    """
    constitution = load_constitution(config.constitution)
    current = Run(config, Path(config.out), constitution, screen)
    write_text(current.path / "constitution.yaml", dump(constitution))
    oracle = open_oracle(config.evaluate.oracle, constitution)
    _prompts(current)
    _responses(current)
    _revisions(current)
    _sft(current)
    _labels(current)
    _preferences(current)
    _train(current)
    _held_out(current)
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
        stages=folder.stage_records(path),
        labels=list(read_records(path / LABELS, Label)),
        held_out=list(read_records(path / HELD_OUT, HeldOut)),
        reward_card=folder.read_json(card) if card.exists() else {},
        metrics={
            "reward": report.read_jsonl(path / REWARD / "metrics.jsonl"),
            "policy": report.read_jsonl(path / POLICY / "metrics.jsonl"),
        },
    )


def _prompts(run: Run) -> None:
    settings = run.config.prompts

    def work() -> Outcome:
        every = list(prompts_from(settings.file))
        if settings.held_out is None:
            parts = split(every, settings.held_out_share, run.config.seed)
            train, held_out = list(parts.train), list(parts.held_out)
        else:
            train, held_out = every, list(prompts_from(settings.held_out))
        held_out = held_out[: settings.held_out_limit]
        kept_back = {prompt.messages for prompt in held_out}
        unseen = [prompt for prompt in train if prompt.messages not in kept_back]
        chosen = unseen[: settings.limit]
        if not chosen or not held_out:
            raise UserError(
                f"{len(chosen)} prompts to train on and {len(held_out)} held out came from {settings.file}; "
                "wanted at least one of each: give more prompts, or another held_out_share"
            )
        write_rows(run.path / HELD_OUT_PROMPTS, held_out)
        write_rows(run.path / PROMPTS, chosen)
        aside = {
            "held out": len(every) - len(train),
            "the same as a held-out prompt": len(train) - len(unseen),
            "past the limit": len(unseen) - len(chosen),
        }
        return Outcome(len(every), len(chosen), {reason: rows for reason, rows in aside.items() if rows})

    sources = {name: _content_of(name) for name in (settings.file, settings.held_out) if name}
    wanted = {"settings": settings.model_dump(mode="json"), "seed": run.config.seed, "sources": sources}
    run.stage("prompts", wanted, [], [PROMPTS, HELD_OUT_PROMPTS], work)


def _content_of(source: str) -> str:
    path = pool_path(source) if source in shipped_pools() else Path(source)
    return folder.digest(path) if path.is_file() else source


def _responses(run: Run) -> None:
    _sample(run, "respond", run.config.model, [PROMPTS], RESPONSES)


def _sample(run: Run, stage: str, name: str, inputs: Sequence[str], output: str) -> None:
    settings = run.config.respond.model_copy(update={"seed": run.config.seed})

    def work() -> Outcome:
        prompts = run.read(PROMPTS, Prompt)
        responses: list[Response] = []
        model = open_model(name)
        with run.screen.asking(stage) as watch:
            dialogues = list(stages.responding(prompts, model, settings))
            asked = stages.whole(dialogues, model, run.asking, responses.extend, watch)
        write_rows(run.path / output, responses)
        unusable = Counter(str(response.status) for response in responses if response.status != "ok")
        return Outcome(
            len(prompts), asked.rows, cost_usd=asked.progress.cost_usd, figures={"not ok": dict(unusable)}
        )

    run.stage(stage, {"model": name, "settings": settings.model_dump(mode="json")}, inputs, [output], work)


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
        model = open_model(critic, base_url=run.config.base_url)
        with run.screen.asking("revise") as watch, writing(run.path / REVISIONS) as write:
            dialogues = list(stages.revising(responses, run.constitution, model, seeded))
            asked = stages.whole(dialogues, model, run.asking, write, watch)
        beyond = len(every) - len(responses)
        aside = {"past revised_samples": beyond} if beyond else {}
        return Outcome(len(every), asked.rows, aside, asked.progress.cost_usd)

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
        return _trained(trained, demonstrations.set_aside | {reason: n for reason, n in aside.items() if n})

    wanted = {"settings": settings.model_dump(mode="json"), "constitution": run.constitution.identity}
    run.stage("sft", wanted, [REVISIONS], [SFT], work)
    _sample(run, "sample", f"hf/{run.path / SFT}", [PROMPTS, SFT], TUNED_RESPONSES)


def _labels(run: Run) -> None:
    settings = run.config.label.model_copy(update={"seed": run.config.seed})
    if run.config.sft is not None:
        inputs = [TUNED_RESPONSES]
    else:
        inputs = [RESPONSES, REVISIONS] if run.config.revise else [RESPONSES]

    def work() -> Outcome:
        revisions = run.read(REVISIONS, Revision) if REVISIONS in inputs else []
        pairs = stages.pairs_to_label(run.read(inputs[0], Response), revisions, run.config.pairs)
        if not pairs:
            raise UserError(f"there is no pair of usable replies to compare; {inputs[0]} says why")
        judge = stages.open_judge(run.config.judge, run.config.base_url)
        statuses: Counter[str] = Counter()
        with run.screen.asking("label") as watch, writing(run.path / LABELS) as write:

            def each(label: Label) -> None:
                statuses[label.status] += 1
                write(label)

            dialogues = list(stages.labelling(pairs, run.constitution, judge, settings))
            asked = stages.whole(dialogues, judge, run.asking, each, watch)
        return Outcome(len(pairs), asked.rows, {}, asked.progress.cost_usd, {"status": dict(statuses)})

    wanted = {
        "judge": run.config.judge,
        "constitution": run.constitution.identity,
        "pairs": run.config.pairs,
        "settings": settings.model_dump(mode="json"),
    }
    run.stage("label", wanted, inputs, [LABELS], work)


def _preferences(run: Run) -> None:
    def work() -> Outcome:
        labels = run.read(LABELS, Label)
        found = [preference(label) for label in labels]
        rows = write_rows(run.path / PREFERENCES, (row for row in found if row is not None))
        if not rows:
            raise UserError(
                "no comparison came out ok, so there is nothing to train on; look at 4-labels.jsonl for why"
            )
        aside = _statuses([label for label, row in zip(labels, found, strict=True) if row is None])
        return Outcome(len(labels), rows, aside)

    run.stage("preferences", {}, [LABELS], [PREFERENCES], work)


def _train(run: Run) -> None:
    config = run.config
    start = {"model": config.model, "seed": config.seed}
    if config.reward is not None:
        reward = config.reward.model_copy(update=start)

        def train_reward_model() -> Outcome:
            preferences = run.read(PREFERENCES, Preference)
            with run.screen.training("reward") as watch:
                return _trained(train_reward(preferences, reward, run.path / REWARD, watch=watch))

        run.stage("reward", reward.model_dump(mode="json"), [PREFERENCES], [REWARD], train_reward_model)
    adapter = str(run.path / SFT) if config.sft is not None else None
    dpo = config.dpo.model_copy(update={**start, "adapter": adapter})

    def train_policy() -> Outcome:
        preferences = run.read(PREFERENCES, Preference)
        with run.screen.training("dpo") as watch:
            return _trained(
                train_dpo(preferences, dpo, run.path / POLICY, watch=watch, cache=run.path / CACHE)
            )

    inputs = [PREFERENCES, SFT] if adapter else [PREFERENCES]
    run.stage("dpo", dpo.model_dump(mode="json"), inputs, [POLICY], train_policy)


def _trained(trained: Trained, before: dict[str, int] | None = None) -> Outcome:
    """The counts of a training; held-out rows are rows out, for they are used for the report card."""
    aside: Counter[str] = Counter(before or {})
    aside.update(trained.rows["set_aside"])
    used = trained.rows["used"] + trained.rows.get("held_out", 0)
    return Outcome(used + aside.total(), used, dict(aside), figures=trained.metrics)


def _held_out(run: Run) -> None:
    config = run.config
    settings = evaluation.Settings(
        policy=f"hf/{run.path / POLICY}",
        baseline=config.model,
        judge=config.evaluate.judge or config.judge,
        oracle=config.evaluate.oracle,
        respond=config.respond.model_copy(
            update={"temperature": config.evaluate.temperature, "seed": config.seed + 1}
        ),
        label=config.label.model_copy(update={"seed": config.seed}),
    )

    def work() -> Outcome:
        prompts = run.read(HELD_OUT_PROMPTS, Prompt)
        compared = evaluation.evaluate(prompts, run.constitution, settings, run.asking, run.screen.asking)
        rows = write_rows(run.path / HELD_OUT, compared.rows)
        aside = {"without a usable reply": compared.lost} if compared.lost else {}
        return Outcome(len(prompts), rows, aside, compared.cost_usd)

    wanted = {"constitution": run.constitution.identity, "settings": settings.model_dump(mode="json")}
    run.stage("evaluate", wanted, [HELD_OUT_PROMPTS, POLICY], [HELD_OUT], work)


def _summary(run: Run, oracle: Oracle) -> dict[str, Any]:
    rows = run.read(HELD_OUT, HeldOut)
    labels = [with_gold(label, oracle, run.constitution) for label in run.read(LABELS, Label)]
    records = folder.stage_records(run.path)
    summary: dict[str, Any] = {
        "constitution": run.constitution.identity,
        **evaluation.figures(rows),
        "oracle": _ORACLE_NAMES[run.config.evaluate.oracle],
        "kl_nats": _kl(run, rows),
        "labels": _statuses(labels),
        "label_agreement": agreement(labels, oracle),
        "audit": audit(labels, run.constitution),
        "wall_s": sum(record.wall_s for record in records),
        "cost_usd": sum(record.cost_usd for record in records),
    }
    if run.config.reward is not None:
        card = folder.read_json(run.path / REWARD / "report_card.json")
        summary["reward_model"] = {key: card[key] for key in ("n", "accuracy", "ci95", "nll", "brier", "ece")}
    return summary


def _statuses(labels: Sequence[Label]) -> dict[str, int]:
    return {str(status): count for status, count in Counter(label.status for label in labels).most_common()}


def _kl(run: Run, rows: Sequence[HeldOut]) -> float:
    """KL(policy || start) in nats a reply, on the policy's held-out replies."""
    prompts = [row.prompt.messages for row in rows]
    replies = [row.after for row in rows]
    policy = reply_logprobs(prompts, replies, run.config.model, run.path / POLICY)
    start = reply_logprobs(prompts, replies, run.config.model)
    return kl_nats(policy, start).nats


_ORACLE_NAMES = {
    "checks": "the constitution's machine checks",
    "embedded": "the oracle, which knows the facts of the front desk",
}


def _manifest(run: Run, summary: dict[str, Any]) -> None:
    """The run's proof of itself, written last: settings, versions, counts, and the hash of every file."""
    records = folder.stage_records(run.path)
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
            "wall_s": summary["wall_s"],
            "cost_usd": summary["cost_usd"],
        },
    )
