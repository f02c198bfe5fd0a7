"""The way from pairs to a constitution: a model proposes principles, a judge votes, and held-out pairs say what the
chosen ones are worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from preceptor.asking import stages
from preceptor.asking.step_bill import StepBill
from preceptor.constitution.errors import UserError
from preceptor.constitution.files import load_text
from preceptor.constitution.forms.carry import file_text
from preceptor.constitution.principle import Constitution
from preceptor.judge.models.protocol import Dialogue
from preceptor.judge.records import Pair, Response
from preceptor.judge.settings import LabelSettings, RespondSettings
from preceptor.settings import Asking
from preceptor.workbench import induction
from preceptor.workbench.induction import ReconstructionFigures, SplitPairs, Tally
from preceptor.workbench.proposing import asking_of
from preceptor.workbench.settings import InductionSettings

PROPOSING = RespondSettings(samples=1, max_tokens=1024, temperature=0.0)
JOINT = LabelSettings(principles="joint")
TYPICAL = "Choose the reply that gives the reason for what it says and leaves out what was not asked for."
"""In the place of a candidate, where only the plan is wanted."""


class InductionJob(NamedTuple):
    """Who learns principles from which pairs."""

    split: SplitPairs
    model: str
    """Who proposes."""
    judge: str
    """Who votes, and who is asked what the chosen principles are worth."""
    settings: InductionSettings
    asking: Asking

    @property
    def pairs(self) -> list[Pair]:
        """Those to learn from, then those held out."""
        return [*self.split.learn, *self.split.held_out]

    @property
    def each(self) -> LabelSettings:
        """How votes are asked: about each principle by itself."""
        return LabelSettings(principles="each", tie=self.settings.tie)

    @property
    def proposals(self) -> stages.AskJob:
        """Asking for principles."""
        return asking_of(
            induction.proposing(self.split.learn, self.settings), self.model, self.asking, PROPOSING
        )


class InducedConstitution(NamedTuple):
    """What was learnt."""

    text: str
    """The constitution's file."""
    constitution: Constitution
    candidates: int
    """Principles that were voted on."""
    tallies: dict[str, Tally]
    """Chosen principle -> what it says of the learning pairs, alone."""
    executors: list[ReconstructionFigures]
    """What the chosen ones are worth on the held-out pairs, by each way of carrying them out."""
    bill: StepBill


def asks(job: InductionJob) -> Iterator[Dialogue[Any]]:
    """All that would be asked if as many principles came, and were chosen, as the settings allow."""
    most = job.settings.candidates
    stand_ins = [induction.ProposedPrinciple(f"{TYPICAL} {n}", 1) for n in range(most)]
    voted_on, chosen = (induction.constitution_of(stand_ins[:count]) for count in (most, job.settings.most))
    context = job.proposals.open()
    yield from chain(
        map(context.dialogue, job.proposals.rows),
        _labelling(job.pairs, voted_on, job, job.each),
        _labelling(job.split.held_out, chosen, job, JOINT),
    )


def _labelling(
    pairs: Sequence[Pair], rules: Constitution, job: InductionJob, settings: LabelSettings
) -> Iterator[Dialogue[Any]]:
    yield from stages.labelling(pairs, rules, job.asking.open_judge(job.judge), settings)


def induce(job: InductionJob, name: str, source: str, out: Path, bar: stages.OpenBar) -> InducedConstitution:
    """Learn a constitution of this name. source, out: the files of the pairs and of the constitution, as they are told.

    Raises UserError where nothing is proposed, and where no candidate is better than chance; what had been asked is in
    the ledger. Nothing is written.
    """
    split, settings = job.split, job.settings
    bill = StepBill(job.asking, bar)
    replies: list[Response] = []
    bill.ask("propose", job.proposals, replies.extend)
    candidates = induction.candidates_in(replies, settings.candidates)
    if not candidates:
        raise UserError(
            f"{job.model} proposed no principle; look at a reply with `preceptor ledger show`, or ask another"
        )
    voted_on = induction.constitution_of(candidates)
    labels = bill.labels("vote", job.pairs, job.judge, voted_on, job.each)
    choices = induction.choices_of(labels)
    names = [one.id for one in voted_on.principles]
    chosen = induction.chosen_set(names, split.learn, choices, settings)
    if not chosen:
        raise UserError(
            f"none of {len(candidates)} candidates reconstructs the learning pairs better than chance by more than "
            f"{settings.least_gain}; bring more pairs, or ask another model"
        )
    drafts = induction.drafts_of(candidates, names, chosen, split.learn, choices)
    origin = f"Induced from {len(split.learn)} pairs of {source} by {job.model}, judged by {job.judge}"
    text = file_text(name, origin, drafts)
    rules = load_text(text, out)
    held_out = {pair.id for pair in split.held_out}
    votes = {pair.id: induction.voted(pair, chosen, choices) for pair in split.held_out}
    by_each = induction.by_each([label for label in labels if label.id in held_out], rules)
    by_joint = induction.by_label(bill.labels("joint", split.held_out, job.judge, rules, JOINT))
    executors = [
        induction.reconstructed("vote", split.held_out, votes),
        induction.reconstructed("each", split.held_out, by_each),
        induction.reconstructed("joint", split.held_out, by_joint),
    ]
    tallies = {one: induction.tally(one, split.learn, choices) for one in chosen}
    return InducedConstitution(text, rules, len(candidates), tallies, executors, bill)
