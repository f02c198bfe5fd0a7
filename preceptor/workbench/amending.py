"""The way from what people said of labels to changes of a constitution: a judge goes by each principle alone, a model
proposes changes, and held-out pairs say what the chosen ones are worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from preceptor.asking import stages
from preceptor.asking.step_bill import StepBill
from preceptor.constitution.edit import Document, open_document
from preceptor.constitution.errors import UserError
from preceptor.constitution.files import dump, load, shipped
from preceptor.constitution.principle import Constitution
from preceptor.judge.dataset.label_folder import LabelFolder, constitution_of
from preceptor.judge.models.protocol import Dialogue
from preceptor.judge.records import Label, Pair, Response
from preceptor.judge.settings import LabelSettings
from preceptor.label.run import pair_of
from preceptor.prompts.records import Prompt
from preceptor.settings import Asking
from preceptor.workbench import induction, overrides
from preceptor.workbench.inducing import PROPOSING, TYPICAL
from preceptor.workbench.induction import ReconstructionFigures, SplitPairs
from preceptor.workbench.overrides import EditFigures, HumanChoice, HumanChoices
from preceptor.workbench.proposing import asking_of
from preceptor.workbench.settings import InductionSettings


class AmendingJob(NamedTuple):
    """Whose choices are learnt from, and who proposes and tries changes to what."""

    document: Document
    said: HumanChoices
    model: str
    """Who proposes."""
    judge: str
    """Who goes by the constitution, as it is and with the changes."""
    settings: InductionSettings
    asking: Asking

    @property
    def rules(self) -> Constitution:
        """The constitution as it is."""
        return self.document.constitution

    @property
    def each(self) -> LabelSettings:
        """How the judge is asked: about each principle by itself."""
        return LabelSettings(principles="each", tie=self.settings.tie)

    def split(self) -> SplitPairs:
        """The pairs on which people choose, to learn from and held out."""
        chosen = (pair_of(one.label).model_copy(update={"preferred": one.letter}) for one in self.said.made)
        return induction.split_pairs(chosen, self.settings)

    def learning(self, split: SplitPairs) -> list[HumanChoice]:
        """What people say of the pairs to learn from."""
        ids = {pair.id for pair in split.learn}
        return [one for one in self.said.made if one.label.id in ids]

    def proposals(self, asks: Sequence[Prompt]) -> stages.AskJob:
        """Asking for changes."""
        return asking_of(asks, self.model, self.asking, PROPOSING)


class AmendedConstitution(NamedTuple):
    """What is proposed, and what it is worth."""

    document: Document
    """With the changes."""
    taken: list[EditFigures]
    tried: int
    """Changes that were tried."""
    learn: int
    held_out: int
    overridden: int
    """Pairs to learn from on which people choose otherwise than the judge."""
    before: ReconstructionFigures
    """On the held-out pairs."""
    after: ReconstructionFigures
    put_right: list[str]
    """Ids of held-out pairs."""
    put_wrong: list[str]
    bill: StepBill


def document_of(constitution: str | None, labels: Path) -> Document:
    """A file, or the text of a constitution that is none; None: the one that the labels were made under.

    Raises UserError.
    """
    if constitution is not None and constitution not in shipped():
        return open_document(constitution)
    if constitution is not None:
        rules = load(constitution)
    else:
        manifest = LabelFolder(labels).read_manifest()
        if manifest is None:
            raise UserError(
                f"{labels} holds no labels with their manifest; wanted a folder that `preceptor label` has "
                "finished, or the constitution with --constitution"
            )
        rules = constitution_of(manifest, labels)
    text = dump(rules)
    return Document(Path(f"{rules.name}.yaml"), text, text)


def judge_of(labels: Sequence[Label], path: Path) -> str:
    """Who made all of the labels. Raises UserError where that is not one judge."""
    judges = {label.judge for label in labels}
    if len(judges) != 1 or " + " in (only := judges.pop()):
        raise UserError(f"{path} was labelled by several judges, or holds no label; name one with --judge")
    return only


def asks(job: AmendingJob) -> Iterator[Dialogue[Any]]:
    """All that would be asked if people contradicted every label, and as many wordings came as the settings allow."""
    split = job.split()
    pairs, shown = [*split.learn, *split.held_out], job.learning(split)
    stand_ins = [induction.ProposedPrinciple(f"{TYPICAL} {n}", 1) for n in range(job.settings.candidates)]
    by_id = {one.label.id: one.label for one in shown}
    proposals = job.proposals(overrides.proposing_changes(shown, job.rules, by_id, job.settings))
    context, judge = proposals.open(), job.asking.open_judge(job.judge)
    yield from chain(
        stages.labelling(pairs, job.rules, judge, job.each),
        map(context.dialogue, proposals.rows),
        stages.labelling(pairs, induction.constitution_of(stand_ins), judge, job.each),
    )


def amend(job: AmendingJob, bar: stages.OpenBar, say: Callable[[str], None]) -> AmendedConstitution:
    """Propose changes and try them. say: is told what is left out, and what will not be known.

    Raises UserError where people choose as the judge does; what had been asked is in the ledger. Nothing is written.
    """
    split, rules, settings = job.split(), job.rules, job.settings
    pairs: list[Pair] = [*split.learn, *split.held_out]
    shown = job.learning(split)
    bill = StepBill(job.asking, bar)
    before = bill.labels("judge", pairs, job.judge, rules, job.each)
    trial = overrides.Trial(rules, (), before, ())
    overridden = [one for one in shown if trial.said(one.label.id, ()) != one.letter]
    if not overridden:
        raise UserError(
            f"{job.judge} by {rules.identity}, principle by principle, chooses as people do on all {len(shown)} "
            "learning pairs; there is nothing to learn from, so bring other overrides"
        )
    if len(overridden) == len(shown):
        say(
            "people contradict the judge on every learning pair, so what a change would put wrong is not known; "
            "bring pairs on which they agree, as a blind check has them"
        )
    replies: list[Response] = []
    wanted = overrides.proposing_changes(overridden, rules, {one.id: one for one in before}, settings)
    bill.ask("propose", job.proposals(wanted), replies.extend)
    found = overrides.changes_in(replies, rules, settings.candidates)
    changes = overrides.removable(found.changes, job.document)
    for why, count in found.set_aside.items():
        say(f"left out: {count} {why}")
    wordings = overrides.worded(changes, rules)
    by_change = bill.labels("try", pairs, job.judge, wordings, job.each) if wordings else []
    trial = overrides.Trial(rules, changes, before, by_change)
    kept, taken = overrides.chosen_changes(trial, changes, split.learn, rules, settings)
    right, wrong = trial.moved(split.held_out, (), kept)
    return AmendedConstitution(
        document=overrides.edited(job.document, taken),
        taken=taken,
        tried=len(changes),
        learn=len(split.learn),
        held_out=len(split.held_out),
        overridden=len(overridden),
        before=trial.figures(split.held_out, ()),
        after=trial.figures(split.held_out, kept),
        put_right=right,
        put_wrong=wrong,
        bill=bill,
    )
