"""`/runs`, `/judges` and `/bill`: what was taught, who judges, what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Request, Response

from preceptor.constitution.foreign import json_in
from preceptor.judge.ledger import queries
from preceptor.judge.ledger.location import reading
from preceptor.run.files import REPORT, SUMMARY
from preceptor.serve.auth import require
from preceptor.serve.jobs.crew import Crew
from preceptor.serve.jobs.native import READ, Jobs
from preceptor.serve.jobs.worker import rows_of
from preceptor.serve.pages.curves import curves
from preceptor.serve.pages.job_pages import report_page
from preceptor.serve.pages.rendering import show
from preceptor.serve.pages.route import PageRoute
from preceptor.serve.pages.session import Looking
from preceptor.serve.problems import Problem
from preceptor.serve.service import Served, Service

router = APIRouter(route_class=PageRoute, include_in_schema=False)
BillBy = Literal["model", "stage", "principle", "run", "day"]
AUDITED = ("accuracy", "flip_rate", "first_share", "longer_share", "kappa", "ece")


@router.get("/runs")
def runs(request: Request, served: Served, crew: Jobs, looking: Looking) -> Response:
    """The run folders of the configuration, and the jobs that are runs."""
    owner = looking.owner
    jobs = [job for job in crew.store.jobs(owner, "job", 200) if job.kind == "run"]
    names = {**dict.fromkeys(served.config.runs, ""), **{job.id: job.status for job in jobs}}
    rows = [
        {"name": name, "status": status, "summary": _summary(_folder(served, crew, owner, name))}
        for name, status in names.items()
    ]
    return show(request, "runs.html", runs=rows)


@router.get("/runs/{name}")
def run(request: Request, served: Served, crew: Jobs, looking: Looking, name: str) -> Response:
    """One of them: its figures and curves; its report has all."""
    folder = _folder(served, crew, looking.owner, name)
    summary = _summary(folder)
    drawn = [
        (path.stem, curves(rows_of(path)))
        for path in (sorted((folder / "metrics").glob("*.jsonl")) if (folder / "metrics").is_dir() else [])
    ]
    before, after = (summary.get(side) or {} for side in ("before", "after"))
    names = [one for one in after if one != "overall"] + (["overall"] if "overall" in after else [])
    return show(
        request,
        "run.html",
        name=name,
        summary=summary,
        rows=[{"name": one, "before": before.get(one), "after": after[one]} for one in names],
        drawn=[(stage, found) for stage, found in drawn if found],
        has_report=(folder / REPORT).is_file(),
    )


@router.get("/runs/{name}/report")
def report(served: Served, crew: Jobs, looking: Looking, name: str) -> Response:
    """Its report."""
    return report_page(_folder(served, crew, looking.owner, name) / REPORT)


@router.get("/judges")
def judges(request: Request, served: Served, crew: Jobs, looking: Looking) -> Response:
    """Who judges, what they were asked since the start, and what audits say of them."""
    audits = [
        {
            "id": job.id,
            "judge": job.request.get("judge"),
            "constitution": job.request.get("constitution"),
            "n": job.result.get("n"),
            "figures": [job.result.get(name) for name in AUDITED],
            "ci95": job.result.get("ci95"),
        }
        for job in crew.store.jobs(looking.owner, "job", 200)
        if job.kind == "audit" and job.result is not None
    ]
    models = [
        {"name": asked.model, "model": served.config.models[asked.model].model, "progress": asked.progress}
        for asked in served.desk.asked()
    ]
    return show(request, "judges.html", models=models, audits=audits, names=AUDITED)


@router.get("/bill")
def bill(request: Request, served: Served, looking: Looking, by: BillBy = "model") -> Response:
    """What every call in the database cost."""
    require(looking.caller, READ)
    with reading(served.config.database) as connection:
        lines = queries.bill_by_day(connection) if by == "day" else queries.bill(connection, (by,))
    return show(
        request,
        "bill.html",
        by=by,
        kinds=("model", "stage", "principle", "run", "day"),
        lines=lines,
        total=sum(line.cost_usd for line in lines),
        unpriced=sum(line.unpriced for line in lines),
        cap=served.config.limits.max_cost_usd,
    )


def _folder(served: Service, crew: Crew, owner: str | None, name: str) -> Path:
    """Raises Problem 404."""
    if (known := served.config.runs.get(name)) is not None:
        return known
    job = crew.store.job(name, owner)
    if job is None or job.kind != "run":
        raise Problem(404, "not_found", f"there is no run {name!r}")
    return crew.store.data / "jobs" / job.id / job.work.out


def _summary(folder: Path) -> dict[str, Any]:
    """Empty where the run has not come so far, or its summary cannot be read."""
    try:
        found = json_in(folder / SUMMARY)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
