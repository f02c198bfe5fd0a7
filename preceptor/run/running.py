"""What every stage of a run stands on: what a stage is, its folder, its settings, its screen, being done only once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from preceptor import folder
from preceptor.asking import stages
from preceptor.asking.work import run_job_or_raise
from preceptor.constitution.errors import UserError
from preceptor.constitution.principle import Constitution
from preceptor.evaluation import head_to_head
from preceptor.judge.asking.fanout import Progress
from preceptor.judge.models.protocol import Dialogue
from preceptor.judge.records import Label, Response
from preceptor.judge.respond import respond
from preceptor.judge.settings import RespondSettings
from preceptor.prompts.pool import prompts_from, split
from preceptor.prompts.records import Prompt, Record
from preceptor.prompts.rows import read_records, write_rows
from preceptor.records import HeldOut, StageRecord
from preceptor.run.cast import Cast, Way
from preceptor.run.config import RunConfig
from preceptor.run.files import HELD_OUT_PROMPTS, LEDGER, SFT
from preceptor.settings import Asking, AskSettings
from preceptor.train.evaluation.compare import kl_nats, reply_logprobs
from preceptor.train.settings import DpoSettings, RewardModelSettings

if TYPE_CHECKING:
    from preceptor.train.loop.output_folder import Trained
    from preceptor.train.loop.run import TrainingProgress as TrainProgress

KeptT = TypeVar("KeptT", bound=Record)

FIRST_NAMES = {**RewardModelSettings.former, **DpoSettings.former}
"""Today's names of settings -> those that they had first."""


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


class StageOutcome(NamedTuple):
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
    def asking(self) -> Asking:
        return asking_of(self.config)

    def fingerprint(self, settings: Any, inputs: Sequence[str]) -> str:
        """Hash of what a stage's output depends on. It goes by the first names of settings, so that what was finished
        before they had others stays so."""
        return folder.fingerprint(_first_named(settings), {each: self.path / each for each in inputs})

    def carry_out(self, stage: Stage) -> StageRecord:
        """Do a stage unless it is finished; its record is written after its outputs are."""
        wanted = self.fingerprint(stage.settings(self), stage.inputs)
        if (record := folder.finished(self.path, stage.name, wanted)) is not None:
            self.screen.done(record, again=True)
            return record
        folder.begin_stage(self.path, stage.name, wanted, stage.outputs)
        began_s = time.monotonic()
        outcome = stage.work(self)
        if outcome.rows_in != outcome.rows_out + sum(outcome.set_aside.values()):
            raise AssertionError(f"{stage.name}: rows were lost: {outcome}")
        record = StageRecord(
            stage=stage.name,
            fingerprint=wanted,
            outputs={each: folder.digest(self.path / each) for each in stage.outputs},
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

    def read(self, name: str, kind: type[KeptT]) -> list[KeptT]:
        return list(read_records(self.path / name, kind))


def _first_named(settings: Any) -> Any:
    if not isinstance(settings, Mapping):
        return settings
    return {FIRST_NAMES.get(name, name): _first_named(value) for name, value in settings.items()}


@dataclass(frozen=True)
class Stage:
    """One stage of a run, as an entry of its table: what it reads, what it writes, and what it does."""

    name: str
    """In lower case with hyphens; no other stage of the run has it."""
    sections: tuple[str, ...]
    """The keys of the run file that it goes by."""
    inputs: tuple[str, ...]
    """Files of the run folder, all of them outputs of earlier stages."""
    outputs: tuple[str, ...]
    """Files or folders of the run folder that it alone writes. A folder holds a `manifest.json` with the hashes of its
    files."""
    settings: Callable[[Run], Any]
    """What its outputs depend on beside its inputs, as JSON. Where these and the inputs are as they were, the stage is
    not done again."""
    work: Callable[[Run], StageOutcome]
    """Does it: writes every output. A .jsonl file has a row for each row out, unless `run.files` excepts it."""
    walk: Callable[[Way, Cast], Dialogue[None]] | None = None
    """For the plan: asks what it would ask about one prompt, given the rows of that prompt in its input files, and adds
    those of its outputs."""
    asks: Callable[[Cast], Iterable[Dialogue[Any]]] | None = None
    """For the plan: what it would ask beyond the way of the prompts that are trained on."""
    tells: Callable[[Run, Sequence[StageRecord]], Mapping[str, Any]] | None = None
    """What it adds to the run's summary, given the records of all stages."""


def asking_of(config: RunConfig) -> Asking:
    """How a run asks: over the ledger that it names, or the one in its own folder."""
    said = {name: getattr(config, name) for name in AskSettings.model_fields}
    return Asking(ledger=config.ledger or str(Path(config.out) / LEDGER), **said)


class RunPrompts(NamedTuple):
    """The prompts of a run."""

    train: list[Prompt]
    held_out: list[Prompt]
    set_aside: dict[str, int]
    """Reason -> prompts of the first file that are not trained on."""


def chosen_prompts(config: RunConfig) -> RunPrompts:
    """Which prompts a run trains on and which it is judged by. Raises UserError where there are none of either."""
    settings = config.prompts
    every = list(prompts_from(settings.file, settings.columns))
    if settings.held_out is None:
        parts = split(every, settings.held_out_share, config.seed)
        train, held_out = list(parts.train), list(parts.held_out)
    else:
        train, held_out = every, list(prompts_from(settings.held_out, settings.columns))
    held_out = held_out[: settings.held_out_limit]
    kept_back = {prompt.messages for prompt in held_out}
    unseen = [prompt for prompt in train if prompt.messages not in kept_back]
    chosen = unseen[: settings.limit]
    if not chosen or not held_out:
        raise UserError(
            f"{len(chosen)} prompts to train on and {len(held_out)} held out came from {settings.file}; "
            "wanted at least one of each: give more prompts, or another held_out_share"
        )
    aside = {
        "held out": len(every) - len(train),
        "the same as a held-out prompt": len(train) - len(unseen),
        "past the limit": len(unseen) - len(chosen),
    }
    return RunPrompts(chosen, held_out, {reason: rows for reason, rows in aside.items() if rows})


def sampling(
    config: RunConfig, name: str, prompts: str, output: str, seed: int, trained: str | None = None
) -> Stage:
    """A stage: replies of the run's model, or of one trained into a folder of the run, to a file of prompts."""
    settings = config.respond.model_copy(update={"seed": seed})
    model = config.model if trained is None else f"hf/{Path(config.out) / trained}"

    def work(run: Run) -> StageOutcome:
        asked_of = run.read(prompts, Prompt)
        responses: list[Response] = []
        with run.screen.asking(name) as watch:
            to_respond = partial(stages.to_respond, model, run.asking, settings)
            asked = run_job_or_raise(stages.AskJob(asked_of, to_respond), run.asking, responses.extend, watch)
        write_rows(run.path / output, responses)
        unusable = Counter(str(response.status) for response in responses if response.status != "ok")
        return StageOutcome(
            len(asked_of), asked.rows, cost_usd=asked.progress.cost_usd, figures={"not ok": dict(unusable)}
        )

    def walk(way: Way, cast: Cast) -> Dialogue[None]:
        for prompt in way.rows.get(prompts, ()):
            replies = cast.start if trained is None else cast.trained(trained)
            way.rows[output] = yield from respond(prompt, replies, settings)

    return Stage(
        name=name,
        sections=("model", "respond"),
        inputs=(prompts, *([trained] if trained else [])),
        outputs=(output,),
        settings=lambda _: {"model": model, "settings": settings.model_dump(mode="json")},
        work=work,
        walk=walk,
    )


def outcome_of(trained: Trained, before: Mapping[str, int] = MappingProxyType({})) -> StageOutcome:
    """The counts of a training; held-out rows are rows out, for they are used for the report card."""
    aside: Counter[str] = Counter(before)
    aside.update(trained.rows["set_aside"])
    used = trained.rows["used"] + trained.rows.get("held_out", 0)
    notes = {"notes": list(trained.notes)} if trained.notes else {}
    return StageOutcome(used + aside.total(), used, dict(aside), figures={**trained.metrics, **notes})


def statuses(labels: Sequence[Label]) -> dict[str, int]:
    """Status -> labels, the commonest first."""
    return {str(status): count for status, count in Counter(label.status for label in labels).most_common()}


def held_out_replies(config: RunConfig) -> RespondSettings:
    """How replies are sampled that nothing is trained on."""
    chosen = config.evaluate
    system = config.respond.system if chosen.system is None else chosen.system
    return config.respond.model_copy(
        update={"temperature": chosen.temperature, "seed": config.seed + 1, "system": system}
    )


def compared_with_start(config: RunConfig, policy: str) -> head_to_head.HeadToHeadSettings:
    """How the policy of a folder of the run is compared with the model that the run starts from."""
    return head_to_head.HeadToHeadSettings(
        policy=f"hf/{Path(config.out) / policy}",
        baseline=config.model,
        judge=config.evaluate.judge or config.judge,
        oracle=config.evaluate.oracle,
        truncated=config.truncated,
        respond=held_out_replies(config),
        label=config.label.model_copy(update={"seed": config.seed}),
    )


def evaluation(
    config: RunConfig,
    name: str,
    policy: str,
    output: str,
    more_inputs: Sequence[str] = (),
    more: Callable[[Run], Mapping[str, Any]] = lambda _: {},
) -> Stage:
    """A stage: held-out replies of a policy beside those of the run's start, how far the policy has moved, and the
    figures of `more`, which reads `more_inputs`."""
    settings = compared_with_start(config, policy)
    references: dict[str, str | None] = {"kl_nats": None}
    if config.sft is not None and policy != SFT:
        references["kl_nats_to_sft"] = SFT

    def work(run: Run) -> StageOutcome:
        prompts = run.read(HELD_OUT_PROMPTS, Prompt)
        compared = head_to_head.evaluate(prompts, run.constitution, settings, run.asking, run.screen.asking)
        rows = write_rows(run.path / output, compared.rows)
        aside = {"without a usable reply": compared.lost} if compared.lost else {}
        moved = _moved(run, compared.rows, policy, references)
        return StageOutcome(len(prompts), rows, aside, compared.cost_usd, {**moved, **more(run)})

    def asks(cast: Cast) -> Iterator[Dialogue[Any]]:
        sides = (cast.start, cast.trained(policy))
        judge = config.open_judge(settings.judge)
        return head_to_head.asks(cast.held_out, cast.constitution, settings, sides, judge)

    return Stage(
        name=name,
        sections=("evaluate", "model", "judge", "respond", "label", "truncated"),
        inputs=(HELD_OUT_PROMPTS, policy, *filter(None, references.values()), *more_inputs),
        outputs=(output,),
        settings=lambda run: {
            "constitution": run.constitution.identity,
            "settings": settings.model_dump(mode="json"),
            "figures": "kl_nats",  # a folder from before KL was measured here has its stage done again
        },
        work=work,
        asks=asks,
    )


def _moved(
    run: Run, rows: Sequence[HeldOut], policy: str, references: Mapping[str, str | None]
) -> dict[str, Any]:
    """By its name, KL of the policy to each reference (None: the run's start) in nats a reply, with its 95 % interval,
    on the policy's held-out replies."""
    prompts, replies = [row.prompt.messages for row in rows], [row.after for row in rows]
    model = run.config.model
    own = reply_logprobs(prompts, replies, model, run.path / policy)
    figures: dict[str, Any] = {}
    for name, adapter in references.items():
        kl = kl_nats(own, reply_logprobs(prompts, replies, model, run.path / adapter if adapter else None))
        figures |= {name: kl.nats, f"{name}_ci95": [kl.low, kl.high]}
    return figures
