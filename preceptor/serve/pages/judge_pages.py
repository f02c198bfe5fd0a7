"""`/judges`: who judges, what audits found, and how far executors of a constitution agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response

from preceptor.constitution.errors import UserError
from preceptor.judge.audit.drift import verdict
from preceptor.judge.dataset.label_folder import LabelFolder
from preceptor.serve.config import DriftEntry
from preceptor.serve.jobs.native import Jobs
from preceptor.serve.pages.executors import MOST_ROWS, executor_table
from preceptor.serve.pages.label_sets import Sets
from preceptor.serve.pages.rendering import show
from preceptor.serve.pages.route import PageRoute
from preceptor.serve.pages.session import Looking
from preceptor.serve.service import Served

router = APIRouter(route_class=PageRoute, include_in_schema=False, prefix="/judges")
AUDITED = ("accuracy", "flip_rate", "first_share", "longer_share", "kappa", "ece")
MOST_SETS = 30
"""Label sets that are compared, those of the configuration first, then the latest."""


@router.get("")
def judges(request: Request, served: Served, crew: Jobs, looking: Looking) -> Response:
    """Who judges, what they were asked since the start, and what audits say of them, the latest first."""
    audits = [
        {
            "id": job.id,
            "at": job.finished_at,
            "judge": job.request.get("judge"),
            "constitution": job.request.get("constitution"),
            "n": job.result.get("n"),
            "figures": [job.result.get(name) for name in AUDITED],
            "ci95": job.result.get("ci95"),
            "bins": _bins(job.result.get("reliability")),
            "attacks": _attacks(job.result.get("canaries")),
        }
        for job in crew.store.jobs(looking.owner, "job", 200)
        if job.kind == "audit" and job.result is not None
    ]
    models = [
        {"name": asked.model, "model": served.config.models[asked.model].model, "progress": asked.progress}
        for asked in served.desk.asked()
    ]
    drifted = _drifted(served.config.drift)
    return show(request, "judges.html", models=models, audits=audits, names=AUDITED, drifted=drifted)


@router.get("/executors")
def executors(request: Request, known: Sets) -> Response:
    """How often those agree who have labelled the same pairs, and the judges of panels. Nobody is asked."""
    sets = [known.found(name) for name, _ in known.all()[:MOST_SETS]]
    table = executor_table(sets)
    return show(request, "executors.html", table=table, most=MOST_ROWS, sets=len(sets))


def _drifted(entries: Mapping[str, DriftEntry]) -> list[dict[str, Any]]:
    """Of the labels whose judges are looked at by a timer: what the looks prove, by principle too, and each look."""
    found: list[dict[str, Any]] = []
    for name, entry in entries.items():
        try:
            looks = LabelFolder(entry.labels).read_drift()
        except (UserError, OSError) as error:
            found.append({"name": name, "trouble": str(error), "looks": [], "proven": None})
            continue
        found.append(
            {"name": name, "trouble": "", "looks": looks[::-1], "proven": verdict(looks) if looks else None}
        )
    return found


def _bins(found: Any) -> list[dict[str, Any]]:
    """What an audit has recorded of calibration; none where it has not, or not so."""
    rows = found if isinstance(found, list) else []
    names = ("low", "high", "n", "confidence", "right")
    return [row for row in rows if isinstance(row, dict) and all(name in row for name in names)]


def _attacks(found: Any) -> list[tuple[str, Any]]:
    """(attack, how often it won the judge over) of an audit that planted some."""
    rows = found if isinstance(found, dict) else {}
    return [(name, row.get("rate")) for name, row in rows.items() if isinstance(row, dict)]
