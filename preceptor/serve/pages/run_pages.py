"""`/runs` and `/bill`: what was taught, and what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from preceptor.constitution.foreign import json_in
from preceptor.judge.ledger import queries
from preceptor.judge.ledger.location import reading
from preceptor.run.files import REPORT, SUMMARY
from preceptor.serve.auth import require
from preceptor.serve.jobs.crew import Crew
from preceptor.serve.jobs.native import READ, Jobs
from preceptor.serve.jobs.store import ENDED
from preceptor.serve.pages.curves import stage_curves
from preceptor.serve.pages.differences import marked
from preceptor.serve.pages.job_pages import report_page
from preceptor.serve.pages.rendering import HEADERS, show
from preceptor.serve.pages.route import PageRoute
from preceptor.serve.pages.session import Looking
from preceptor.serve.pages.streaming import DrawnPart, streamed
from preceptor.serve.pages.two_runs import JUDGE, compared
from preceptor.serve.problems import Problem
from preceptor.serve.service import Served, Service

router = APIRouter(route_class=PageRoute, include_in_schema=False)
MOST_SAMPLES = 50
"""Replies that changed between two runs, as a page shows them."""
MOST_JOBS = 200
"""Jobs that are looked at for what the ledger answered, the latest first."""
BillBy = Literal["model", "stage", "principle", "run", "day"]


@router.get("/runs")
def runs(
    request: Request, served: Served, crew: Jobs, looking: Looking, one: str = "", other: str = ""
) -> Response:
    """The run folders of the configuration, and the jobs that are runs; or two of them beside each other."""
    if one and other:
        return RedirectResponse(f"/runs/{quote(one, safe='')}/beside/{quote(other, safe='')}", 303, HEADERS)
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
    return show(request, "run.html", **_run(served, crew, looking.owner, name))


@router.get("/runs/{name}/stream")
def stream(request: Request, served: Served, crew: Jobs, looking: Looking, name: str) -> Response:
    """The part of its page that changes, whenever it does."""
    owner = looking.owner
    _folder(served, crew, owner, name)

    def draw() -> DrawnPart:
        values = _run(served, crew, owner, name)
        return DrawnPart(bytes(show(request, "run_live.html", **values).body).decode(), values["ended"])

    return streamed(draw)


def _run(served: Service, crew: Crew, owner: str | None, name: str) -> dict[str, Any]:
    folder = _folder(served, crew, owner, name)
    job = None if name in served.config.runs else crew.store.job(name, owner)
    summary = _summary(folder)
    before, after = (summary.get(side) or {} for side in ("before", "after"))
    names = [one for one in after if one != "overall"] + (["overall"] if "overall" in after else [])
    return {
        "name": name,
        "job": job,
        "ended": job is None or job.status in ENDED,
        "summary": summary,
        "rows": [{"name": one, "before": before.get(one), "after": after[one]} for one in names],
        "drawn": stage_curves(folder),
        "has_report": (folder / REPORT).is_file(),
    }


@router.get("/runs/{name}/beside/{other}")
def beside(request: Request, served: Served, crew: Jobs, looking: Looking, name: str, other: str) -> Response:
    """Two runs: which settings differ, a paired test on the held-out prompts, and the replies that changed."""
    folders = [_folder(served, crew, looking.owner, one) for one in (name, other)]
    found = compared(*folders)
    samples = [
        {"one": one, "other": another, "turned": turned, "parts": marked(one.after, another.after)}
        for one, another, turned in found.changed[:MOST_SAMPLES]
    ]
    return show(request, "beside.html", name=name, other=other, found=found, samples=samples, judge=JUDGE)


@router.get("/runs/{name}/report")
def report(served: Served, crew: Jobs, looking: Looking, name: str) -> Response:
    """Its report."""
    return report_page(_folder(served, crew, looking.owner, name) / REPORT)


@router.get("/bill")
def bill(request: Request, served: Served, crew: Jobs, looking: Looking, by: BillBy = "model") -> Response:
    """What every call in the database cost, and what the ledger answered for nothing."""
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
        spared=_spared(crew, looking.owner),
        most=MOST_JOBS,
    )


def _spared(crew: Crew, owner: str | None) -> list[dict[str, Any]]:
    """Of the latest jobs those that the ledger answered something: how much, and what that would have cost at the mean
    price of the calls that the job did ask; None where it asked none that was paid for."""
    found = []
    for job in crew.store.jobs(owner, "job", MOST_JOBS):
        match (job.result or {}).get("calls"):
            case {"asked": int(asked), "from_ledger": int(known), "cost_usd": int() | float() as cost} if (
                known
            ):
                saved = cost / asked * known if asked and cost else None
                found.append({"job": job, "asked": asked, "from_ledger": known, "usd": saved})
    return found


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
