"""`/constitutions`: principles are read and written, with faults, differences, price and history."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Form, Path, Request, Response
from fastapi.responses import RedirectResponse

from preceptor.constitution.errors import ConstitutionError, UserError
from preceptor.constitution.starter import starter
from preceptor.label.asked_again import asked_again
from preceptor.serve import constitutions
from preceptor.serve.auth import require
from preceptor.serve.config import NAME
from preceptor.serve.jobs.crew import Crew
from preceptor.serve.jobs.native import READ, Jobs
from preceptor.serve.jobs.worker import ledger_of
from preceptor.serve.pages.blind_check import proposal_of
from preceptor.serve.pages.differences import diff_lines
from preceptor.serve.pages.flips import LAST, Flips, flips, sets_of
from preceptor.serve.pages.label_sets import LabelSets
from preceptor.serve.pages.opinion_store import BlindCheck
from preceptor.serve.pages.proposals import Proposal, mended
from preceptor.serve.pages.rendering import HEADERS, show
from preceptor.serve.pages.route import PageRoute
from preceptor.serve.pages.session import Looking, Visitor
from preceptor.serve.problems import Problem
from preceptor.serve.service import Served, Service
from preceptor.serve.versions import constitution_in, etag_of
from preceptor.settings import Asking

router = APIRouter(route_class=PageRoute, include_in_schema=False, prefix="/constitutions")
Named = Annotated[str, Path(pattern=NAME)]
Written = Annotated[str, Form()]
CHANGED = "precondition_failed"
"""Code of the problem that somebody else saved in the meantime."""


@router.get("")
def listed(request: Request, served: Served, _: Looking) -> Response:
    """Those by which judges go now."""
    saved = {version.name: version for version in served.versions.latest()}
    rows = [
        {"name": name, "identity": one.identity, "principles": len(one.principles), "saved": saved.get(name)}
        for name, one in served.rewards.constitutions.items()
    ]
    return show(request, "constitutions.html", rows=rows)


@router.get("/{name}")
def edit(
    request: Request,
    served: Served,
    crew: Jobs,
    looking: Looking,
    name: Named,
    check: str = "",
    principle: str = "",
) -> Response:
    """One of them: its principles, and the form by which it is changed; one that is not there yet, begun.

    check, principle: of a blind check that proposes how the principle is mended; the text has that, unsaved.
    """
    text = constitutions.text_of(served, name)
    if text is None:
        require(looking.caller, "admin")
        return _editor(request, served, name, starter(name.lower().replace("_", "-").replace(".", "-")), "")
    sets, etag = _offered(request, served, crew, looking, name), etag_of(text)
    if not check:
        return _editor(request, served, name, text, etag, sets=sets)
    known = LabelSets(served, crew, looking, request.app.state.indexes)
    of, proposal = proposal_of(request, known, looking, check, principle)
    return _editor(request, served, name, mended(text, proposal), etag, sets=sets, proposed=(of, proposal))


@router.post("/{name}/faults")
def faults(request: Request, _: Looking, name: Named, text: Written) -> Response:
    """What is wrong with a text that is being written: a piece of a page."""
    return show(request, "faults.html", faults=faults_of(_lines(text), name))


@router.post("/{name}/look")
def look(
    request: Request,
    served: Served,
    crew: Jobs,
    looking: Looking,
    name: Named,
    text: Written,
    etag: Written = "",
) -> Response:
    """Faults and differences of a text before it is saved."""
    offered = _offered(request, served, crew, looking, name)
    return _editor(request, served, name, _lines(text), etag, sets=offered)


@router.post("/{name}/price")
def price(
    request: Request,
    served: Served,
    crew: Jobs,
    looking: Looking,
    name: Named,
    text: Written,
    etag: Written = "",
    on: Written = "",
) -> Response:
    """What of label jobs a text would have asked again, and for how much; and what asking about flips would cost."""
    require(looking.caller, READ)
    priced: dict[str, Any] | None = None
    text = _lines(text)
    if not faults_of(text, name) and constitutions.text_of(served, name) is not None:
        priced = constitutions.price(served, crew, looking.caller, name, text, None)
        priced["last"] = None
        if on:
            folder = LabelSets(served, crew, looking, request.app.state.indexes).found(on).path.parent
            asking = Asking(ledger=ledger_of(crew.store))
            priced["last"] = asked_again(folder, constitution_in(text, name), asking, LAST).figures()
    offered = _offered(request, served, crew, looking, name)
    return _editor(request, served, name, text, etag, price=priced, sets=offered, chosen=on)


@router.post("/{name}/flips")
async def flip(
    request: Request,
    served: Served,
    crew: Jobs,
    looking: Looking,
    name: Named,
    text: Written,
    on: Written,
    most_usd: Annotated[float, Form(ge=0)],
    etag: Written = "",
) -> Response:
    """How many of the last labels a text would flip: the judge may be asked, within the budget."""
    require(looking.caller, READ)
    require(looking.caller, "judge")
    text = _lines(text)
    came: Flips | None = None
    trouble = ""
    if not await asyncio.to_thread(faults_of, text, name):
        rules = await asyncio.to_thread(constitution_in, text, name)
        known = LabelSets(served, crew, looking, request.app.state.indexes)
        found = await asyncio.to_thread(known.found, on)
        try:
            came = await flips(served, found, rules, looking.caller, most_usd)
        except (Problem, UserError) as error:  # so that nobody loses what they have written
            trouble = str(error)
    offered = await asyncio.to_thread(_offered, request, served, crew, looking, name)
    return await asyncio.to_thread(
        lambda: _editor(
            *(request, served, name, text, etag, 422 if trouble else 200),
            sets=offered,
            chosen=on,
            most_usd=most_usd,
            flipped=came,
            trouble=trouble,
        )
    )


@router.post("/{name}/save")
async def save(
    request: Request,
    served: Served,
    looking: Looking,
    name: Named,
    text: Written,
    etag: Written = "",
    reason: Annotated[str, Form(max_length=400)] = "",
) -> Response:
    """Save it, where nobody else has in the meantime."""
    require(looking.caller, "admin")
    said = reason.strip() + (f" ({looking.name})" if looking.name else "")
    match = {"if_match": etag} if etag else {"if_none_match": "*"}
    try:
        await constitutions.save(
            served, looking.caller, name, _lines(text), Response(), said.strip(), **_both(match)
        )
    except Problem as problem:
        if problem.code not in (CHANGED, "invalid_constitution"):
            raise
        other, status = problem.code == CHANGED, problem.status
        return await asyncio.to_thread(
            lambda: _editor(request, served, name, _lines(text), etag, status, other=other)
        )
    return RedirectResponse(f"/constitutions/{name}", 303, HEADERS)


@router.get("/{name}/versions/{number}")
def version(request: Request, served: Served, _: Looking, name: Named, number: int) -> Response:
    """One version, and what it changed."""
    kept = {one.number: one for one in served.versions.of(name)}
    if number not in kept:
        raise Problem(404, "not_found", f"{name!r} has no version {number}; it has {len(kept)}")
    before = kept.get(number - 1)
    lines = diff_lines(before.text, kept[number].text) if before is not None else []
    return show(request, "constitution_version.html", name=name, one=kept[number], before=before, lines=lines)


def faults_of(text: str, name: str) -> list[dict[str, Any]]:
    """Every fault of a text with its line; none where judges could go by it."""
    try:
        constitution_in(text, name)
    except ConstitutionError as error:
        return [{"line": one.line, "came": one.came, "wanted": one.wanted} for one in error.faults]
    return []


def _editor(
    request: Request,
    served: Service,
    name: str,
    text: str,
    etag: str,
    status: int = 200,
    *,
    other: bool = False,
    price: dict[str, Any] | None = None,
    sets: Sequence[tuple[str, str]] = (),
    chosen: str = "",
    most_usd: float = 1.0,
    flipped: Flips | None = None,
    trouble: str = "",
    proposed: tuple[BlindCheck, Proposal] | None = None,
) -> Response:
    """other: somebody else saved in the meantime. price: what the text would cost. sets: labels of which flips may be
    asked, and what came of that, or why nothing did."""
    wrong = faults_of(text, name)
    saved = constitutions.text_of(served, name)
    changes = []
    if not wrong and saved is not None and not faults_of(saved, name):
        changes = constitutions.differences(constitution_in(saved, name), constitution_in(text, name))[
            "changes"
        ]
    return show(
        request,
        "constitution.html",
        status,
        name=name,
        text=text,
        etag=etag,
        new_etag=etag_of(saved) if saved is not None else "",
        faults=wrong,
        faulty={one["line"] for one in wrong},
        lines=text.splitlines() if wrong else [],
        diff=diff_lines(saved or "", text),
        changes=changes,
        other=other or (saved is not None and bool(etag) and etag_of(saved) != etag),
        is_new=saved is None,
        principles=[] if wrong else constitution_in(text, name).principles,
        identity="" if wrong else constitution_in(text, name).identity,
        history=served.versions.of(name),
        price=price,
        sets=sets,
        chosen=chosen,
        most_usd=most_usd,
        flipped=flipped,
        trouble=trouble,
        proposed=proposed,
        last=LAST,
    )


def _offered(
    request: Request, served: Service, crew: Crew, looking: Visitor, name: str
) -> list[tuple[str, str]]:
    """The labels of which this visitor may ask what a change would flip."""
    rules = served.rewards.constitutions.get(name)
    if rules is None or not (looking.may(READ) and looking.may("judge")):
        return []
    return sets_of(LabelSets(served, crew, looking, request.app.state.indexes), rules.name)


def _both(match: dict[str, str]) -> dict[str, str | None]:
    return {"if_match": match.get("if_match"), "if_none_match": match.get("if_none_match")}


def _lines(text: str) -> str:
    """A form ends lines as networks do; a file does not."""
    return text.replace("\r\n", "\n")
