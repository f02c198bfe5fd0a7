"""A labelling run from its rows to its folder: who judges, what is mixed in, what is asked again, what is derived."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from contextlib import ExitStack
from functools import partial
from itertools import chain, islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeVar

from preceptor.asking import stages
from preceptor.asking.stages import AskingResult, OnProgress, OpenBar, WorkerContext
from preceptor.constitution.errors import UserError
from preceptor.constitution.principle import Constitution
from preceptor.judge.asking import prices
from preceptor.judge.asking.fanout import Progress
from preceptor.judge.asking.shared import NOTHING_DONE
from preceptor.judge.audit.audit import audit, drift
from preceptor.judge.audit.canaries import add_rates, attack_rates, from_constitution, is_canary, mixed
from preceptor.judge.audit.certificate import NEVER, certificate, corrected_agreement, evidence, settled
from preceptor.judge.audit.perturb import perturbation, perturbed_constitution, perturbed_steps
from preceptor.judge.dataset.label_folder import LabelFolder
from preceptor.judge.dataset.manifest import LabelManifest
from preceptor.judge.dataset.publish import LabelRun, publish
from preceptor.judge.figures import AuditFigures, FurtherFigures, LookFigures, PerturbedFigures, PricedStep
from preceptor.judge.ledger.ledger import open_ledger
from preceptor.judge.ledger.looks import LookDialogues, next_look
from preceptor.judge.models.protocol import Dialogue, Model
from preceptor.judge.records import Certificate, Group, Label, Pair
from preceptor.judge.settings import Combine, LabelSettings, Perturbation, RankingPairing, Schedule
from preceptor.judge.voting.cascade import JOINED, Step, VotingRule, require_panels
from preceptor.judge.voting.panel import (
    DAWID_SKENE,
    accuracy_by_step,
    recombine,
    require_dawid_skene,
    saved_calls,
)
from preceptor.judge.voting.ranking import Ranked
from preceptor.label.certified import Calibrated, calibrate, require_steps, stands, ways_of
from preceptor.label.finished import InputFile, finished, input_facts, stamp
from preceptor.preflight import check_folder
from preceptor.prompts.manifest import file_hash
from preceptor.prompts.records import content_id
from preceptor.prompts.rows import write_rows, writing
from preceptor.prompts.secrets import shown_address
from preceptor.settings import Access, Asking, in_this_process

__all__ = ["Job", "Labelled", "label_folder"]

LabelRow = Label | Ranked
InT = TypeVar("InT")

FLIPS: Mapping[Perturbation, Literal["options_flip_rate", "principles_flip_rate", "words_flip_rate"]] = (
    MappingProxyType(
        {"options": "options_flip_rate", "principles": "principles_flip_rate", "words": "words_flip_rate"}
    )
)
"""Figure of a changed form, by what was changed."""
AT_HAND = 5000
"""Rows of a file from which on it is streamed."""


class Job(NamedTuple):
    """How a file of pairs or groups is labelled."""

    constitution: Constitution
    panels: Sequence[tuple[Sequence[str], str]]
    """The judges of each step by name, and which pairs come to it: the first step gets every pair."""
    settings: LabelSettings
    access: Access = Access()
    """How the judges are reached."""
    combine: Combine = "mean"
    schedule: Schedule | None = None
    """None: the rows are pairs; else they are groups, compared by this schedule."""
    pairing: RankingPairing = "best-worst"
    """Which preferences a ranked group gives."""
    canaries: float = 0.0
    """Share of planted comparisons among those that are judged."""
    recheck: float = 0.0
    """Share of comparisons that are asked again, past the ledger."""
    perturb: Perturbation | None = None
    """What of the form of the asks is changed, to see whether verdicts follow it."""
    certified: tuple[float, ...] = ()
    """The confidence, step by step, under which a label abstains; none: nothing was certified."""
    adaptive: bool = False
    """Whether the second order is asked only where it can change what is certified."""
    single: tuple[int, ...] = ()
    """Steps whose judges are certified by one order alone, and asked in no other."""
    reference: str = ""
    """The judge whose verdicts are the gold by which the others are certified; its labels stand as they are."""
    certified_by: str = ""
    """Target and gold rows of the certificate, so that another target or other gold is another job."""

    @property
    def judges(self) -> str:
        """Every judge's name, step by step."""
        return " -> ".join(JOINED.join(names) for names, _ in self.panels)

    @property
    def rule(self) -> VotingRule:
        """How a panel's votes on one pair add up; Dawid-Skene looks at all pairs together, afterwards."""
        return "majority" if self.combine == "majority" else "mean"

    @property
    def lasting(self) -> bool:
        """Whether the same job gives the same labels whenever it is done: not with weights here that may have changed,
        nor where something is asked anew every time."""
        names = [name for names, _ in self.panels for name in names]
        return not self.recheck and not any(map(in_this_process, names))

    @property
    def resolved(self) -> dict[str, Any]:
        """Everything that can change a label, for the manifest."""
        chosen: dict[str, Any] = {
            "combine": self.combine,
            "panels": [[list(names), when] for names, when in self.panels],
            "base_urls": {name: shown_address(url) for name, url in self.access.base_url.items()},
            "local": self.access.local,
            "schedule": self.schedule,
            "pairs": self.pairing if self.schedule else None,
            "canaries": self.canaries,
            "recheck": self.recheck,
            "template_sha256": file_hash(Path(self.settings.template)) if self.settings.template else None,
        }
        if self.certified:
            chosen |= {"certified": list(self.certified), "certified_by": self.certified_by}
        if self.reference:
            chosen |= {"reference": self.reference}
        if self.adaptive:
            chosen |= {"adaptive": True, "single": list(self.single)}
        return self.settings.model_dump(mode="json") | chosen


def job_of_folder(manifest: LabelManifest, constitution: Constitution) -> Job:
    """The job that wrote a label folder, under another constitution. Raises UserError where the manifest is of
    something else.
    """
    settings = manifest.get("settings", {})
    if manifest.get("command") != "label" or "panels" not in settings:
        raise UserError("this is no folder that `preceptor label` has finished; name one with --on")
    known = {name: settings[name] for name in LabelSettings.model_fields if name in settings}
    return Job(
        constitution=constitution,
        panels=[(names, when) for names, when in settings["panels"]],
        settings=LabelSettings.model_validate(known),
        access=Access(base_url=settings["base_urls"], **settings["local"]),
        combine=settings["combine"],
        adaptive=settings.get("adaptive", False),
        reference=settings.get("reference", ""),
        single=tuple(settings.get("single", ())),
        certified=tuple(settings.get("certified", ())) if settings.get("adaptive") else (),
    )


class Gold(NamedTuple):
    """Pairs whose better reply is known, against which labels are certified."""

    rows: Sequence[Pair]
    target: float
    """The least agreement that the labels kept must have."""

    @property
    def identity(self) -> str:
        """The same for the same rows and target."""
        return content_id("gold", self.target, [row.line() for row in self.rows])


class Labelled(NamedTuple):
    """What a run has left behind."""

    manifest: LabelManifest
    asked: AskingResult


def opened(job: Job) -> tuple[Step, ...]:
    """The job's judges, opened for one round of asking: their connections end with it."""
    steps = stages.open_steps(job.panels, job.settings, job.access)
    if job.adaptive:
        steps = tuple(
            step._replace(
                one_order=number in job.single,
                keep_from=job.certified[number] if number < len(job.certified) else None,
            )
            for number, step in enumerate(steps)
        )
    return steps if job.perturb is None else perturbed_steps(steps, job.perturb)


def require(job: Job) -> None:
    """Raises UserError for what would stop the job later: steps that cannot be told apart, conditions that cannot be
    read, a library that is not there.
    """
    require_panels(job.panels)
    if job.combine == DAWID_SKENE:
        require_dawid_skene()


def at_hand(rows: Iterable[InT]) -> Iterable[InT]:
    """A list of all rows, read and checked before anything is asked about the first, where they are not too many;
    else the rows as a stream, so that asking begins at once and memory does not grow with the file.
    """
    stream = iter(rows)
    first = list(islice(stream, AT_HAND))
    return first if len(first) < AT_HAND else chain(first, stream)


def rows_of(source: InputFile) -> Iterable[Pair | Group]:
    """What is to be judged: pairs, or groups where the source's form says so."""
    read: Iterable[Pair | Group]
    if source.form.startswith("groups"):
        read = stages.groups_from(source.path, source.truncated)
    else:
        read = stages.pairs_from(source.path, source.form, dict(source.columns), source.truncated)
    return islice(read, source.limit)


def items_of(rows: Iterable[Pair | Group], job: Job) -> Iterable[Pair | Group]:
    """The comparisons, canaries among them, or the groups: one for each row that is made of them."""
    if job.schedule is not None:
        return (row for row in rows if isinstance(row, Group))
    pairs: Iterable[Pair] = (row for row in rows if isinstance(row, Pair))
    if not job.canaries:
        return pairs
    if not isinstance(rows, Sized):
        rows = list(rows)  # how many are planted depends on how many there are
        pairs = (row for row in rows if isinstance(row, Pair))
    pairs = _own(pairs)
    planted = from_constitution(job.constitution, job.canaries, len(rows), job.settings.seed)
    return mixed(pairs, planted, job.canaries)


def _own(pairs: Iterable[Pair]) -> list[Pair]:
    """The pairs of a file among which canaries go. Raises UserError for one that would be taken for a canary."""
    rows = list(pairs)
    if taken := next((row.id for row in rows if is_canary(row)), None):
        raise UserError(
            f"the row {taken} has the id and the tag of a planted canary; give it another id, or leave --canaries out"
        )
    return rows


def dialogues_of(rows: Iterable[Pair | Group], job: Job, steps: Sequence[Step]) -> Iterable[Dialogue[Any]]:
    """One dialogue for each comparison, or for each group, canaries among them; as many as can be counted where the
    rows can be.
    """
    made = _dialogues(items_of(rows, job), job, steps)
    return list(made) if isinstance(rows, Sized) or job.canaries else made


def _dialogues(items: Iterable[Pair | Group], job: Job, steps: Sequence[Step]) -> Iterable[Dialogue[Any]]:
    if job.schedule is not None:
        groups = (row for row in items if isinstance(row, Group))
        return stages.ranking(groups, job.constitution, steps, job.settings, job.rule, job.schedule)
    pairs = (row for row in items if isinstance(row, Pair))
    return stages.judging(pairs, job.constitution, steps, job.settings, job.rule)


def to_label(job: Job) -> WorkerContext:
    """What judging takes, in whatever process."""
    steps = opened(job)
    return WorkerContext(_models(steps), lambda item: next(iter(_dialogues([item], job, steps))))


def label_folder(
    out: Path,
    rows: Iterable[Pair | Group],
    job: Job,
    asking: Asking,
    bar: OpenBar,
    source: InputFile | None = None,
    gold: Gold | None = None,
) -> Labelled:
    """Judge the rows and write the folder that the contract describes; a run that must stop leaves a valid one.
    source: where the rows come from; none of them is read where the folder holds just what they would give.

    gold: what the labels are certified by, before any row is asked about. Raises UserError for canaries that have
    nowhere to be planted, and where no label could be certified.
    """
    if job.canaries and job.schedule is not None:
        raise UserError(
            "canaries are comparisons, and --groups ranks; plant attacks with `preceptor audit --attacks`"
        )
    if job.canaries and not any(principle.examples for principle in job.constitution.principles):
        raise UserError(
            f"{job.constitution.identity} has no examples to plant canaries in; give its principles some"
        )
    require(job)
    check_folder(out, [source.path] if source else [])
    if gold is not None:
        require_no_drift(out, job)
    found, paid = None, AskingResult(0, NOTHING_DONE, None)
    if gold is not None:
        found, paid = calibrated(gold, job, asking, bar)
        require_steps(found, gold.target)
        job, asking = found.job._replace(certified_by=gold.identity), asking.less(paid.progress.cost_usd)
        found = found._replace(job=job)
    wanted = {"constitution": job.constitution.identity, "judge": job.judges, "settings": job.resolved}
    if job.schedule is None and job.lasting and (manifest := finished(out, wanted, source)) is not None:
        return Labelled(manifest, AskingResult(manifest["rows"]["in"], paid.progress, None))
    folder, before = LabelFolder(out), stamp(source)
    asked, counted = _judged(folder, rows, job, asking, bar, source)
    if job.combine == DAWID_SKENE:
        recombine(folder.labels)
    certified = None
    if found is not None and gold is not None:
        job, certified = _certified(folder, found, gold, asking, bar)
    extra: FurtherFigures = {}
    if job.canaries:
        add_rates(extra, attack_rates(folder.read_canaries()))
    if job.recheck and asked.stopped is None:
        some = [label for label in folder.read_labels() if chosen(label.id, job.recheck)]
        looked, asked = _drift(some, job, asking, bar, asked)
        _add_drift(extra, looked)
    if len(job.panels) > 1:
        extra["steps"] = _worth(folder.read_labels, job, asking)
        extra["saved"] = saved_calls(folder.read_labels())
    asked = AskingResult(asked.rows, _sum(paid.progress, asked.progress), asked.stopped)
    run = LabelRun(
        constitution=job.constitution,
        judge=job.judges,
        settings=job.resolved,
        rows_in=counted,
        complete=asked.stopped is None,
        cost_usd=asked.progress.cost_usd,
        pairing=job.pairing if job.schedule else None,
        failed=asked.progress.failed,
        source=input_facts(source, before),
        prices={name: price.model_dump(mode="json") for name, price in asking.prices.items()},
        certificate=certified,
        extra=extra,
    )
    return Labelled(publish(out, run), asked)


def require_no_drift(out: Path, job: Job) -> None:
    """Raises UserError where these judges are known not to be those any more whose answers the ledger holds."""
    manifest = LabelFolder(out).read_manifest()
    looks = manifest.get("drift") if manifest is not None else None
    if manifest is not None and looks and looks["since"] and manifest["judge"] == job.judges:
        raise UserError(
            f"{out}: its judges have drifted, found on {looks['since']}, and the ledger holds their answers of before; "
            "certify and gate the judges of today in a new folder over a new ledger: --out NEW --ledger NEW"
        )


def _judged(
    folder: LabelFolder,
    rows: Iterable[Pair | Group],
    job: Job,
    asking: Asking,
    bar: OpenBar,
    source: InputFile | None,
) -> tuple[AskingResult, int]:
    """What was asked, and how many labels were written; canaries and rankings go to files of their own."""
    counted = 0
    carry_out = _ready(at_hand(rows), job, asking, source)
    with ExitStack() as stack:
        to_labels = stack.enter_context(writing(folder.labels))
        to_canaries = stack.enter_context(writing(folder.canaries)) if job.canaries else to_labels
        to_rankings = stack.enter_context(writing(folder.rankings)) if job.schedule else to_labels
        watch = stack.enter_context(bar("label"))

        def write(row: LabelRow) -> None:
            nonlocal counted
            labels = row.labels if isinstance(row, Ranked) else (row,)
            if isinstance(row, Ranked):
                to_rankings(row.ranking)
            for label in labels:
                if job.canaries and is_canary(label):
                    to_canaries(label)
                else:
                    to_labels(settled(label, job.certified))
                    counted += 1

        asked = carry_out(write, watch)
        if asked.stopped is not None and not asked.rows:
            raise asked.stopped  # nothing was done, so nothing is left behind
    return asked, counted


def calibrated(gold: Gold, job: Job, asking: Asking, bar: OpenBar) -> tuple[Calibrated, AskingResult]:
    """What the gold rows say of the job's judges. Raises what stopped the asking."""
    paid = AskingResult(0, NOTHING_DONE, None)

    def ask(rows: Sequence[Pair], alone: Job) -> list[Label]:
        nonlocal paid
        made, paid = _more(rows, alone, asking, bar("gold"), paid)
        if paid.stopped is not None:
            raise paid.stopped
        by_id = {label.id: label for label in made}
        return [by_id[row.id] for row in rows]

    return calibrate(gold.rows, job, gold.target, ask), paid


def _certified(
    folder: LabelFolder, found: Calibrated, gold: Gold, asking: Asking, bar: OpenBar
) -> tuple[Job, Certificate]:
    """The certificate of the labels that lie in the folder, its gold labels beside them, and the job with the
    thresholds that hold: where it is not granted, every label of a judge abstains.
    """
    job = found.job
    judges = [panel for panel in job.panels if not stands(panel[0], job)]
    # every answer is in the ledger already
    alone = job._replace(panels=judges, canaries=0.0, recheck=0.0)
    proof, asked = _asked(gold.rows, alone, asking, bar("gold"))
    if asked.stopped is not None:
        raise asked.stopped
    made = certificate(
        gold.target,
        found.steps,
        found.refused,
        evidence(proof),
        evidence(folder.read_labels()),
        constitution=job.constitution.identity,
        judge=job.judges,
        date=prices.today().isoformat(),
        floating=floating(job),
        ways=ways_of(job),
    )
    if not made.granted:
        job = job._replace(certified=(NEVER,) * len(job.certified))
        write_rows(folder.labels, (settled(label, job.certified) for label in list(folder.read_labels())))
    write_rows(folder.gold, (settled(label, job.certified) for label in proof))
    return job, made


def floating(job: Job) -> list[str]:
    """Judges behind whose name the provider can put other weights; at an address of one's own a name says nothing."""
    addresses = job.access.base_url
    names = [name for names, _ in job.panels for name in names]
    return prices.floating(name for name in names if not addresses.get(name, addresses.get("")))


def audit_rows(
    rows: Sequence[Pair],
    job: Job,
    asking: Asking,
    bar: OpenBar,
    planted: Sequence[Pair] = (),
    perturb: Sequence[Perturbation] = (),
    others: Sequence[Pair] = (),
) -> tuple[AuditFigures, AskingResult]:
    """Figures of the job's judges on pairs with gold, on the planted ones where there are any, in changed forms, and on
    others that have no gold.
    """
    labels, asked = _asked(rows, job, asking, bar("audit"))
    figures = audit(labels, job.constitution)
    if len(job.panels) > 1:
        figures["steps"] = _worth(lambda: labels, job, asking)
    if planted and asked.stopped is None:
        attacked, asked = _more(planted, job, asking, bar("canaries"), asked)
        add_rates(figures, attack_rates(attacked, labels))
    if others and asked.stopped is None:
        rated, asked = _more(others, job, asking, bar("rows"), asked)
        figures["corrected"] = corrected_agreement(evidence(labels), evidence(rated))
    for kind in perturb:
        if asked.stopped is None:
            changed, asked = _more(rows, changed_job(job, kind), asking, bar(f"perturb {kind}"), asked)
            _add_perturbed(figures, kind, perturbation(labels, changed))
    if job.recheck and asked.stopped is None:
        some = [label for label in labels if chosen(label.id, job.recheck)]
        found, asked = _drift(some, job, asking, bar, asked)
        _add_drift(figures, found)
    figures["cost_usd"] = asked.progress.cost_usd
    return figures, asked


def changed_job(job: Job, kind: Perturbation) -> Job:
    """The same judges asked the same in a changed form."""
    rules = perturbed_constitution(job.constitution, kind)
    return job._replace(constitution=rules, perturb=kind, canaries=0.0, recheck=0.0)


def _add_perturbed(figures: FurtherFigures, kind: Perturbation, found: PerturbedFigures) -> None:
    """With the rate by itself, so that a gate can name it."""
    figures.setdefault("perturbed", {})[kind] = found
    figures[FLIPS[kind]] = found["flip_rate"]


def _asked(rows: Sequence[Pair], job: Job, asking: Asking, bar: Any) -> tuple[list[Label], AskingResult]:
    made: list[Label] = []
    carry_out = _ready(rows, job, asking)
    with bar as watch:
        asked = carry_out(made.append, watch)
    return made, asked


def _ready(
    rows: Iterable[Pair | Group], job: Job, asking: Asking, source: InputFile | None = None
) -> Callable[[Callable[[Any], None], OnProgress], AskingResult]:
    """Judging the rows, here or on a cluster, with everything opened: rows that are made go to the first function that
    it is given, progress to the second.

    source: where rows come from that are no list.
    """
    if asking.cluster is None:
        steps = opened(job)
        dialogues = _walks(rows, job, steps, asking, source)
        return lambda write, watch: asyncio.run(
            stages.run_dialogues(dialogues, _models(steps), asking, write, watch)
        )
    from preceptor.asking import ray_engine

    if isinstance(rows, Sized) or source is None:
        items: Callable[[], Iterable[Any]] = partial(items_of, list(rows), job)
    else:
        items = partial(_items_from, source, job)
    return partial(ray_engine.run_on_ray, items, partial(to_label, job), asking)


def _items_from(source: InputFile, job: Job) -> Iterable[Pair | Group]:
    return items_of(rows_of(source), job)


def _walks(
    rows: Iterable[Pair | Group], job: Job, steps: Sequence[Step], asking: Asking, source: InputFile | None
) -> stages.Dialogues[Any]:
    """In batches, every round begins with the first row again: of those that are held, or of the file, which is read to
    its end once before anything is sent, so that a faulty row costs nothing.
    """
    if not asking.in_batches:
        return dialogues_of(rows, job, steps)
    if isinstance(rows, Sized) or source is None:
        held = list(rows)
        return lambda: dialogues_of(held, job, steps)
    deque(rows, maxlen=0)
    return lambda: dialogues_of(rows_of(source), job, steps)


def _models(steps: Sequence[Step]) -> tuple[Model | None, ...]:
    """Everybody who can be asked."""
    return tuple(judge.model for step in steps for judge in step.judges)


def _more(
    rows: Sequence[Pair], job: Job, asking: Asking, bar: Any, before: AskingResult
) -> tuple[list[Label], AskingResult]:
    """`_asked` under what is left of the cap, its counts added to those before."""
    made, asked = _asked(rows, job, asking.less(before.progress.cost_usd), bar)
    return made, AskingResult(before.rows, _sum(before.progress, asked.progress), asked.stopped)


def _sum(one: Progress, other: Progress) -> Progress:
    return one._replace(
        asked=one.asked + other.asked,
        from_ledger=one.from_ledger + other.from_ledger,
        failed=one.failed + other.failed,
        cost_usd=one.cost_usd + other.cost_usd,
    )


def _drift(
    first: Sequence[Label], job: Job, asking: Asking, bar: OpenBar, before: AskingResult
) -> tuple[LookFigures, AskingResult]:
    """Figures of the labels made anew by judges who cannot look into the ledger: the number of the look is in the
    request. A second look, on the same day or on another, is a new one.
    """
    pairs = [pair_of(label) for label in first]
    look = look_number(pairs, job, asking)
    made, asked = _more(pairs, looking(job, look), asking, bar("recheck"), before)
    return {**drift(first, made), "look": look}, asked


def look_again(
    pairs: Sequence[Pair], job: Job, look: int, asking: Asking, bar: OpenBar
) -> tuple[list[Label], AskingResult]:
    """The pairs labelled anew in this look."""
    return _asked(pairs, looking(job, look), asking, bar("recheck"))


def looking(job: Job, look: int) -> Job:
    """The same judges asked the same, in a look past the ledger."""
    settings = job.settings.model_copy(update={"sample": job.settings.sample + look})
    return job._replace(settings=settings, canaries=0.0, schedule=None)


def look_number(pairs: Sequence[Pair], job: Job, asking: Asking) -> int:
    """The number of the next look at these pairs, or of the one that was interrupted."""
    steps = opened(job)
    return asyncio.run(
        _next_look(lambda number: _dialogues(pairs, looking(job, number), steps), steps, asking)
    )


def _add_drift(figures: FurtherFigures, found: LookFigures) -> None:
    """Put the drift among the figures, with the two that stand by themselves, so that a gate can name them."""
    figures["drift"] = found
    figures["drift_rate"] = found["changed"]
    figures["drift_shift"] = found["mean_shift"]


async def _next_look(dialogues: LookDialogues, steps: Sequence[Step], asking: Asking) -> int:
    try:
        async with open_ledger(asking.ledger) as ledger:
            return await next_look(ledger, dialogues)
    finally:
        for model in _models(steps):
            if model is not None:
                await model.close()


def chosen(identity: str, share: float) -> bool:
    """Whether a row is among a share of all, by its id's hash."""
    return int(hashlib.sha256(f"recheck:{identity}".encode()).hexdigest()[:8], 16) < share * 2**32


def pair_of(label: Label) -> Pair:
    """The comparison that a label is about."""
    return Pair.model_validate(label.model_dump(include=set(Pair.model_fields)))


def _worth(labels: Callable[[], Iterable[Label]], job: Job, asking: Asking) -> list[PricedStep]:
    """What each step was worth, and what the calls behind its judgements cost, whenever they were made."""
    costs = asyncio.run(_cost_by_step(labels(), job, asking))
    made: list[PricedStep] = []
    for step in accuracy_by_step(labels()):
        cost = costs[step["step"]]
        before, now = (made[-1]["accuracy"] if made else None), step["accuracy"]
        added = None if before is None or now is None else now - before
        per_usd = added / cost if added is not None and cost else None
        made.append({**step, "cost_usd": cost, "added": added, "added_per_usd": per_usd})
    return made


async def _cost_by_step(labels: Iterable[Label], job: Job, asking: Asking) -> dict[int, float | None]:
    """USD by step; None where a price is not known."""
    step_of = {name: number for number, (names, _) in enumerate(job.panels) for name in names}
    total: dict[int, float | None] = dict.fromkeys(range(len(job.panels)), 0.0)
    async with open_ledger(asking.ledger) as ledger:
        for label in labels:
            calls = {one.call: one.model for one in label.judgements if one.call is not None}
            for call, cost in (await ledger.costs(list(calls))).items():
                step = step_of[calls[call]]
                so_far = total[step]
                total[step] = None if so_far is None or cost is None else so_far + cost
    return total
