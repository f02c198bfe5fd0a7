"""An audit from what is asked to its figures: gold pairs, planted attacks, changed forms, pairs without gold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from preceptor.asking.stages import AskingResult, OpenBar
from preceptor.judge.audit.canaries import from_gold
from preceptor.judge.audit.perturb import require_perturbable
from preceptor.judge.figures import AuditFigures
from preceptor.judge.models.protocol import Dialogue
from preceptor.judge.records import Pair
from preceptor.judge.settings import Perturbation
from preceptor.label import certified
from preceptor.label.run import Gold, Job, audit_rows, calibrated, changed_job, dialogues_of, opened
from preceptor.settings import Asking


class AuditJob(NamedTuple):
    """Whose judgements are measured, and on what."""

    judges: Job
    gold: Sequence[Pair]
    others: Sequence[Pair] = ()
    """Pairs without gold."""
    planted: Sequence[Pair] = ()
    """Gold pairs with an attack in the worse reply."""
    perturb: Sequence[Perturbation] = ()
    """Changed forms in which the gold pairs are asked once more."""
    target: float | None = None
    """Agreement with gold that is to be certified; None: nothing is."""


class Audited(NamedTuple):
    """What an audit found."""

    figures: AuditFigures
    asked: AskingResult
    judges: Job
    """Those that were measured: of which something is certified, where that was wanted."""


def audit_job(
    judges: Job,
    gold: Sequence[Pair],
    others: Sequence[Pair] = (),
    perturb: Sequence[Perturbation] = (),
    target: float | None = None,
    *,
    attacks: bool = False,
) -> AuditJob:
    """What is to be asked. Raises UserError for a changed form in which these judges cannot be asked."""
    planted = list(from_gold(gold, judges.settings.seed)) if attacks else []
    if perturb:
        require_perturbable(perturb, judges.constitution, judges.settings, opened(judges))
    return AuditJob(judges, gold, others, planted, perturb, target)


def asks(audit: AuditJob) -> Iterator[Dialogue[Any]]:
    """All that would be asked, for the plan."""
    rows = [*audit.gold, *audit.others, *audit.planted]
    yield from dialogues_of(rows, audit.judges, opened(audit.judges))
    for kind in audit.perturb:
        changed = changed_job(audit.judges, kind)
        yield from dialogues_of(audit.gold, changed, opened(changed))


def audited(audit: AuditJob, asking: Asking, bar: OpenBar) -> Audited:
    """Ask and measure. What stopped the asking is handed back; before a certificate is found it is raised."""
    if audit.target is None:
        figures, asked = audit_rows(
            audit.gold, audit.judges, asking, bar, audit.planted, audit.perturb, audit.others
        )
        return Audited(figures, asked, audit.judges)
    found, paid = calibrated(Gold(audit.gold, audit.target), audit.judges, asking, bar)
    paid_usd = paid.progress.cost_usd
    figures, asked = audit_rows(
        audit.gold, found.job, asking.less(paid_usd), bar, audit.planted, audit.perturb, audit.others
    )
    figures["certified"] = certified.figures(found, audit.target)
    figures["cost_usd"] = paid_usd + asked.progress.cost_usd
    return Audited(figures, asked, found.job)
