"""`/v1/batches`: OpenAI's batches of chat completions, answered by models on this machine, as jobs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from preceptor.serve.auth import Caller, require
from preceptor.serve.jobs.batch_run import ERRORS, OUT, OUTPUT, PLACE, PROGRESS, ROWS
from preceptor.serve.jobs.chat import place_of
from preceptor.serve.jobs.child import WORD
from preceptor.serve.jobs.crew import Crew
from preceptor.serve.jobs.native import (
    READ,
    WRITE,
    AskedBy,
    IdempotencyKey,
    Jobs,
    PageSize,
    created,
    found_file,
    found_job,
    owner_of,
    page_of_jobs,
)
from preceptor.serve.jobs.store import JobRecord, Work
from preceptor.serve.jobs.tuning_rows import lines_of
from preceptor.serve.problems import Problem, documented

router = APIRouter(tags=["batches"], responses=documented(402, 404, 409))
FAMILY, KIND = "batch", "batch"
ENDPOINT = "/v1/chat/completions"
MOST_ROWS = 50_000
MOST_FAULTS = 5
"""Faults of a file that are told."""
STATUSES = {"queued": "validating", "running": "in_progress", "succeeded": "completed"}
"""Of a job -> of a batch, where they differ."""


class AskedBatch(BaseModel):
    """The body of `POST /v1/batches`."""

    model_config = ConfigDict(extra="forbid")

    input_file_id: str = Field(max_length=64)
    endpoint: Literal["/v1/chat/completions"]
    completion_window: Literal["24h"]
    metadata: dict[str, str] | None = Field(default=None, max_length=16)


def told_batch(crew: Crew, job: JobRecord) -> dict[str, Any]:
    """A batch as OpenAI's API tells of one."""
    files = {file.filename: file.id for file in crew.store.files(None, job.id)}
    counts = _progress(crew.store.data / "jobs" / job.id / PROGRESS)
    ended = None if job.finished_at is None else int(job.finished_at)
    read, wrote = (counts.get(name, 0) for name in ("prompt_tokens", "completion_tokens"))
    return {
        "id": job.id,
        "object": "batch",
        "endpoint": ENDPOINT,
        "model": job.request.get("model"),
        "input_file_id": job.request["input_file_id"],
        "completion_window": "24h",
        "status": STATUSES.get(job.status, job.status),
        "errors": _errors(job),
        "output_file_id": files.get(OUTPUT),
        "error_file_id": files.get(ERRORS),
        "created_at": int(job.created_at),
        "in_progress_at": None if job.started_at is None else int(job.started_at),
        "completed_at": ended if job.status == "succeeded" else None,
        "failed_at": ended if job.status == "failed" else None,
        "cancelled_at": ended if job.status == "cancelled" else None,
        "request_counts": {name: counts.get(name, 0) for name in ("total", "completed", "failed")},
        "usage": {
            "input_tokens": read,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": wrote,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": read + wrote,
        },
        "metadata": job.request.get("metadata"),
    }


def _errors(job: JobRecord) -> dict[str, Any] | None:
    if job.problem is None:
        return None
    code, _, said = job.problem.partition(": ")
    data = []
    for fault in said.splitlines():
        place, _, words = fault.removeprefix("line ").partition(": ")
        line = int(place) if place.isdecimal() else None
        data.append({"code": code, "line": line, "message": fault if line is None else words, "param": None})
    return {"object": "list", "data": data}


def _progress(path: Path) -> Mapping[str, int]:
    if not path.is_file():
        return {}
    counts: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))
    return counts


@router.post("/v1/batches")
def create(crew: Jobs, asking: AskedBy, body: AskedBatch, key: IdempotencyKey = None) -> dict[str, Any]:
    """Have the rows of an uploaded file answered. A file that cannot be used makes a batch that has failed, as with
    OpenAI."""
    owner = owner_of(asking, WRITE)
    require(asking, "judge")
    file = found_file(crew, body.input_file_id, owner)
    if file.purpose != "batch":
        said = f"input_file_id: the file's purpose is {file.purpose!r}; wanted 'batch'"
        raise Problem(400, "invalid_purpose", said)
    request = body.model_dump(mode="json", exclude_none=True)
    with created(crew, asking, key, request) as creation:
        made = creation.made
        if made is None:
            faults = _Faults(crew, asking)
            told = "\n".join(faults.of(crew.store.path_of(file)))
            work = Work((WORD,), {ROWS: file.id}, {PLACE: faults.place}, OUT)
            problem = f"invalid_input_file: {told}" if told else None
            made = creation.make(FAMILY, KIND, {**request, "model": faults.model}, work, "batch_", problem)
    return told_batch(crew, made)


class _Faults:
    """Looks a file of rows through, and finds which model they all name."""

    def __init__(self, crew: Crew, asking: Caller) -> None:
        self._crew, self._asking = crew, asking
        self._ids: set[str] = set()
        self.model: str | None = None
        self.place = ""
        """`provider/model` of the model."""

    def of(self, path: Path) -> Iterator[str]:
        """What is wrong with the file, with lines; the first few."""
        rows = told = 0
        for number, row in lines_of(path):
            rows += 1
            fault = row if isinstance(row, str) else self._fault(row)
            if rows > MOST_ROWS:
                yield f"the file has more than {MOST_ROWS} rows"
                return
            if fault is not None:
                told += 1
                yield f"line {number}: {fault}"
                if told == MOST_FAULTS:
                    return
        if not rows:
            yield "the file has no rows"

    def _fault(self, row: Mapping[str, Any]) -> str | None:
        name, body = row.get("custom_id"), row.get("body")
        if not isinstance(name, str) or not name:
            return "custom_id: missing; wanted a text that no other row has"
        if name in self._ids:
            return f"custom_id: {name!r:.80} a second time"
        self._ids.add(name)
        if row.get("method") != "POST" or row.get("url") != ENDPOINT:
            return f"method and url: wanted POST and {ENDPOINT}"
        model = body.get("model") if isinstance(body, dict) else None
        if not isinstance(model, str):
            return "body.model: missing; wanted the name of a model here"
        if self.model is None:
            try:
                self.place = place_of(self._crew, self._asking, model)
            except Problem as problem:
                return f"body.model: {problem.message}"
            self.model = model
        return (
            None if model == self.model else f"body.model: {model!r:.80}; the rows before name {self.model!r}"
        )


@router.get("/v1/batches")
def batches(crew: Jobs, asking: AskedBy, after: str | None = None, limit: PageSize = 20) -> dict[str, Any]:
    """The batches, the latest first."""
    return page_of_jobs(crew, asking, FAMILY, after, limit, told_batch)


@router.get("/v1/batches/{name}")
def batch_of(crew: Jobs, asking: AskedBy, name: str) -> dict[str, Any]:
    """How a batch stands."""
    return told_batch(crew, found_job(crew, name, owner_of(asking, READ), FAMILY))


@router.post("/v1/batches/{name}/cancel")
def cancel(crew: Jobs, asking: AskedBy, name: str) -> dict[str, Any]:
    """Have a batch end; what is answered by then is in its files."""
    crew.store.cancel(found_job(crew, name, owner_of(asking, WRITE), FAMILY).id)
    return batch_of(crew, asking, name)
