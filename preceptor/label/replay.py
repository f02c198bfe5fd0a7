"""What labels would have been under fewer principles or other weights, from the judgements that they hold.

Nobody is asked. Where another constitution would have put another question to the judge, its answer is not known, and
the label is counted as unknown: it is neither kept nor guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict

from preceptor.constitution.errors import UserError
from preceptor.constitution.principle import Constitution, Principle
from preceptor.judge.aggregate import winner
from preceptor.judge.compare import subject
from preceptor.judge.dataset.label_folder import LabelFolder, constitution_of
from preceptor.judge.dataset.manifest import LabelManifest
from preceptor.judge.dataset.publish import LabelRun, publish
from preceptor.judge.groupings import GROUPINGS, Drawing
from preceptor.judge.records import Label, Letter
from preceptor.judge.settings import CHECKS
from preceptor.judge.voting.derived import stepwise
from preceptor.judge.voting.panel import DAWID_SKENE, recombined
from preceptor.label.run import Job, job_of_folder
from preceptor.preflight import check_folder
from preceptor.prompts.manifest import file_hash
from preceptor.prompts.rows import writing

HUMAN = "human"
"""The judge who is asked about all principles together, whatever the settings say."""
Became = Literal["same", "flipped", "new_tie", "undecided", "decided", "unknown"]
"""`new_tie` and `undecided` had a winner, `decided` had none."""


class Replayed(NamedTuple):
    """A label, and what it would have been; None: a judge would have been asked what it never was."""

    before: Label
    after: Label | None

    @property
    def became(self) -> Became:
        """In one word."""
        if self.after is None:
            return "unknown"
        was, now = chosen_by(self.before), chosen_by(self.after)
        if was == now:
            return "same"
        if was is None:
            return "decided"
        if now is None:
            return "new_tie" if self.after.status == "tie" else "undecided"
        return "flipped"


class PreferenceCounts(TypedDict):
    """How the rows that a policy learns from would change."""

    before: int
    after: int
    lost: int
    """Pairs that had a winner and have none."""
    gained: int
    turned: int
    """Pairs whose chosen reply would be the rejected one."""


class ReplayFigures(TypedDict):
    """What `constitution replay --json` prints, beside `out`."""

    was: str
    constitution: str
    labels: int
    same: int
    """The same winner, or none before and after."""
    flipped: list[str]
    """Ids of labels with the other winner."""
    new_tie: list[str]
    undecided: list[str]
    """Ids of labels that had a winner, and now neither winner nor tie."""
    decided: list[str]
    """Ids of labels that have a winner, and had none."""
    unknown: list[str]
    """Ids of labels for which a judge would have been asked what it never was."""
    mean_shift: float | None
    """Of the probability, over labels that have one before and after; None: there is none."""
    preferences: PreferenceCounts
    agreement_before: float | None
    """Share of the labels with gold, unknown ones left out, that name it; None where there is no gold."""
    agreement_after: float | None


def chosen_by(label: Label) -> Letter | None:
    """a or b; None for a label that becomes no preference."""
    if label.status != "ok" or label.probability is None:
        return None
    return winner(label.probability)


def altered(constitution: Constitution, without: Sequence[str], weight: Mapping[str, float]) -> Constitution:
    """Less some principles, and with other weights; a weight of 0 takes a principle out. Raises UserError."""
    ids = [one.id for one in constitution.principles]
    for name in (*without, *weight):
        if name not in ids:
            raise UserError(
                f"{constitution.identity} has no principle {name!r}; wanted one of {', '.join(ids)}"
            )
    if both := sorted(set(without) & set(weight)):
        raise UserError(f"{both[0]} is left out and given a weight; name it once")
    gone = {*without, *(name for name, share in weight.items() if share == 0)}
    if gone >= set(ids):
        raise UserError("no principle would be left; keep one")
    kept = constitution.without(gone).principles
    changed = tuple(one.model_copy(update={"weight": weight.get(one.id, one.weight)}) for one in kept)
    made = constitution.model_copy(update={"principles": changed})
    if made.identity == constitution.identity:
        raise UserError("nothing would change; leave a principle out with --without, or give --weights")
    return made


def replayed(labels: Iterable[Label], job: Job, constitution: Constitution) -> Iterator[Replayed]:
    """Each label of a job once more under another constitution."""
    if job.combine != DAWID_SKENE:
        yield from (Replayed(label, _again(label, job, constitution)) for label in labels)
        return
    held = [Replayed(label, _again(label, job, constitution)) for label in labels]
    known = iter(recombined([one.after for one in held if one.after is not None]))
    for one in held:
        yield one if one.after is None else one._replace(after=next(known))


def _again(label: Label, job: Job, constitution: Constitution) -> Label | None:
    judges = [name for names, _ in job.panels for name in names]
    asked = {name: {subject(each) for each in _asks(label, name, job, constitution)} for name in judges}
    applicable = {one.id for one in constitution.for_prompt(label.prompt.tags)}
    kept = (
        one
        for one in label.judgements
        if one.principle in (applicable if one.call is None else asked.get(one.model, ()))
    )
    bare = label.model_copy(update={"judgements": tuple(kept)})
    made = stepwise(bare, constitution, job.panels, job.rule)
    asked_steps = max((vote.step for vote in label.votes), default=0) + 1
    if made.steps > asked_steps:
        return None
    equal = label.response_a == label.response_b  # nobody is asked about those
    reached = [name for names, _ in job.panels[: made.steps] for name in names]
    if not equal and not all(_answered(label, name, job, constitution) for name in reached):
        return None
    return bare.model_copy(
        update={
            "status": made.sum.status,
            "probability": made.sum.probability,
            "judgements": tuple(one for one in bare.judgements if one.call is None or one.model in reached),
            "votes": made.votes,
            "unjudged": made.sum.incomplete,
            "judge": made.judge,
            "constitution": constitution.identity,
        }
    )


def _answered(label: Label, judge: str, job: Job, constitution: Constitution) -> bool:
    """Whether a judge was asked just what it would be asked under the other constitution, or more."""
    if judge == CHECKS:
        return True
    had = {_question(asked) for asked in _asks(label, judge, job, job.constitution)}
    return all(_question(asked) in had for asked in _asks(label, judge, job, constitution))


def _asks(
    label: Label, judge: str, job: Job, constitution: Constitution
) -> tuple[tuple[Principle, ...], ...]:
    open_ones = [one for one in constitution.for_prompt(label.prompt.tags) if not one.check]
    way = "joint" if judge == HUMAN else job.settings.principles
    return GROUPINGS[way].asks(open_ones, Drawing(job.settings.seed, label.id, job.settings.draws))


def _question(asked: tuple[Principle, ...]) -> tuple[object, ...]:
    """What a judge is asked about; weights are part of it where it weighs several principles."""
    alone = len(asked) == 1
    return (subject(asked), *((one.id, None if alone else one.weight) for one in asked))


class Replay(NamedTuple):
    """A label folder, read for a replay."""

    folder: LabelFolder
    manifest: LabelManifest
    job: Job
    """That wrote it."""

    def figures(self, constitution: Constitution, out: Path | None) -> ReplayFigures:
        """Replay all labels; out: the folder for those that are known, with their preferences."""
        changes = replayed(self.folder.read_labels(), self.job, constitution)
        if out is None:
            return _known(figures(changes, self.job.constitution, constitution))
        check_folder(out, [str(self.folder.labels)])
        with writing(LabelFolder(out).labels) as write:
            found = _known(figures(_written(changes, write), self.job.constitution, constitution))
        publish(out, self._run(constitution, found["labels"] - len(found["unknown"])))
        return found

    def _run(self, constitution: Constitution, rows: int) -> LabelRun:
        settings: dict[str, Any] = {**self.manifest["settings"], "canaries": 0.0, "recheck": 0.0}
        for name in ("certified", "certified_by"):
            settings.pop(name, None)
        origin = {"constitution": self.job.constitution.identity, "sha256": file_hash(self.folder.labels)}
        return LabelRun(
            constitution=constitution,
            judge=self.job.judges,
            settings=settings | {"replayed": origin},
            rows_in=rows,
            complete=self.manifest["complete"],
            cost_usd=0.0,
            source=self.manifest["input"],
            prices=self.manifest["prices"],
        )


def open_replay(path: Path) -> Replay:
    """Raises UserError for what is no label folder, and for labels of rankings."""
    folder = LabelFolder(path.parent if path.is_file() else path)
    manifest = folder.read_manifest()
    if manifest is None or "panels" not in manifest["settings"]:
        raise UserError(
            f"{path} holds no labels with their manifest; wanted a folder that `preceptor label` has finished"
        )
    if manifest["settings"].get("schedule"):
        raise UserError(
            f"{path} ranks groups, and which replies met may depend on the labels; wanted labels of pairs"
        )
    constitution = constitution_of(manifest, path)
    return Replay(folder, manifest, job_of_folder(manifest, constitution))


def _written(changes: Iterable[Replayed], write: Callable[[Label], None]) -> Iterator[Replayed]:
    for change in changes:
        if change.after is not None:
            write(change.after)
        yield change


def _known(found: ReplayFigures) -> ReplayFigures:
    """Raises UserError where nothing is known of any label."""
    if found["labels"] and len(found["unknown"]) == found["labels"]:
        raise UserError(
            "for every label a judge would have to be asked anew: it weighed the principles together; label with "
            "--principles each, whose judgements can be added up in other ways"
        )
    return found


def figures(changes: Iterable[Replayed], was: Constitution, now: Constitution) -> ReplayFigures:
    """What the changes come to."""
    ids: dict[Became, list[str]] = {}
    same = with_gold = right_before = right_after = before = after = shifts = 0
    shift = 0.0
    for change in changes:
        became = change.became
        if became == "same":
            same += 1
        else:
            ids.setdefault(became, []).append(change.before.id)
        before += chosen_by(change.before) is not None
        if change.after is None:
            continue
        after += chosen_by(change.after) is not None
        if change.before.probability is not None and change.after.probability is not None:
            shifts += 1
            shift += abs(change.after.probability - change.before.probability)
        if change.before.preferred in ("a", "b"):
            with_gold += 1
            right_before += chosen_by(change.before) == change.before.preferred
            right_after += chosen_by(change.after) == change.before.preferred
    named = {kind: ids.get(kind, []) for kind in ("flipped", "new_tie", "undecided", "decided", "unknown")}
    return {
        "was": was.identity,
        "constitution": now.identity,
        "labels": same + sum(map(len, ids.values())),
        "same": same,
        "flipped": named["flipped"],
        "new_tie": named["new_tie"],
        "undecided": named["undecided"],
        "decided": named["decided"],
        "unknown": named["unknown"],
        "mean_shift": shift / shifts if shifts else None,
        "preferences": {
            "before": before,
            "after": after,
            "lost": len(named["new_tie"]) + len(named["undecided"]),
            "gained": len(named["decided"]),
            "turned": len(named["flipped"]),
        },
        "agreement_before": right_before / with_gold if with_gold else None,
        "agreement_after": right_after / with_gold if with_gold else None,
    }
