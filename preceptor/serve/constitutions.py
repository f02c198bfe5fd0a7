"""`/v1/constitutions`: what judges go by, changed over HTTP with its versions, its differences and its price."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response

from preceptor.constitution.diff import compare
from preceptor.constitution.errors import ConstitutionError, UserError
from preceptor.constitution.files import dump, shipped, shipped_text
from preceptor.constitution.principle import Constitution
from preceptor.label.asked_again import asked_again
from preceptor.serve.auth import Caller, needs
from preceptor.serve.config import NAME
from preceptor.serve.jobs.commands import trained_by
from preceptor.serve.jobs.crew import Crew
from preceptor.serve.jobs.native import READ, Jobs, owner_of
from preceptor.serve.jobs.store import JobRecord
from preceptor.serve.jobs.worker import ledger_of
from preceptor.serve.operations import Anyone
from preceptor.serve.problems import Problem, documented
from preceptor.serve.service import Served, Service
from preceptor.serve.versions import OtherSavedError, Version, constitution_in, etag_of
from preceptor.settings import Asking

router = APIRouter(tags=["constitutions"], responses=documented(404, 412, 428), prefix="/v1/constitutions")
Writer = Annotated[Caller, Depends(needs("constitutions:write"))]
Name = Annotated[str, Path(pattern=NAME)]
Reason = Annotated[str, Query(max_length=500)]
Number = Annotated[int | None, Query(ge=1)]
YAML = "application/yaml"
MOST_JOBS = 20
"""Label jobs that are priced where the client names none: the latest."""


async def text_in(request: Request) -> str:
    """The body, which is a constitution's text. Raises Problem."""
    try:
        return (await request.body()).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Problem(422, "invalid_constitution", f"the body is no UTF-8 ({error.reason})") from None


Text = Annotated[str, Depends(text_in)]
TEXT: dict[str, Any] = {
    "requestBody": {"required": True, "content": {YAML: {"schema": {"type": "string"}}}},
}
"""What OpenAPI is told of a body that is a text."""


@router.get("")
def constitutions(served: Served, _: Anyone) -> dict[str, Any]:
    """The constitutions by which judges go now."""
    known = served.rewards.constitutions
    rows = [{"id": name, "object": "constitution", "identity": one.identity} for name, one in known.items()]
    return {"object": "list", "data": rows}


@router.get("/{name}")
def constitution(
    served: Served, _: Anyone, name: Name, response: Response, accept: Annotated[str, Header()] = ""
) -> Any:
    """One of them with its ETag: as JSON, or its YAML alone where that is accepted."""
    text = _existing(served, name)
    if "yaml" in accept:
        return Response(text, media_type=YAML, headers={"ETag": etag_of(text), "Vary": "Accept"})
    response.headers.update({"ETag": etag_of(text), "Vary": "Accept"})
    return _told(name, text)


@router.put("/{name}", openapi_extra=TEXT)
async def save(
    served: Served,
    asking: Writer,
    name: Name,
    text: Text,
    response: Response,
    reason: Reason = "",
    if_match: Annotated[str | None, Header()] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> dict[str, Any]:
    """Save a version, by which every request goes from then on. `If-Match` names the one that it changes;
    `If-None-Match: *` makes a new constitution."""
    before = await asyncio.to_thread(text_of, served, name)
    _check(name, before, if_match, if_none_match)
    await asyncio.to_thread(_parsed, text, name)
    try:
        version = await asyncio.to_thread(served.versions.add, name, before, text, asking.key, reason)
    except OtherSavedError:
        raise _changed(name) from None
    await served.look()
    response.headers["ETag"] = version.etag
    return _told(name, text) | {"version": version.number}


@router.get("/{name}/versions")
def versions(served: Served, _: Anyone, name: Name) -> dict[str, Any]:
    """Every version that was saved, the latest first; none where it stands as the configuration has it."""
    _existing(served, name)
    return {"object": "list", "data": [_told_version(version) for version in served.versions.of(name)]}


@router.get("/{name}/versions/{number}")
def version_of(served: Served, _: Anyone, name: Name, number: int) -> dict[str, Any]:
    """One version with its content."""
    version = _version(served.versions.of(name), name, number)
    return _told_version(version) | _told(name, version.text)


@router.get("/{name}/diff")
def diff(
    served: Served,
    _: Anyone,
    name: Name,
    old: Annotated[Number, Query(alias="from")] = None,
    new: Annotated[Number, Query(alias="to")] = None,
) -> dict[str, Any]:
    """What differs between two versions, as `preceptor constitution diff --json` says; else the last two."""
    kept = served.versions.of(name)
    after = _version(kept, name, new if new is not None else max((one.number for one in kept), default=1))
    before = _version(kept, name, old if old is not None else after.number - 1)
    return differences(_parsed(before.text, name), _parsed(after.text, name))


@router.post("/{name}/price", openapi_extra=TEXT)
def price(
    served: Served,
    crew: Jobs,
    asking: Anyone,
    name: Name,
    text: Text,
    job: Annotated[list[str] | None, Query(max_length=MOST_JOBS)] = None,
) -> dict[str, Any]:
    """What a change would cost before it is saved: what of label jobs would have to be asked again, in calls and USD.

    job: those; else the latest that went by this constitution. Nothing is asked.
    """
    owner = owner_of(asking, READ)
    before, after = _parsed(_existing(served, name), name), _parsed(text, name)
    asking_as = Asking(ledger=ledger_of(crew.store))
    rows = []
    for found in _label_jobs(crew, owner, name, job):
        folder = crew.store.data / "jobs" / found.id / found.work.out
        rows.append({"job": found.id, **asked_again(folder, after, asking_as).figures()})
    costs = [row["cost_usd"] for row in rows]
    return {
        "object": "constitution.price",
        **differences(before, after),
        "jobs": rows,
        "labels": sum(row["labels"] for row in rows),
        "calls": sum(row["calls"] for row in rows),
        "cost_usd": None if None in costs else sum(costs),
    }


def _label_jobs(crew: Crew, owner: str | None, name: str, given: Sequence[str] | None) -> list[JobRecord]:
    labels = frozenset({"label"})
    if given is None:
        latest = crew.store.jobs(owner, "job", 100)
        ended = [job for job in latest if job.kind in labels and job.status == "succeeded"]
        return [job for job in ended if job.request.get("constitution") == name][:MOST_JOBS]
    found = [(one, trained_by(crew.store, owner, one, labels)) for one in given]
    if missing := [one for one, job in found if job is None]:
        raise Problem(404, "not_found", f"{missing[0]!r} is no job of kind label that has succeeded")
    return [job for _, job in found if job is not None]


def text_of(served: Service, name: str) -> str | None:
    """The YAML of a constitution, saved or of the configuration; None: there is none of this name."""
    if saved := served.versions.of(name):
        return saved[0].text
    source = served.config.constitutions.get(name)
    if source is None:
        return None
    if source in shipped():
        return shipped_text(source)
    holds = served.rewards.constitutions[name]
    try:
        with open(source, encoding="utf-8-sig") as stream:
            text = stream.read()
        if constitution_in(text, name) == holds:
            return text
    except (OSError, ValueError, UserError):
        pass  # it extends a file beside it, or was changed since it was read
    return dump(holds)


def _existing(served: Service, name: str) -> str:
    text = text_of(served, name)
    if text is None:
        there = ", ".join(served.rewards.constitutions) or "(there are none)"
        raise Problem(404, "unknown_constitution", f"{name!r} is no constitution here; wanted one of {there}")
    return text


def _check(name: str, before: str | None, if_match: str | None, if_none_match: str | None) -> None:
    """Raises Problem 428 where a change does not say what it was made of, 412 where that is another by now."""
    if if_match is None and if_none_match is None:
        said = (
            "a change wants If-Match with the ETag that it was made of; a new constitution If-None-Match: *"
        )
        raise Problem(428, "precondition_required", said)
    if if_none_match is not None and (if_none_match.strip() != "*" or before is not None):
        raise Problem(412, "precondition_failed", f"{name!r} is there already; change it with If-Match")
    if if_match is not None:
        tags = [tag.strip() for tag in if_match.split(",")]
        if before is None or not ({"*", etag_of(before)} & {*tags}):
            raise _changed(name)


def _changed(name: str) -> Problem:
    said = f"{name!r} is not what this change was made of; get it anew, and change that"
    return Problem(412, "precondition_failed", said)


def _parsed(text: str, name: str) -> Constitution:
    """Raises Problem 422 with every fault and its line."""
    try:
        return constitution_in(text, name)
    except ConstitutionError as error:
        faults = [{"line": one.line, "detail": one.came, "wanted": one.wanted} for one in error.faults]
        raise Problem(422, "invalid_constitution", str(error), errors=faults) from None


def _version(kept: Sequence[Version], name: str, number: int) -> Version:
    found = next((version for version in kept if version.number == number), None)
    if found is None:
        raise Problem(404, "not_found", f"{name!r} has no version {number}; it has {len(kept)}")
    return found


def _told(name: str, text: str) -> dict[str, Any]:
    made = _parsed(text, name)
    return {
        "id": name,
        "object": "constitution",
        "identity": made.identity,
        "etag": etag_of(text),
        "text": text,
        "constitution": made.model_dump(mode="json"),
    }


def _told_version(version: Version) -> dict[str, Any]:
    return {
        "version": version.number,
        "etag": version.etag,
        "key": version.key,
        "reason": version.reason,
        "created_at": int(version.at),
    }


def differences(old: Constitution, new: Constitution) -> dict[str, Any]:
    changes = [
        change._asdict() | {"asks_again": change.asks_again, "revises_again": change.revises_again}
        for change in compare(old, new)
    ]
    return {"old": old.identity, "new": new.identity, "changes": changes}
