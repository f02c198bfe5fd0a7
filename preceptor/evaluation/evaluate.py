"""A policy beside what it came from: as a judge compares them, as probes find them changed, or both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

from preceptor.asking import stages
from preceptor.constitution.principle import Constitution
from preceptor.evaluation import head_to_head
from preceptor.evaluation import probes as probe_stage
from preceptor.evaluation.head_to_head import HeadToHeadSettings
from preceptor.evaluation.probes import Sides
from preceptor.figures import EvaluationFigures, ProbedAndLost, ProbesAlone
from preceptor.judge.models.protocol import Dialogue
from preceptor.judge.records import Pair
from preceptor.prompts.records import Prompt
from preceptor.settings import Asking, ProbeSettings


class ComparisonJob(NamedTuple):
    """What is to be judged."""

    prompts: Sequence[Prompt]
    constitution: Constitution
    settings: HeadToHeadSettings
    gold: Sequence[Pair] = ()
    """By which the win rate is corrected."""


class ProbingJob(NamedTuple):
    """What is to be probed."""

    sides: Sides
    settings: ProbeSettings


def asks(
    comparison: ComparisonJob | None, probing: ProbingJob | None, asking: Asking
) -> Iterator[Dialogue[Any]]:
    """All that would be asked, for the plan."""
    if comparison is not None:
        settings = comparison.settings
        sides = (asking.open(settings.baseline), asking.open(settings.policy))
        judge = asking.open_judge(settings.judge)
        yield from head_to_head.asks(*comparison[:3], sides, judge)
        yield from stages.labelling(comparison.gold, comparison.constitution, judge, settings.label)
    if probing is not None:
        baseline, policy = (asking.open(name) for name in (probing.sides.baseline, probing.sides.policy))
        yield from probe_stage.asks((baseline, policy), *probing)


def evaluate(
    comparison: ComparisonJob | None, probing: ProbingJob | None, asking: Asking, bar: stages.OpenBar
) -> EvaluationFigures | ProbesAlone:
    """The comparison's figures, and the probes' under `probes`, under one cap. One of the two is wanted at least.

    Raises what stopped the asking; what had been asked is in the ledger.
    """
    left = asking
    compared: EvaluationFigures | None = None
    if comparison is not None:
        made = head_to_head.evaluate(*comparison[:3], asking, bar)
        compared = cast("EvaluationFigures", head_to_head.figures(made.rows))
        left = asking.less(made.cost_usd)
        if comparison.gold:
            rest = (comparison.constitution, comparison.settings, left, bar)
            labels, cost_usd = head_to_head.against_gold(comparison.gold, *rest)
            compared["corrected"] = head_to_head.corrected(made.rows, labels)
            left = left.less(cost_usd)
    if probing is None:
        assert compared is not None, "one of the two was asked for"
        return compared
    found = probe_stage.probe(*probing, left, bar)
    probes: ProbedAndLost = {**found.figures, "lost": found.lost}
    if compared is None:
        return {"probes": probes}
    compared["probes"] = probes
    return compared
