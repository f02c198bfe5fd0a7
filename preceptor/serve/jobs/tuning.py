"""`/v1/fine_tuning/jobs`: OpenAI's tuning API over jobs of kind sft, dpo and grpo, so that its SDK works unchanged."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, model_validator

from preceptor.constitution.principle import Constitution
from preceptor.serve.auth import require
from preceptor.serve.jobs.commands import MODEL_FOLDER, AskedJob, JobKind, work_of
from preceptor.serve.jobs.crew import Crew
from preceptor.serve.jobs.grader import INVALID_GRADER, GraderJudge, judge_of
from preceptor.serve.jobs.native import (
    READ,
    WRITE,
    AskedBy,
    IdempotencyKey,
    Jobs,
    PageSize,
    capped,
    changed,
    created,
    found_job,
    owner_of,
    page_of,
    page_of_jobs,
)
from preceptor.serve.jobs.store import ENDED, INTERNAL, JobEvent, JobRecord
from preceptor.serve.jobs.tuning_rows import demonstrations, faults_of, prompts
from preceptor.serve.jobs.worker import rows_of
from preceptor.serve.problems import Problem, documented
from preceptor.train.settings import DpoSettings, GrpoSettings, LoopSettings, SftSettings

router = APIRouter(tags=["tuning"], responses=documented(402, 404, 409))
FAMILY = "tuning"
INVALID_FILE = "invalid_training_file"
KINDS: dict[str, tuple[JobKind, type[LoopSettings]]] = {
    "supervised": ("sft", SftSettings),
    "dpo": ("dpo", DpoSettings),
    "reinforcement": ("grpo", GrpoSettings),
}
"""OpenAI's method -> ours, and its settings."""
REWRITTEN: Mapping[str, Callable[[Path], Iterator[dict[str, Any]]]] = MappingProxyType(
    {"supervised": demonstrations, "reinforcement": prompts}
)
"""Methods whose rows are made rows of ours; those of the others are a layout that the command reads."""


class TuningNumbers(BaseModel):
    """Hyperparameters; `auto` is our own default."""

    model_config = ConfigDict(extra="forbid")

    n_epochs: Annotated[int, Field(ge=1, le=50)] | Literal["auto"] = "auto"
    batch_size: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = "auto"
    learning_rate_multiplier: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """Of our default rate."""
    beta: Annotated[float, Field(gt=0, le=2)] | Literal["auto"] = "auto"
    """Of DPO alone."""


class TuningOptions(BaseModel):
    """What stands under the method's own name."""

    model_config = ConfigDict(extra="forbid")

    hyperparameters: TuningNumbers = TuningNumbers()


class ReinforcementNumbers(BaseModel):
    """Hyperparameters of the reinforcement method; `auto` is our own default."""

    model_config = ConfigDict(extra="forbid")

    n_epochs: Annotated[int, Field(ge=1, le=50)] | Literal["auto"] = "auto"
    batch_size: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = "auto"
    """Prompts in a step."""
    learning_rate_multiplier: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    compute_multiplier: Annotated[float, Field(ge=0.25, le=8)] | Literal["auto"] = "auto"
    """Of the replies to a prompt that are compared."""
    reasoning_effort: Literal["default"] = "default"
    eval_interval: Literal["auto"] = "auto"
    eval_samples: Literal["auto"] = "auto"


class ReinforcementOptions(BaseModel):
    """What stands under `reinforcement`."""

    model_config = ConfigDict(extra="forbid")

    grader: dict[str, Any]
    """One that `preceptor.serve.jobs.grader` reads."""
    hyperparameters: ReinforcementNumbers = ReinforcementNumbers()


class TuningMethod(BaseModel):
    """How the model learns."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: TuningOptions | None = None
    dpo: TuningOptions | None = None
    reinforcement: ReinforcementOptions | None = None

    @model_validator(mode="after")
    def _graded(self) -> Self:
        if self.type == "reinforcement" and self.reinforcement is None:
            raise ValueError("reinforcement: missing; wanted an object with grader")
        return self

    @property
    def options(self) -> TuningOptions | ReinforcementOptions:
        """What stands under the method's own name."""
        found: TuningOptions | ReinforcementOptions | None = getattr(self, self.type)
        return found or TuningOptions()


class AskedTuning(BaseModel):
    """The body of `POST /v1/fine_tuning/jobs`."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(max_length=200)
    training_file: str = Field(max_length=64)
    validation_file: str | None = None
    method: TuningMethod | None = None
    hyperparameters: TuningNumbers | None = None
    """The former place of those of the supervised method."""
    seed: int | None = Field(default=None, ge=0, lt=2**31)
    suffix: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    metadata: dict[str, str] | None = Field(default=None, max_length=16)
    integrations: list[Any] | None = None
    max_cost_usd: float | None = Field(default=None, ge=0)
    """Not OpenAI's: USD that the grading of replies may cost."""


def told_tuning(crew: Crew, job: JobRecord) -> dict[str, Any]:
    """A job as OpenAI's API tells of one."""
    asked = AskedTuning.model_validate(job.request)
    method = _method_of(asked)
    kept = method.options.model_dump(exclude=set() if method.type == "dpo" else {"hyperparameters": {"beta"}})
    numbers = kept["hyperparameters"]
    code, _, said = (job.problem or "").partition(": ")
    param = "training_file" if code == INVALID_FILE else None
    status = {"cancelling": "running"}.get(job.status, job.status)
    files = crew.store.files(None, job.id) if job.status in ENDED else []
    return {
        "id": job.id,
        "object": "fine_tuning.job",
        "created_at": int(job.created_at),
        "finished_at": None if job.finished_at is None else int(job.finished_at),
        "model": asked.model,
        "fine_tuned_model": name_of(job) if job.status == "succeeded" else None,
        "organization_id": "preceptor",
        "status": status,
        "error": None if job.problem is None else {"code": code, "message": said, "param": param},
        "training_file": asked.training_file,
        "validation_file": None,
        "result_files": [file.id for file in sorted(files, key=lambda one: one.filename != "metrics.jsonl")],
        "hyperparameters": numbers,
        "method": {"type": method.type, method.type: kept},
        "seed": asked.seed or 0,
        "trained_tokens": None,
        "estimated_finish": None,
        "integrations": [],
        "metadata": asked.metadata or {},
    }


def name_of(job: JobRecord) -> str:
    """What a tuned model is called."""
    return f"ft:{job.request['model']}:preceptor:{job.request.get('suffix') or ''}:{_tail(job)}"


def _tail(job: JobRecord) -> str:
    return job.id.removeprefix("ftjob-")


def _method_of(asked: AskedTuning) -> TuningMethod:
    numbers = asked.hyperparameters or TuningNumbers()
    return asked.method or TuningMethod(type="supervised", supervised=TuningOptions(hyperparameters=numbers))


@router.post("/v1/fine_tuning/jobs")
def create(crew: Jobs, asking: AskedBy, body: AskedTuning, key: IdempotencyKey = None) -> dict[str, Any]:
    """Tune a model on an uploaded file. A file that cannot be used makes a job that has failed, as with OpenAI."""
    owner = owner_of(asking, WRITE)
    require(asking, "train")
    method = _method_of(body)
    _refuse(body, method)
    grader = None if method.reinforcement is None else _grader(crew, method.reinforcement.grader)
    file = crew.store.file(body.training_file, owner)
    if file is None:
        said = f"invalid training_file: {body.training_file!r} does not exist"
        raise Problem(400, INVALID_FILE, said)
    if file.purpose != "fine-tune":
        said = f"invalid training_file: its purpose is {file.purpose!r}; wanted 'fine-tune'"
        raise Problem(400, INVALID_FILE, said)
    request = body.model_dump(mode="json", exclude_none=True)
    with created(crew, asking, key, request) as creation:
        made = creation.made
        if made is None:
            faults = faults_of(crew.store.path_of(file), method.type)
            problem = f"{INVALID_FILE}: {'; '.join(faults)}" if faults else None
            rows = file
            if method.type in REWRITTEN and not faults:
                lines = REWRITTEN[method.type](crew.store.path_of(file))
                chunks: Iterator[bytes] = (json.dumps(line).encode() + b"\n" for line in lines)
                rows = crew.store.add_file(asking.key, INTERNAL, f"{file.id}.jsonl", chunks)
            kind, kind_settings = KINDS[method.type]
            asked = AskedJob(
                kind=kind,
                input=rows.id,
                model=body.model,
                settings=_settings_of(body, method, kind_settings),
            )
            kept = {**request}
            constitution: Constitution | None = None
            if grader is not None:
                judged = {"judge": grader.judge, "max_cost_usd": body.max_cost_usd}
                asked = capped(crew, asked.model_copy(update=judged), asking)
                constitution = grader.constitution
                kept["max_cost_usd"] = asked.max_cost_usd
            work = work_of(asked, crew.config, crew.store, owner, constitution)
            made = creation.make(FAMILY, kind, kept, work, "ftjob-", problem)
    return told_tuning(crew, made)


def _refuse(body: AskedTuning, method: TuningMethod) -> None:
    """Raises Problem for what OpenAI's API has and this one has not: nothing is passed over in silence."""
    if body.validation_file is not None:
        raise Problem(400, "unsupported_parameter", "validation_file is not read here; leave it out")
    if body.integrations:
        raise Problem(400, "unsupported_parameter", "integrations are not served here; leave them out")
    if body.method is not None and body.hyperparameters is not None:
        raise Problem(400, "unsupported_parameter", "hyperparameters stand under method, or alone")
    if others := [name for name in KINDS if name != method.type and getattr(method, name) is not None]:
        said = f"method.{others[0]} has no effect with method.type {method.type}; leave it out"
        raise Problem(400, "unsupported_parameter", said)
    options = method.options
    if method.type != "dpo" and getattr(options.hyperparameters, "beta", "auto") != "auto":
        raise Problem(400, "unsupported_parameter", "beta is a hyperparameter of dpo alone")
    if method.type != "reinforcement" and body.max_cost_usd is not None:
        said = "max_cost_usd has no effect here: only the reinforcement method asks a judge"
        raise Problem(400, "unsupported_parameter", said)


def _settings_of(body: AskedTuning, method: TuningMethod, kind: type[LoopSettings]) -> dict[str, Any]:
    numbers = method.options.hyperparameters
    settings: dict[str, Any] = {"format": "openai-dpo"} if method.type == "dpo" else {}
    if isinstance(numbers, ReinforcementNumbers):
        settings |= _of_groups(numbers)
    else:
        settings |= {"batch_size": numbers.batch_size, "beta": numbers.beta}
    settings["epochs"] = numbers.n_epochs
    settings = {name: value for name, value in settings.items() if value != "auto"}
    if numbers.learning_rate_multiplier != "auto":
        rate = kind.model_fields["learning_rate"].default
        settings["learning_rate"] = rate * numbers.learning_rate_multiplier
    if body.seed is not None:
        settings["seed"] = body.seed
    return settings


def _of_groups(numbers: ReinforcementNumbers) -> dict[str, Any]:
    """Each reply is graded on its own, as a score model does it; our batches count replies and not prompts."""
    fields = GrpoSettings.model_fields
    usual, replies = fields["samples"].default, fields["batch_size"].default
    samples = usual
    if numbers.compute_multiplier != "auto":
        samples = max(2, round(usual * numbers.compute_multiplier))
    asked = replies // usual if numbers.batch_size == "auto" else numbers.batch_size
    return {"judge_mode": "score", "samples": samples, "batch_size": asked * samples}


class AskedGrader(BaseModel):
    """The body of `POST /v1/fine_tuning/alpha/graders/validate`."""

    model_config = ConfigDict(extra="forbid")

    grader: dict[str, Any]


@router.post("/v1/fine_tuning/alpha/graders/validate")
def validate(crew: Jobs, asking: AskedBy, body: AskedGrader) -> dict[str, Any]:
    """The grader, where a job would take it."""
    owner_of(asking, READ)
    _grader(crew, body.grader)
    return {"grader": body.grader}


def _grader(crew: Crew, given: Any) -> GraderJudge:
    """The judge that a grader is. Raises Problem 400."""
    found = judge_of(given)
    if found.judge not in crew.config.models:
        there = ", ".join(crew.config.models) or "(there are none)"
        said = f"grader.model: there is no model {found.judge!r}; wanted one of {there}"
        raise Problem(400, INVALID_GRADER, said)
    return found


@router.get("/v1/fine_tuning/jobs")
def jobs(crew: Jobs, asking: AskedBy, after: str | None = None, limit: PageSize = 20) -> dict[str, Any]:
    """The jobs, the latest first."""
    return page_of_jobs(crew, asking, FAMILY, after, limit, told_tuning)


@router.get("/v1/fine_tuning/jobs/{name}")
def job_of(crew: Jobs, asking: AskedBy, name: str) -> dict[str, Any]:
    """How a job stands."""
    return told_tuning(crew, found_job(crew, name, owner_of(asking, READ), FAMILY))


@router.post("/v1/fine_tuning/jobs/{name}/cancel")
def cancel(crew: Jobs, asking: AskedBy, name: str) -> dict[str, Any]:
    """Have a job end."""
    crew.store.cancel(found_job(crew, name, owner_of(asking, WRITE), FAMILY).id)
    return job_of(crew, asking, name)


@router.post("/v1/fine_tuning/jobs/{name}/pause")
def pause(crew: Jobs, asking: AskedBy, name: str) -> dict[str, Any]:
    """Have a job wait; it goes on from its last checkpoint."""
    changed(crew.store.pause, found_job(crew, name, owner_of(asking, WRITE), FAMILY))
    return job_of(crew, asking, name)


@router.post("/v1/fine_tuning/jobs/{name}/resume")
def resume(crew: Jobs, asking: AskedBy, name: str) -> dict[str, Any]:
    """Have a job go on."""
    job = found_job(crew, name, owner_of(asking, WRITE), FAMILY)
    if (job.problem or "").startswith(INVALID_FILE):
        raise Problem(409, "wrong_status", f"{job.id} failed for its training file, and cannot go on")
    changed(crew.store.resume, job)
    crew.wake()
    return job_of(crew, asking, name)


@router.get("/v1/fine_tuning/jobs/{name}/events")
def events(
    crew: Jobs, asking: AskedBy, name: str, after: str | None = None, limit: PageSize = 20
) -> dict[str, Any]:
    """What has happened to a job, the latest first."""
    job = found_job(crew, name, owner_of(asking, READ), FAMILY)
    rows = crew.store.events(job.id)[::-1]
    if after is not None:
        number = int(match[1]) if (match := re.fullmatch(r"ftevent-(\d{1,18})", after)) else 0
        rows = [row for row in rows if row.number < number]
    return page_of(rows[: limit + 1], limit, _told_event)


def _told_event(event: JobEvent) -> dict[str, Any]:
    return {
        "id": f"ftevent-{event.number}",
        "object": "fine_tuning.job.event",
        "created_at": int(event.at),
        "level": event.level,
        "type": event.kind,
        "message": event.message,
        "data": event.data,
    }


@router.get("/v1/fine_tuning/jobs/{name}/checkpoints")
def checkpoints(
    crew: Jobs,
    asking: AskedBy,
    name: str,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
) -> dict[str, Any]:
    """The checkpoints that are kept, the latest first."""
    job = found_job(crew, name, owner_of(asking, READ), FAMILY)
    folder = crew.store.data / "jobs" / job.id / MODEL_FOLDER
    figures = {
        row["step"]: row for row in rows_of(folder / "metrics.jsonl") if "loss" in row and "step" in row
    }
    found = sorted(
        (int(path.name.rpartition("-")[2]) for path in (folder / "checkpoints").glob("checkpoint-*")),
        reverse=True,
    )
    rows = [
        {
            "id": f"ftckpt-{_tail(job)}-{step}",
            "object": "fine_tuning.job.checkpoint",
            "created_at": int((folder / f"checkpoints/checkpoint-{step}").stat().st_mtime),
            "fine_tuning_job_id": job.id,
            "fine_tuned_model_checkpoint": f"{name_of(job)}:ckpt-step-{step}",
            "step_number": step,
            "metrics": {"step": step, "train_loss": figures.get(step, {}).get("loss")},
        }
        for step in found
    ]
    if after is not None:
        names = [row["id"] for row in rows]
        rows = rows[names.index(after) + 1 :] if after in names else []
    return {
        "object": "list",
        "data": rows[:limit],
        "has_more": len(rows) > limit,
        "first_id": rows[0]["id"] if rows else None,
        "last_id": rows[:limit][-1]["id"] if rows else None,
    }
