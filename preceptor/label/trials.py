"""A constitution put to the test: its own examples judged, and its principles left out one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

from preceptor.asking import stages
from preceptor.asking.stages import OpenBar
from preceptor.asking.work import run_job_or_raise
from preceptor.constitution.principle import Constitution, Principle
from preceptor.judge.aggregate import order_means, sum_up, weights, winner
from preceptor.judge.audit.canaries import pair_of_example
from preceptor.judge.compare import check
from preceptor.judge.dataset.clashes import ClashFigures, clashes
from preceptor.judge.groupings import GROUPINGS
from preceptor.judge.models.protocol import Dialogue, Model
from preceptor.judge.records import Label, Letter, Pair
from preceptor.judge.settings import LabelSettings
from preceptor.settings import CHECKS, Asking

Came = Literal["passed", "failed", "flipped", "no verdict"]


class Case(NamedTuple):
    """One worked example of one principle, as a test of whoever judges by it."""

    principle: Principle
    number: int
    """Of the example in its principle, from 1."""
    pair: Pair


class TrialResult(NamedTuple):
    """What came of a case."""

    principle: str
    number: int
    came: Came
    reason: str
    """The judge's words where it failed."""


def cases(constitution: Constitution) -> list[Case]:
    """Every example, in the order of the file."""
    return [
        Case(principle, number, pair_of_example(principle, number))
        for principle in constitution.principles
        for number in range(1, len(principle.examples) + 1)
    ]


def trying(
    constitution: Constitution, judge: Model | None, settings: LabelSettings
) -> Iterator[Dialogue[Label]]:
    """One dialogue a case, each judged by its own principle alone, whatever tags that is limited to."""
    for case in cases(constitution):
        alone = constitution.model_copy(
            update={"principles": (case.principle.model_copy(update={"applies_to": ()}),)}
        )
        # a judge has no say about a principle that carries a check; and without one, none about the others
        asked = None if case.principle.check else judge
        if asked is None and not case.principle.check:
            continue
        yield from stages.labelling([case.pair], alone, asked, settings)


def try_examples(
    dialogues: Sequence[Dialogue[Label]], judge: Model | None, asking: Asking, bar: OpenBar
) -> tuple[list[Label], float]:
    """The labels of the examples, and USD. Raises what stopped the asking."""
    labels: list[Label] = []
    with bar("test") as watch:
        asked = asyncio.run(stages.run_dialogues(dialogues, [judge], asking, labels.append, watch))
    if asked.stopped is not None:
        raise asked.stopped
    return labels, asked.progress.cost_usd


def results(constitution: Constitution, labels: Sequence[Label]) -> list[TrialResult]:
    """Which examples were judged as the constitution says; those without a label had nobody to judge them."""
    by_pair = {label.id: label for label in labels}
    return [_result(case, by_pair.get(case.pair.id)) for case in cases(constitution)]


def _result(case: Case, label: Label | None) -> TrialResult:
    def result(came: Came, reason: str = "") -> TrialResult:
        return TrialResult(case.principle.id, case.number, came, reason)

    if label is None:
        return result("no verdict", "no machine check, and no judge that reads")
    reason = " | ".join(dict.fromkeys(one.reason for one in label.judgements if one.reason))
    means = order_means(label.judgements, weights((case.principle,)))
    winners = {winner(mean) for mean in means.values()}
    if {"a", "b"} <= winners:
        return result("flipped", reason)
    if label.probability is None:
        return result("no verdict", reason)
    return result("passed") if winner(label.probability) == case.pair.preferred else result("failed", reason)


class ExampleClash(NamedTuple):
    """An example of one principle whose worse reply another principle's machine check prefers."""

    principle: str
    number: int
    """Of the example in its principle, from 1."""
    other: str


def example_clashes(constitution: Constitution) -> list[ExampleClash]:
    """All of them, among principles that can meet on one prompt; nobody is asked."""
    return [
        ExampleClash(case.principle.id, case.number, other.id)
        for case in cases(constitution)
        for other in constitution.principles
        if other.id != case.principle.id
        and other.check
        and other.applies(case.principle.applies_to)
        and check(case.pair, other).letter not in (case.pair.preferred, "tie", None)
    ]


class Ablation(NamedTuple):
    """What leaving one principle out does to the labels of some pairs."""

    principle: str
    flipped: tuple[str, ...]
    """Ids of labels that have another winner without it."""
    undecided: tuple[str, ...]
    """Ids of labels that have a winner only with it."""
    decided: tuple[str, ...]
    """Ids of labels that have a winner only without it."""
    accuracy: float | None
    """Share of pairs with gold whose label is right without it; None where there is no gold."""
    change: float | None
    """That share less the one with all principles."""


def ablated(
    constitution: Constitution, labels: Sequence[Label], again: Callable[[str, Label], Label | None]
) -> list[Ablation]:
    """One row a principle. again: (principle, label) -> the label without it; None where nothing else applies."""
    base = accuracy(labels)
    rows = []
    for principle in constitution.principles:
        left = {label.id: _winner(again(principle.id, label)) for label in labels}
        had = {label.id: _winner(label) for label in labels}
        share = _accuracy(left, labels)
        rows.append(
            Ablation(
                principle.id,
                tuple(i for i, one in had.items() if one and left[i] and left[i] != one),
                tuple(i for i, one in had.items() if one and not left[i]),
                tuple(i for i, one in had.items() if not one and left[i]),
                share,
                None if share is None or base is None else share - base,
            )
        )
    return rows


def can_judge(constitution: Constitution, principle: str, judge: str) -> bool:
    """Whether anything can be judged without one principle: another is left, and for `checks` another check."""
    left = [one for one in constitution.principles if one.id != principle]
    return any(one.check for one in left) if judge == CHECKS else bool(left)


def accuracy(labels: Sequence[Label]) -> float | None:
    """Share of the pairs with gold whose label names it; None where there is no gold."""
    return _accuracy({label.id: _winner(label) for label in labels}, labels)


class AblationRun(NamedTuple):
    """All of an ablation."""

    rows: list[Ablation]
    clashes: list[ClashFigures]
    """Of principles that were judged each by itself; none where a judge weighed them together."""
    accuracy: float | None
    """With all principles; None where there is no gold."""
    spent: dict[str, dict[str, float]]
    """`calls`, `in_ledger` and `cost_usd` of each constitution that was asked about, by the principle that it lacks;
    of the whole one under the empty name."""

    @property
    def total(self) -> dict[str, float]:
        """The same of all together."""
        return {
            name: sum(one[name] for one in self.spent.values()) for name in ("calls", "in_ledger", "cost_usd")
        }


def ablated_constitutions(
    constitution: Constitution, judge: str, settings: LabelSettings
) -> dict[str, Constitution]:
    """What pairs are labelled by, under the principle that each lacks: first the whole one, under the empty name.

    Judged each by itself, a label without a principle is the sum of the others; else every label is a new ask.
    """
    if GROUPINGS[settings.principles].resums:
        return {"": constitution}
    left_out = [one.id for one in constitution.principles if can_judge(constitution, one.id, judge)]
    return {"": constitution, **{principle: constitution.without((principle,)) for principle in left_out}}


def ablate_labels(
    constitution: Constitution,
    pairs: Sequence[Pair],
    judge: str,
    settings: LabelSettings,
    asking: Asking,
    bar: OpenBar,
) -> AblationRun:
    """Label the pairs by the constitution, and again less each principle where that takes new asks; then compare.

    What stops the asking is raised: what was asked by then is in the ledger.
    """
    labels: dict[str, list[Label]] = {}
    spent: dict[str, dict[str, float]] = {}
    for principle, rules in ablated_constitutions(constitution, judge, settings).items():
        made = labels.setdefault(principle, [])
        work = stages.AskJob(pairs, partial(stages.to_label, judge, asking, rules, settings))
        left = asking.less(sum(one["cost_usd"] for one in spent.values()))
        with bar(principle or "label") as watch:
            now = run_job_or_raise(work, left, made.append, watch).progress
        spent[principle] = {"calls": now.asked, "in_ledger": now.from_ledger, "cost_usd": now.cost_usd}
    by_id = {(principle, label.id): label for principle, made in labels.items() for label in made}
    sums = GROUPINGS[settings.principles].resums
    again = resummed(constitution) if sums else lambda principle, label: by_id.get((principle, label.id))
    rows = ablated(constitution, labels[""], again)
    return AblationRun(rows, clashes(labels[""]), accuracy(labels[""]), spent)


def resummed(constitution: Constitution) -> Callable[[str, Label], Label | None]:
    """`again` for labels made principle by principle: their judgements summed up anew, and nobody asked."""

    def again(principle: str, label: Label) -> Label | None:
        kept = [one for one in label.judgements if one.principle != principle]
        if not kept:
            return None
        added = sum_up(kept, weights(constitution.for_prompt(label.prompt.tags)))
        return label.model_copy(update={"status": added.status, "probability": added.probability})

    return again


def _winner(label: Label | None) -> Letter | None:
    """a or b; None for a label that names neither."""
    if label is None or label.status != "ok" or label.probability is None:
        return None
    return winner(label.probability)


def _accuracy(winners: dict[str, Letter | None], labels: Sequence[Label]) -> float | None:
    gold = [label for label in labels if label.preferred in ("a", "b")]
    if not gold:
        return None
    return sum(winners[label.id] == label.preferred for label in gold) / len(gold)


def summary(found: Sequence[TrialResult]) -> dict[str, Any]:
    """Counts by what came, and the rows."""
    counts = {
        came: sum(one.came == came for one in found) for came in ("passed", "failed", "flipped", "no verdict")
    }
    return {"cases": len(found), **counts, "results": [one._asdict() for one in found]}
