"""`/workbench`: coverage of prompts, and what is proposed for a constitution, as jobs have found it."""

from __future__ import annotations

from typing import cast

from fastapi import APIRouter, Request, Response

from preceptor.judge.dataset.coverage import CoverageFigures
from preceptor.serve.jobs import native
from preceptor.serve.jobs.native import Jobs
from preceptor.serve.pages.rendering import HEADERS, show
from preceptor.serve.pages.route import PageRoute
from preceptor.serve.pages.session import Looking
from preceptor.serve.problems import Problem
from preceptor.workbench.coverage_picture import picture

router = APIRouter(route_class=PageRoute, include_in_schema=False, prefix="/workbench")
KINDS = {
    "coverage": "tags by principles",
    "synthesize": "new prompts",
    "dedupe": "near-duplicates",
    "induce": "principles from preferences",
    "amend": "changes from what people said",
    "tune": "wordings of a principle",
    "test": "a constitution's examples",
    "ablate": "a principle left out",
    "replay": "labels under other weights",
}
"""Kinds of jobs, and what they find."""
LOOKED_AT = 500
"""The latest jobs, among which those of the workbench are looked for."""


@router.get("")
def listed(request: Request, crew: Jobs, looking: Looking) -> Response:
    """The jobs of the workbench, the latest first."""
    rows = [job for job in crew.store.jobs(looking.owner, "job", LOOKED_AT) if job.kind in KINDS]
    return show(request, "workbench.html", jobs=rows, kinds=KINDS)


@router.get("/{name}")
def found(request: Request, crew: Jobs, looking: Looking, name: str) -> Response:
    """What one of them has found."""
    job = native.found_job(crew, name, looking.owner)
    if job.kind not in KINDS:
        raise Problem(404, "not_found", "this is no job of the workbench")
    return show(request, "workbench_job.html", job=job, result=job.result, about=KINDS[job.kind])


@router.get("/{name}/coverage.svg")
def drawn(crew: Jobs, looking: Looking, name: str) -> Response:
    """Coverage as a picture."""
    job = native.found_job(crew, name, looking.owner)
    if job.kind != "coverage" or not job.result:
        raise Problem(404, "not_found", "there is no picture here")
    found = cast("CoverageFigures", job.result)
    return Response(picture(found), media_type="image/svg+xml", headers=HEADERS)
