"""Judges held against gold before they label: which of their labels are kept, and to whom the others go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from preceptor.constitution.errors import UserError
from preceptor.judge.audit.certificate import Evidence, evidence, first_step
from preceptor.judge.audit.certify import LEVEL
from preceptor.judge.figures import CertifiedFigures, CertifiedStepFigures
from preceptor.judge.models.registry import declared
from preceptor.judge.records import CertifiedStep, Label, Pair, RefusedStep
from preceptor.judge.settings import CHECKS
from preceptor.judge.voting.cascade import JOINED
from preceptor.judge.voting.panel import DAWID_SKENE

if TYPE_CHECKING:
    from preceptor.label.run import Job

AskGold = Callable[[Sequence[Pair], "Job"], list[Label]]
"""Has the pairs labelled by a job, and gives their labels in their order."""


class Calibrated(NamedTuple):
    """What gold says of a job's judges."""

    job: Job
    """With the steps of which something can be certified, and thresholds as their conditions."""
    steps: tuple[CertifiedStep, ...]
    refused: tuple[RefusedStep, ...]


def require_certifiable(job: Job, given_when: bool) -> None:
    """Raises UserError for a job whose labels no certificate could be about."""
    if job.combine == DAWID_SKENE:
        raise UserError(
            "--certify and --combine dawid-skene: it looks at all rows together; take mean or majority"
        )
    if job.schedule is not None:
        raise UserError("--certify is about pairs, and --groups ranks; leave one of them out")
    if job.adaptive and job.settings.orders != "both":
        raise UserError(
            f"--adaptive saves second orders, and --orders {job.settings.orders} asks none; leave one of them out"
        )
    last = [list(names) for names, _ in job.panels][1:][-1:]
    if job.reference and last != [[job.reference]]:
        raise UserError(
            f"--reference {job.reference} is to judge last, by itself: give it as the last --escalate-to"
        )
    if given_when:
        raise UserError(
            "--certify finds from gold which pairs go on, and --when says it; leave one of them out"
        )


def calibrate(gold: Sequence[Pair], job: Job, target: float, ask: AskGold) -> Calibrated:
    """Hold each step's judges against the gold rows that the steps before do not keep.

    An adaptive job's judges are held by one order alone, too, and asked in no other where that keeps at least as many
    gold rows as both orders. Each way is tested at half of the level.

    Each of K steps is tested at a K-th of the level, so that all are true together. A step of whose labels none can be
    certified is left out: its judges would cost and keep nothing. Labels of people, and of the judge whose verdicts are
    the gold, stand as they are.
    """
    judges = [list(names) for names, _ in job.panels if not stands(names, job)]
    others = [list(names) for names, _ in job.panels if stands(names, job)]
    left = list(gold)
    steps: list[CertifiedStep] = []
    refused: list[RefusedStep] = []
    panels: list[tuple[list[str], str]] = []
    single: list[int] = []
    for names in judges:
        alone = job._replace(panels=[(names, "")], canaries=0.0, recheck=0.0)
        best: tuple[CertifiedStep, list[Evidence], bool] | None = None
        for by_one in (True, False) if job.adaptive else (False,):
            way = alone._replace(single=(0,) if by_one else ())
            found = evidence(ask(left, way)) if left else []
            made = first_step(JOINED.join(names), found, target, len(judges) * ways_of(job))
            if isinstance(made, CertifiedStep) and (best is None or made.n > best[0].n):
                best = made, found, by_one
        if best is None:
            assert isinstance(made, RefusedStep)
            refused.append(made)
            continue
        made, found, by_one = best
        if by_one:
            single.append(len(panels))
        panels.append((names, below(steps[-1].threshold) if steps else ""))
        steps.append(made)
        left = [pair for pair, row in zip(left, found, strict=True) if not row.confidence >= made.threshold]
    if steps:
        panels += [(names, below(steps[-1].threshold)) for names in others]
    thresholds = tuple(step.threshold for step in steps)
    ready = job._replace(panels=panels or job.panels, certified=thresholds, single=tuple(single))
    return Calibrated(ready, tuple(steps), tuple(refused))


def ways_of(job: Job) -> int:
    """How each step is asked before it is certified: an adaptive job tries one order and both."""
    return 2 if job.adaptive else 1


def stands(names: Sequence[str], job: Job) -> bool:
    """Whether the labels of this panel need no certificate: people's, and those of the judge who gave the gold."""
    return by_people(names) or list(names) == [job.reference]


def by_people(names: Sequence[str]) -> bool:
    """Whether a person has a say in this panel."""
    return any(name != CHECKS and declared(name).person for name in names)


def below(threshold: float) -> str:
    """The `when` of a step to which goes what the one before does not keep."""
    return f"confidence < {threshold!r}"


def figures(found: Calibrated, target: float) -> CertifiedFigures:
    """As `audit --json` gives them."""
    steps: list[CertifiedStepFigures] = []
    for number, step in enumerate(found.steps):
        made: CertifiedStepFigures = {
            "judge": step.judge,
            "threshold": step.threshold,
            "seen": step.seen,
            "n": step.n,
            "right": step.right,
            "low": step.low,
            "coverage": step.n / step.seen,
            "when": below(step.threshold),
        }
        if found.job.adaptive:
            made["one_order"] = number in found.job.single
        steps.append(made)
    return {
        "target": target,
        "level": LEVEL,
        "steps": steps,
        "refused": [
            {"judge": one.judge, "reason": one.reason, "needed": one.needed} for one in found.refused
        ],
    }


def require_steps(found: Calibrated, target: float) -> None:
    """Raises UserError where nothing can be certified, with every step's reason."""
    if not found.steps:
        reasons = "; ".join(f"{one.judge}: {one.reason}" for one in found.refused)
        raise UserError(f"nothing can be certified at {target:g}: {reasons}; no row was labelled")
