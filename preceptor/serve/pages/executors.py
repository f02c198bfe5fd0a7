"""How often executors of a constitution agree, from labels at hand: a constitution, a way of judging, and judges.

The same words give other verdicts in other hands (arXiv 2606.30116 finds 73 % agreement across models), so a
constitution is only as good as constitution and executor together. Nobody is asked: what is counted are labels of the
same pairs that were made already.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

from preceptor.constitution.errors import UserError
from preceptor.judge.compare import SHOWN
from preceptor.judge.dataset.label_folder import LabelFolder
from preceptor.judge.figures import VoteFigures
from preceptor.judge.records import Label, Letter
from preceptor.judge.statistics import Interval, wilson
from preceptor.judge.voting.panel import Ballot, agreement, ballots
from preceptor.serve.pages.human_agreement import judge_says
from preceptor.serve.pages.label_sets import LabelSet

MOST_ROWS = 5000
"""Labels that are read of each set: those at the beginning of the file."""


class LabelExecutor(NamedTuple):
    """Who applies what, and how."""

    constitution: str
    """Its identity."""
    way: str
    """How principles are put to the judge: joint, each, ..."""
    judge: str

    @property
    def told(self) -> str:
        """For people, in one line."""
        return f"{self.constitution}, {self.way}, {self.judge}"


class Agreeing(NamedTuple):
    """Two executors on the pairs that both have labelled."""

    one: LabelExecutor
    other: LabelExecutor
    agree: Interval


class PanelVotes(NamedTuple):
    """How far the judges of one set's panel agree."""

    labels: str
    """The set's name in addresses."""
    told: str
    judges: list[str]
    figures: VoteFigures


class ExecutorTable(NamedTuple):
    """What labels at hand say of who made them."""

    executors: list[tuple[LabelExecutor, int]]
    """With how many pairs each has a verdict on."""
    agreeing: list[Agreeing]
    """Each two with a pair in common, those who agree least first."""
    panels: list[PanelVotes]
    cut: list[str]
    """Sets of which only the first labels were read."""


def executor_table(sets: Iterable[LabelSet]) -> ExecutorTable:
    """Of these sets; one that cannot be read, or tells not how it was made, is left out."""
    verdicts: dict[LabelExecutor, dict[str, Letter]] = {}
    panels: list[PanelVotes] = []
    cut: list[str] = []
    for found in sets:
        manifest = LabelFolder(found.path.parent).read_manifest()
        if manifest is None or not found.path.is_file():
            continue
        try:
            labels = list(islice(LabelFolder(found.path.parent).read_labels(), MOST_ROWS + 1))
        except (OSError, UserError):
            continue
        if len(labels) > MOST_ROWS:
            labels.pop()
            cut.append(found.told)
        way = str(manifest["settings"].get("principles", "joint"))
        mine = verdicts.setdefault(LabelExecutor(manifest["constitution"], way, manifest["judge"]), {})
        for label in labels:
            if (letter := judge_says(label)) is not None:
                key, turned = _pair(label)
                mine[key] = SHOWN["swapped" if turned else "original"][letter]
        if cast := ballots(labels):
            figures = agreement(cast)
            if len(figures["matrix"]) > 1:
                panels.append(PanelVotes(found.name, found.told, list(figures["matrix"]), figures))
    executors = [(one, len(said)) for one, said in verdicts.items()]
    return ExecutorTable(executors, _agreeing(verdicts), panels, cut)


def _agreeing(verdicts: dict[LabelExecutor, dict[str, Letter]]) -> list[Agreeing]:
    cast = [
        Ballot(pair, str(number), letter)
        for number, said in enumerate(verdicts.values())
        for pair, letter in said.items()
    ]
    names = list(verdicts)
    found = [
        Agreeing(
            names[int(one)], names[int(other)], wilson(round((met["share"] or 0.0) * met["n"]), met["n"])
        )
        for one, others in agreement(cast)["matrix"].items()
        for other, met in others.items()
        if int(one) < int(other) and met["n"]
    ]
    return sorted(found, key=lambda each: each.agree.share)


def _pair(label: Label) -> tuple[str, bool]:
    """A key that is the same for the same prompt and replies in either order, and whether they stand in the other."""
    replies = (label.response_a, label.response_b)
    turned = replies[0] > replies[1]
    asked = [[message.role, message.content] for message in label.prompt.messages]
    told = json.dumps([asked, *(replies[::-1] if turned else replies)])
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest(), turned
