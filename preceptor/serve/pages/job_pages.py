"""`/jobs` and `/files`: what runs, how it goes, and what came of it."""

from __future__ import annotations

import json
import secrets
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Form, Request, Response, UploadFile
from fastapi.responses import FileResponse, RedirectResponse
from pydantic import ValidationError

from preceptor.constitution.foreign import json_of
from preceptor.prompts.pool import shipped_pools
from preceptor.prompts.shown import CSP as REPORT_CSP
from preceptor.run.files import REPORT
from preceptor.serve.jobs import native
from preceptor.serve.jobs.commands import AskedJob, JobKind
from preceptor.serve.jobs.crew import Crew
from preceptor.serve.jobs.native import Jobs
from preceptor.serve.jobs.store import ENDED, JobRecord
from preceptor.serve.pages.curves import curves, stage_curves
from preceptor.serve.pages.label_sets import ENDING
from preceptor.serve.pages.rendering import HEADERS, show
from preceptor.serve.pages.route import PageRoute
from preceptor.serve.pages.session import Looking
from preceptor.serve.pages.streaming import DrawnPart, streamed
from preceptor.serve.problems import Problem
from preceptor.serve.service import Served

router = APIRouter(route_class=PageRoute, include_in_schema=False)
PAGE = 30
MOST_EVENTS = 200
"""Of a job's events, the latest that are shown."""


@router.get("/jobs")
def listed(
    request: Request,
    served: Served,
    crew: Jobs,
    looking: Looking,
    after: str | None = None,
    kind: JobKind = "label",
) -> Response:
    """The jobs, the latest first, and a form for another, of this kind to begin with."""
    owner = looking.owner
    last = None if after is None else native.found_job(crew, after, owner)
    rows = crew.store.jobs(owner, "job", PAGE + 1, last)
    return show(
        request,
        "jobs.html",
        jobs=rows[:PAGE],
        more=len(rows) > PAGE,
        files=crew.store.files(owner)[:200],
        kinds=get_args(JobKind),
        kind=kind,
        pools=sorted(shipped_pools()),
        models=served.desk.names,
        constitutions=list(served.rewards.constitutions),
        once=secrets.token_hex(16),
    )


@router.post("/jobs")
def create(
    request: Request,
    crew: Jobs,
    looking: Looking,
    kind: Annotated[str, Form()],
    once: Annotated[str, Form(max_length=64)],
    input: Annotated[str, Form()] = "",  # noqa: A002 - the name of the field
    model: Annotated[str, Form()] = "",
    judge: Annotated[str, Form()] = "",
    constitution: Annotated[str, Form()] = "",
    reward: Annotated[str, Form()] = "",
    labels: Annotated[str, Form()] = "",
    held_out: Annotated[str, Form()] = "",
    overrides: Annotated[str, Form()] = "",
    principle: Annotated[str, Form()] = "",
    settings: Annotated[str, Form()] = "",
    max_cost_usd: Annotated[str, Form()] = "",
    do: Annotated[str, Form()] = "plan",
) -> Response:
    """Say what a job would take, or start it."""
    given = {
        "input": input,
        "model": model,
        "judge": judge,
        "constitution": constitution,
        "reward": reward,
        "labels": labels,
        "held_out": held_out,
        "overrides": overrides,
        "principle": principle,
        "max_cost_usd": max_cost_usd,
    }
    body: dict[str, Any] = {"kind": kind, **{name: value for name, value in given.items() if value.strip()}}
    if settings.strip():
        try:
            body["settings"] = json_of(settings)
        except ValueError as error:
            raise Problem(422, "invalid_request", f"settings: no JSON ({error})") from None
    try:
        asked = AskedJob.model_validate(body)
    except ValidationError as error:
        faults = [
            {"pointer": "/" + "/".join(map(str, one["loc"])), "detail": one["msg"]}
            for one in error.errors(include_url=False)
        ]
        raise Problem(422, "invalid_request", "this is no job", errors=faults) from None
    if do != "start":
        planned = native.create(crew, looking.caller, asked, Response(), dry_run=True)
        return show(request, "plan.html", plan=planned["plan"], body=body, once=once)
    made = native.create(crew, looking.caller, asked, Response(), key=f"page {once}")
    return RedirectResponse(f"/jobs/{made['id']}", 303, HEADERS)


@router.get("/jobs/{name}")
def job(request: Request, crew: Jobs, looking: Looking, name: str) -> Response:
    """A job: how it stands, what it says, what it has made."""
    return show(request, "job.html", **_job(crew, looking.owner, name))


@router.get("/jobs/{name}/stream")
def stream(request: Request, crew: Jobs, looking: Looking, name: str) -> Response:
    """The part of its page that changes, whenever it does."""
    owner = looking.owner
    native.found_job(crew, name, owner)

    def draw() -> DrawnPart:
        values = _job(crew, owner, name)
        html = bytes(show(request, "job_live.html", **values).body).decode()
        return DrawnPart(html, values["ended"])

    return streamed(draw)


@router.post("/jobs/{name}/{wish}")
def wish(crew: Jobs, looking: Looking, name: str, wish: str) -> Response:
    """Have it wait, go on, or end."""
    does = {"cancel": native.cancel, "pause": native.pause, "resume": native.resume}
    if wish not in does:
        raise Problem(404, "not_found", "a job can be paused, resumed and cancelled")
    does[wish](crew, looking.caller, name)
    return RedirectResponse(f"/jobs/{name}", 303, HEADERS)


@router.get("/jobs/{name}/report")
def report(crew: Jobs, looking: Looking, name: str) -> Response:
    """The report of a run that a job carried out."""
    found = native.found_job(crew, name, looking.owner)
    return report_page(crew.store.data / "jobs" / found.id / found.work.out / REPORT)


def report_page(path: Any) -> Response:
    """A report as we wrote it, which loads and runs nothing. Raises Problem 404."""
    if not path.is_file():
        raise Problem(404, "not_found", "there is no report here yet")
    headers = {**HEADERS, "Content-Security-Policy": f"{REPORT_CSP}; frame-ancestors 'none'; sandbox"}
    return FileResponse(path, media_type="text/html; charset=utf-8", headers=headers)


@router.post("/files")
def upload(crew: Jobs, looking: Looking, file: UploadFile) -> Response:
    """Keep a file."""
    native.upload(crew, looking.caller, file, "user_data")
    return RedirectResponse("/jobs", 303, HEADERS)


@router.get("/files/{name}")
def content(crew: Jobs, looking: Looking, name: str) -> Response:
    """A file as a download."""
    file = native.found_file(crew, name, looking.owner)
    headers = {**HEADERS, "Content-Disposition": f'attachment; filename="{file.id}"'}
    return FileResponse(crew.store.path_of(file), media_type="application/octet-stream", headers=headers)


def _job(crew: Crew, owner: str | None, name: str) -> dict[str, Any]:
    found = native.found_job(crew, name, owner)
    events = crew.store.events(found.id)
    folder = crew.store.data / "jobs" / found.id / found.work.out if found.work.out else None
    return {
        "job": found,
        "ended": found.status in ENDED,
        "asked": json.dumps(found.request, indent=1, ensure_ascii=False),
        "events": events[-MOST_EVENTS:],
        "left_out": max(0, len(events) - MOST_EVENTS),
        "curves": curves(event.data for event in events if event.kind == "metrics"),
        "cost": crew.store.cost_of(found.id),
        "files": [(file, file.filename.endswith(ENDING)) for file in _results(crew, found)],
        "has_report": folder is not None and (folder / REPORT).is_file(),
        "drawn": stage_curves(folder) if found.kind == "run" and folder is not None else [],
    }


def _results(crew: Crew, job: JobRecord) -> list[Any]:
    return crew.store.files(None, job.id) if job.status in ENDED else []
