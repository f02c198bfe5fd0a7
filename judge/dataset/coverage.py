"""Which prompts speak to which principle, and what labels made of them: tags by principles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, TypedDict

from preceptor.constitution.checks import looks_refused
from preceptor.constitution.errors import UserError
from preceptor.constitution.principle import Constitution, Principle
from preceptor.judge.aggregate import deciding, opinions, sum_up, weights, winner
from preceptor.judge.compare import JOINT
from preceptor.judge.records import Judgement, Label
from preceptor.prompts.records import Prompt

UNTAGGED = ""
"""In the place of a tag, of prompts without any."""
ALL = "*"
"""In the place of a tag, of all prompts, each counted once however many tags it has."""


class CoverageCell(TypedDict):
    """A principle and the prompts with one tag. None: not known, as without labels; no count of zero."""

    tag: str
    principle: str
    prompts: int
    """To which the principle applies."""
    judged: int | None
    """Pairs with a complete verdict on the principle alone; None where it was only ever asked about with others."""
    told_apart: int | None
    """Of those, pairs of which the principle prefers one reply, in both orders alike."""
    decided: int | None
    """Of those, labels that would have no winner, or the other, without the principle."""
    rejected_refusals: int | None
    """Labels with a winner, on prompts to which the principle applies, whose rejected reply declines by its wording."""


class CoverageFigures(TypedDict):
    """What `prompts coverage --json` prints."""

    constitution: str
    prompts: int
    labels: int | None
    foreign: int
    """Labels made under another constitution, which are left out."""
    cells: list[CoverageCell]
    empty: list[list[str]]
    """[tag, principle] of cells in the principle's reach without a prompt."""
    all_tie: list[list[str]]
    """[tag, principle] of cells with judged pairs of which none was told apart."""


class _Verdict(NamedTuple):
    told_apart: bool
    decided: bool


class _Counts:
    """Of one cell."""

    def __init__(self) -> None:
        self.prompts = self.labels = self.judged = self.told_apart = self.decided = self.refusals = 0
        self.joint = False


def coverage(
    constitution: Constitution, prompts: Iterable[Prompt], labels: Iterable[Label] | None = None
) -> CoverageFigures:
    """Count both, each once through. Raises UserError where no label was made under the constitution."""
    counts: dict[tuple[str, str], _Counts] = {}
    total = made = foreign = 0
    for prompt in prompts:
        total += 1
        for principle in constitution.for_prompt(prompt.tags):
            for tag in _tags(prompt):
                counts.setdefault((tag, principle.id), _Counts()).prompts += 1
    for label in labels or ():
        if label.constitution != constitution.identity:
            foreign += 1
            continue
        made += 1
        _count(counts, label, constitution)
    if foreign and not made:
        raise UserError(
            f"none of the {foreign} labels was made under {constitution.identity}; wanted labels of this constitution"
        )
    cells = list(_cells(constitution, counts, labels is not None))
    return {
        "constitution": constitution.identity,
        "prompts": total,
        "labels": None if labels is None else made,
        "foreign": foreign,
        "cells": cells,
        "empty": [[cell["tag"], cell["principle"]] for cell in cells if not cell["prompts"]],
        "all_tie": [
            [cell["tag"], cell["principle"]] for cell in cells if cell["judged"] and not cell["told_apart"]
        ],
    }


def _tags(prompt: Prompt) -> tuple[str, ...]:
    return (*(prompt.tags or (UNTAGGED,)), ALL)


def _count(counts: dict[tuple[str, str], _Counts], label: Label, constitution: Constitution) -> None:
    principles = constitution.for_prompt(label.prompt.tags)
    weight = weights(principles)
    found = dict(_verdicts(label, weight))
    joint = {one.id for one in principles if not one.check} if _asked_together(label) else set()
    refused = _rejects_refusal(label)
    for principle in principles:
        verdict = found.get(principle.id)
        for tag in _tags(label.prompt):
            cell = counts.setdefault((tag, principle.id), _Counts())
            cell.labels += 1
            cell.refusals += refused
            cell.joint |= principle.id in joint
            if verdict is not None:
                cell.judged += 1
                cell.told_apart += verdict.told_apart
                cell.decided += verdict.decided


def _asked_together(label: Label) -> bool:
    return any(one.principle == JOINT for one in label.judgements)


def _verdicts(label: Label, weight: Mapping[str, float]) -> Iterator[tuple[str, _Verdict]]:
    """Of every principle with a complete verdict of its own. A check that abstains is one that tells nothing apart."""
    judgements = [one for one in deciding(label) if one.principle in weight]
    heard = {one.principle for one in opinions(label)}
    for name in dict.fromkeys(one.principle for one in judgements if one.principle != JOINT):
        own = [one for one in judgements if one.principle == name]
        if name not in heard and any(one.call is not None for one in own):
            continue
        apart = name in heard and sum_up(own, weight).status == "ok"
        yield name, _Verdict(apart, apart and _decides(label, judgements, name, weight))


def _decides(label: Label, judgements: list[Judgement], name: str, weight: Mapping[str, float]) -> bool:
    if label.status != "ok" or label.probability is None:
        return False
    rest = [one for one in judgements if one.principle != name]
    without = sum_up(rest, weight)
    if without.status != "ok" or without.probability is None:
        return True
    return winner(without.probability) != winner(label.probability)


def _rejects_refusal(label: Label) -> bool:
    if label.status != "ok" or label.probability is None:
        return False
    return looks_refused(label.response_b if winner(label.probability) == "a" else label.response_a)


def _cells(
    constitution: Constitution, counts: Mapping[tuple[str, str], _Counts], labelled: bool
) -> Iterator[CoverageCell]:
    """The cells in each principle's reach; those of `ALL` first, of `UNTAGGED` last."""
    tags = {tag for tag, _ in counts} | {tag for one in constitution.principles for tag in one.applies_to}
    for tag in (ALL, *sorted(tags - {ALL, UNTAGGED}), *(tags & {UNTAGGED})):
        for principle in constitution.principles:
            count = counts.get((tag, principle.id))
            if count is None and not _reaches(principle, tag):
                continue
            yield _cell(tag, principle.id, count or _Counts(), labelled)


def _reaches(principle: Principle, tag: str) -> bool:
    return tag == ALL or not principle.applies_to or tag in principle.applies_to


def _cell(tag: str, principle: str, count: _Counts, labelled: bool) -> CoverageCell:
    known = labelled and (count.judged > 0 or not count.joint)
    return {
        "tag": tag,
        "principle": principle,
        "prompts": count.prompts,
        "judged": count.judged if known else None,
        "told_apart": count.told_apart if known else None,
        "decided": count.decided if known else None,
        "rejected_refusals": count.refusals if labelled else None,
    }
