"""`/v1/files` and `/v1/jobs`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, File, Form, Header, Query, Request, Response, UploadFile
from fastapi.responses import FileResponse, StreamingResponse

from preceptor.judge.asking.budget import left_usd
from preceptor.serve.auth import Caller, caller, require
from preceptor.serve.desk import spent
from preceptor.serve.jobs import worker
from preceptor.serve.jobs.commands import UNPLANNED, AskedJob, work_of
from preceptor.serve.jobs.crew import Crew
from preceptor.serve.jobs.store import (
    ENDED,
    BodyChanged,
    Creation,
    CreationRuns,
    JobEvent,
    JobRecord,
    JobStore,
    StoredFile,
    WrongStatus,
)
from preceptor.serve.problems import Problem, documented

router = APIRouter(tags=["jobs"], responses=documented(402, 404, 409))
CHUNK = 2**20
LOOK_S = 0.25
"""How often a stream of events looks for new ones."""
HEARTBEAT_S = 15.0
"""How often it says that it lives where there are none."""
PURPOSES = ("fine-tune", "batch", "user_data", "evals", "assistants", "vision")
UNPAID = frozenset({"sft", "dpo", "reward", "export", "dedupe", "coverage", "replay"})
"""Kinds of jobs that ask no model."""
TRAINING = frozenset({"sft", "dpo", "reward", "ppo", "grpo", "run"})
"""Kinds that the scope `train` is for."""
READ, WRITE = "jobs:read", "jobs:write"
RowT = TypeVar("RowT", StoredFile, JobRecord, JobEvent)


def crew_of(request: Request) -> Crew:
    """The jobs of this server, under the configuration that holds now."""
    crew: Crew = request.app.state.crew
    crew.config = request.app.state.service.config
    return crew


Jobs = Annotated[Crew, Depends(crew_of)]
AskedBy = Annotated[Caller, Depends(caller)]
PageSize = Annotated[int, Query(ge=1, le=100)]
IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key", max_length=255)]


def owner_of(asking: Caller, scope: str) -> str | None:
    """Whose files and jobs a key may see: its own; None: everybody's. Raises Problem 403."""
    return None if require(asking, scope).may("admin") else asking.key


def page_of(rows: Sequence[RowT], limit: int, told: Callable[[RowT], dict[str, Any]]) -> dict[str, Any]:
    """A page of a list, of which one more than `limit` was looked for."""
    data = [told(row) for row in rows[:limit]]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
    return {"object": "list", "data": data, "has_more": len(rows) > limit, **ends}


# Files


def told_file(file: StoredFile) -> dict[str, Any]:
    """A file as OpenAI's API tells of one."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": int(file.created_at),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
    }


def found_file(crew: Crew, name: str, owner: str | None) -> StoredFile:
    """The file. Raises Problem 404."""
    file = crew.store.file(name, owner)
    if file is None:
        raise Problem(404, "not_found", f"there is no file {name!r}")
    return file


@router.post("/v1/files")
def upload(
    crew: Jobs,
    asking: AskedBy,
    file: Annotated[UploadFile, File()],
    purpose: Annotated[str, Form(max_length=40)],
) -> dict[str, Any]:
    """Keep a file; its name is kept for people alone, and is no path."""
    owner_of(asking, WRITE)
    if purpose not in PURPOSES:
        raise Problem(400, "invalid_purpose", f"purpose is {purpose!r}; wanted one of {', '.join(PURPOSES)}")
    chunks = iter(lambda: file.file.read(CHUNK), b"")
    return told_file(crew.store.add_file(asking.key, purpose, (file.filename or "upload")[:255], chunks))


@router.get("/v1/files")
def files(
    crew: Jobs, asking: AskedBy, purpose: str | None = None, after: str | None = None, limit: int = 10_000
) -> dict[str, Any]:
    """The files, the latest first."""
    rows = [row for row in crew.store.files(owner_of(asking, READ)) if purpose in (None, row.purpose)]
    if after is not None:
        names = [row.id for row in rows]
        rows = rows[names.index(after) + 1 :] if after in names else []
    limit = max(1, min(limit, 10_000))
    return page_of(rows[: limit + 1], limit, told_file)


@router.get("/v1/files/{name}")
def file_of(crew: Jobs, asking: AskedBy, name: str) -> dict[str, Any]:
    """What is known of a file."""
    return told_file(found_file(crew, name, owner_of(asking, READ)))


@router.get("/v1/files/{name}/content")
def content(crew: Jobs, asking: AskedBy, name: str) -> FileResponse:
    """Its bytes."""
    file = found_file(crew, name, owner_of(asking, READ))
    return FileResponse(crew.store.path_of(file), media_type="application/octet-stream")


@router.delete("/v1/files/{name}")
def delete(crew: Jobs, asking: AskedBy, name: str) -> dict[str, Any]:
    """Forget a file. 409 while a job that has not ended reads it."""
    file = found_file(crew, name, owner_of(asking, WRITE))
    try:
        crew.store.delete_file(file)
    except WrongStatus as error:
        raise Problem(409, "in_use", str(error)) from None
    return {"id": file.id, "object": "file", "deleted": True}


# Jobs


def told_job(crew: Crew, job: JobRecord) -> dict[str, Any]:
    """A job as its client sees it."""
    here = f"/v1/jobs/{job.id}"
    code, _, said = (job.problem or "").partition(": ")
    return {
        "id": job.id,
        "object": "job",
        "kind": job.kind,
        "status": job.status,
        "created_at": int(job.created_at),
        "started_at": None if job.started_at is None else int(job.started_at),
        "finished_at": None if job.finished_at is None else int(job.finished_at),
        "request": job.request,
        "metadata": job.request.get("metadata", {}),
        "error": None if job.problem is None else {"code": code, "message": said},
        "result": job.result,
        "result_files": [
            told_file(file) for file in (crew.store.files(None, job.id) if job.status in ENDED else ())
        ],
        "links": {
            "self": here,
            "events": f"{here}/events",
            **{name: f"{here}/{name}" for name in ("cancel", "pause", "resume")},
        },
    }


def found_job(crew: Crew, name: str, owner: str | None, family: str = "job") -> JobRecord:
    """The job. Raises Problem 404."""
    job = crew.store.job(name, owner)
    if job is None or job.family != family:
        raise Problem(404, "not_found", f"there is no job {name!r}")
    return job


def capped(crew: Crew, asked: AskedJob, asking: Caller) -> AskedJob:
    """The job under what its key and the server may still spend. Raises Problem 402 where it asks for more."""
    if asked.kind in UNPAID:
        return asked
    key = left_usd(asking.budget_usd, asking.spent_usd)
    cap = crew.config.limits.max_cost_usd
    everybody = None if cap is None else left_usd(cap, spent(crew.config.database))
    for left, whose in ((key, "this key"), (everybody, "this server")):
        if left is not None and (asked.max_cost_usd or 0.0) > left:
            said = f"{whose} may still spend {left:.4f} USD; name no more as max_cost_usd"
            raise Problem(402, "budget_exceeded", said, "insufficient_quota")
    caps = [usd for usd in (key, everybody, asked.max_cost_usd) if usd is not None]
    return asked.model_copy(update={"max_cost_usd": min(caps)}) if caps else asked


@contextmanager
def created(crew: Crew, asking: Caller, key: str | None, body: Any) -> Iterator[Creation]:
    """Create a job within the block, at most once for an idempotency key, and see that a worker comes to it.

    Raises Problem 422 and 409 where the key came before.
    """
    try:
        with crew.store.creation(asking.key, key, body) as creation:
            yield creation
    except BodyChanged as error:
        raise Problem(422, "idempotency_key_reused", str(error)) from None
    except CreationRuns as error:
        raise Problem(409, "idempotency_key_in_use", str(error), headers={"Retry-After": "1"}) from None
    crew.wake()


def page_of_jobs(
    crew: Crew,
    asking: Caller,
    family: str,
    after: str | None,
    limit: int,
    told: Callable[[Crew, JobRecord], dict[str, Any]],
) -> dict[str, Any]:
    """A page of a family's jobs, the latest first. Raises Problem."""
    owner = owner_of(asking, READ)
    last = None if after is None else found_job(crew, after, owner, family)
    return page_of(crew.store.jobs(owner, family, limit + 1, last), limit, partial(told, crew))


@router.post("/v1/jobs", status_code=202)
def create(
    crew: Jobs,
    asking: AskedBy,
    body: AskedJob,
    response: Response,
    dry_run: bool = False,
    key: IdempotencyKey = None,
) -> dict[str, Any]:
    """Have a command carried out. `dry_run`: say what it would take, by its own `--plan`, and do nothing."""
    owner = owner_of(asking, WRITE)
    if body.kind in TRAINING:
        owner_of(asking, "train")
    asked = capped(crew, body, asking)
    request = asked.model_dump(mode="json", exclude_defaults=True)
    if dry_run:
        response.status_code = 200
        return _plan(crew, asked, owner)
    with created(crew, asking, key, body.model_dump(mode="json")) as creation:
        made = creation.made or creation.make(
            "job", asked.kind, request, work_of(asked, crew.config, crew.store, owner), "job-"
        )
    response.headers["Location"] = f"/v1/jobs/{made.id}"
    return told_job(crew, made)


def _plan(crew: Crew, asked: AskedJob, owner: str | None) -> dict[str, Any]:
    if asked.kind in UNPLANNED:
        raise Problem(422, "no_plan", f"a job of kind {asked.kind} takes nothing that a plan could tell")
    planned = worker.plan(crew.store, work_of(asked, crew.config, crew.store, owner))
    if planned.code == 2:
        raise Problem(422, "invalid_request", planned.problem)
    if planned.plan is None:
        raise Problem(
            503, "plan_failed", planned.problem or f"the plan ended with {planned.code}", "server_error"
        )
    return {"object": "job.plan", "kind": asked.kind, "plan": planned.plan}


@router.get("/v1/jobs")
def jobs(crew: Jobs, asking: AskedBy, after: str | None = None, limit: PageSize = 20) -> dict[str, Any]:
    """The jobs, the latest first."""
    return page_of_jobs(crew, asking, "job", after, limit, told_job)


@router.get("/v1/jobs/{name}")
def job_of(crew: Jobs, asking: AskedBy, name: str) -> dict[str, Any]:
    """How a job stands."""
    return told_job(crew, found_job(crew, name, owner_of(asking, READ)))


@router.post("/v1/jobs/{name}/cancel")
def cancel(crew: Jobs, asking: AskedBy, name: str) -> dict[str, Any]:
    """Have a job end; what is in flight is finished first. One that has ended stays as it is."""
    crew.store.cancel(found_job(crew, name, owner_of(asking, WRITE)).id)
    return job_of(crew, asking, name)


@router.post("/v1/jobs/{name}/pause")
def pause(crew: Jobs, asking: AskedBy, name: str) -> dict[str, Any]:
    """Have a job wait until it is resumed."""
    changed(crew.store.pause, found_job(crew, name, owner_of(asking, WRITE)))
    return job_of(crew, asking, name)


@router.post("/v1/jobs/{name}/resume")
def resume(crew: Jobs, asking: AskedBy, name: str) -> dict[str, Any]:
    """Have a job go on that was paused or has failed."""
    changed(crew.store.resume, found_job(crew, name, owner_of(asking, WRITE)))
    crew.wake()
    return job_of(crew, asking, name)


def changed(do: Callable[[str], None], job: JobRecord) -> None:
    """Do it. Raises Problem 409 where the job's status does not allow it."""
    try:
        do(job.id)
    except WrongStatus as error:
        raise Problem(409, "wrong_status", str(error)) from None


def told_event(event: JobEvent) -> dict[str, Any]:
    """An event as its client sees it."""
    return {
        "id": str(event.number),
        "object": "job.event",
        "created_at": int(event.at),
        "level": event.level,
        "type": event.kind,
        "message": event.message,
        "data": event.data,
    }


@router.get("/v1/jobs/{name}/events", response_model=None)
def events(
    crew: Jobs,
    asking: AskedBy,
    name: str,
    after: Annotated[int, Query(ge=0)] = 0,
    limit: PageSize = 100,
    accept: Annotated[str, Header()] = "",
    last_event_id: Annotated[str, Header()] = "",
) -> dict[str, Any] | StreamingResponse:
    """What has happened to a job: a page of it, or with `Accept: text/event-stream` all of it as it happens.

    The stream goes on after `Last-Event-ID`, and ends with the job.
    """
    job = found_job(crew, name, owner_of(asking, READ))
    if "text/event-stream" not in accept:
        return page_of(crew.store.events(job.id, after, limit + 1), limit, told_event)
    start = int(last_event_id) if last_event_id.isdecimal() else after
    return StreamingResponse(_stream(crew.store, job.id, start), media_type="text/event-stream")


async def _stream(store: JobStore, name: str, after: int) -> AsyncIterator[str]:
    quiet_s = 0.0
    yield "retry: 1000\n\n"
    while True:
        # the status first: what is told after the end is there when the end is seen
        job = await asyncio.to_thread(store.job, name)
        for event in await asyncio.to_thread(store.events, name, after):
            after, quiet_s = event.number, 0.0
            yield _sent(event.number, event.kind, told_event(event))
        if job is None or job.status in (*ENDED, "paused"):
            yield _sent(after, "end", {"status": job.status if job else "deleted"})
            return
        await asyncio.sleep(LOOK_S)
        quiet_s += LOOK_S
        if quiet_s >= HEARTBEAT_S:
            quiet_s = 0.0
            yield ": still here\n\n"


def _sent(number: int, kind: str, data: Mapping[str, Any]) -> str:
    return f"id: {number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n"
