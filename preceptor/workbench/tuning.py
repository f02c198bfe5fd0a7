"""The way from one principle to its best wording: wordings are given or proposed, and a judge goes by each on gold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from preceptor.asking import stages
from preceptor.asking.step_bill import StepBill
from preceptor.constitution.principle import Constitution, Principle
from preceptor.judge.models.protocol import Dialogue
from preceptor.judge.records import Pair, Response
from preceptor.judge.settings import LabelSettings, RespondSettings
from preceptor.settings import Asking
from preceptor.workbench.induction import SplitPairs, by_label
from preceptor.workbench.proposing import asking_of
from preceptor.workbench.wordings import Wording, WordingFigures, alone, compared, rewording, wordings_in

REWORDING = RespondSettings(samples=1, max_tokens=1024, temperature=0.0)


class TuningJob(NamedTuple):
    """Which wordings of a principle are compared, by whom, on which pairs."""

    constitution: Constitution
    principle: Principle
    split: SplitPairs
    judge: str
    tie: bool
    """Whether the judge may name neither reply."""
    given: Sequence[str]
    """Wordings to try."""
    model: str | None
    """Who writes further wordings; None: nobody."""
    most: int
    """Wordings that the model writes."""
    asking: Asking

    @property
    def pairs(self) -> list[Pair]:
        """Those to learn from, then those held out."""
        return [*self.split.learn, *self.split.held_out]

    @property
    def settings(self) -> LabelSettings:
        """How the judge is asked."""
        return LabelSettings(principles="each", tie=self.tie)

    @property
    def proposals(self) -> stages.AskJob | None:
        """Asking for wordings."""
        if self.model is None:
            return None
        return asking_of([rewording(self.principle, self.most)], self.model, self.asking, REWORDING)


def asks(job: TuningJob) -> Iterator[Dialogue[Any]]:
    """All that would be asked, with stand-ins for the wordings that a model is still to write."""
    tried = wordings_in((), job.principle, job.given, job.most)
    if (proposals := job.proposals) is not None:
        tried += [f"{job.principle.text} {n}" for n in range(job.most)]  # as long as those to come
        yield from map(proposals.open().dialogue, proposals.rows)
    for text in tried:
        rules = alone(job.constitution, job.principle, text)
        yield from stages.labelling(job.pairs, rules, job.asking.open_judge(job.judge), job.settings)


def try_wordings(job: TuningJob, bill: StepBill) -> list[WordingFigures]:
    """What each wording is worth; the first is the file's own. Raises what stopped the asking."""
    replies: list[Response] = []
    if (proposals := job.proposals) is not None:
        bill.ask("reword", proposals, replies.extend)
    made = []
    for number, text in enumerate(wordings_in(replies, job.principle, job.given, job.most)):
        before, rules = bill.cost_usd, alone(job.constitution, job.principle, text)
        labels = bill.labels(f"wording {number}", job.pairs, job.judge, rules, job.settings)
        made.append(Wording(text, by_label(labels), bill.cost_usd - before))
    return compared(job.split, made)
