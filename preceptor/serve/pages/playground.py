"""`/playground`: a prompt, two replies and a constitution -> what a judge says, and what it saw."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Request, Response

from preceptor.judge.aggregate import opinions
from preceptor.judge.ledger import queries
from preceptor.judge.ledger.location import reading
from preceptor.judge.records import Label
from preceptor.judge.settings import LabelSettings
from preceptor.serve.auth import require
from preceptor.serve.native import labelled
from preceptor.serve.pages.editor import faults_of
from preceptor.serve.pages.rendering import show
from preceptor.serve.pages.route import PageRoute
from preceptor.serve.pages.session import Looking
from preceptor.serve.rows import pairs_in_request
from preceptor.serve.service import Served, Service
from preceptor.serve.versions import constitution_in

router = APIRouter(route_class=PageRoute, include_in_schema=False, prefix="/playground")
EMPTY = {"judge": "", "constitution": "", "text": "", "prompt": "", "a": "", "b": "", "principles": "each"}


@router.get("")
def form(request: Request, served: Served, _: Looking, constitution: str = "") -> Response:
    """The form."""
    return _page(request, served, EMPTY | {"constitution": constitution})


@router.post("/from")
def begun(
    request: Request,
    served: Served,
    _: Looking,
    text: Annotated[str, Form()],
    name: Annotated[str, Form()] = "",
) -> Response:
    """The form with a text that is not saved yet."""
    return _page(request, served, EMPTY | {"constitution": name, "text": text.replace("\r\n", "\n")})


@router.post("")
async def ask(
    request: Request,
    served: Served,
    looking: Looking,
    judge: Annotated[str, Form()],
    prompt: Annotated[str, Form()],
    a: Annotated[str, Form()],
    b: Annotated[str, Form()],
    constitution: Annotated[str, Form()] = "",
    text: Annotated[str, Form()] = "",
    principles: Annotated[Literal["each", "joint"], Form()] = "each",
) -> Response:
    """Ask the judge in both orders, by the saved constitution or by the text."""
    require(looking.caller, "judge")
    values = {"judge": judge, "constitution": constitution, "text": text.replace("\r\n", "\n")}
    values |= {"prompt": prompt, "a": a, "b": b, "principles": principles}
    if values["text"].strip():
        if wrong := faults_of(values["text"], "playground"):
            return _page(request, served, values, 422, faults=wrong)
        rules = await asyncio.to_thread(constitution_in, values["text"], "playground")
    else:
        rules = served.rewards.constitution(constitution or None)
    rows = [{"prompt": prompt, "response_a": a, "response_b": b}]
    settings = LabelSettings(principles=principles, orders="both")
    way = served.desk.way(judge)
    label = (
        await labelled(
            pairs_in_request(rows, served.config.limits), rules, way, settings, served, looking.caller
        )
    )[0]
    calls = await asyncio.to_thread(_calls, served, label)
    return _page(request, served, values, label=label, calls=calls, rules=rules)


def _page(
    request: Request, served: Service, values: dict[str, str], status: int = 200, **more: Any
) -> Response:
    label: Label | None = more.get("label")
    return show(
        request,
        "playground.html",
        status,
        values=values,
        models=served.desk.names,
        constitutions=list(served.rewards.constitutions),
        faults=more.get("faults", []),
        label=label,
        opinions=opinions(label) if label is not None else [],
        calls=more.get("calls", {}),
        rules=more.get("rules"),
    )


def _calls(served: Service, label: Label) -> dict[str, queries.Call]:
    """Key -> call, of those that the ledger has."""
    keys = [one.call for one in label.judgements if one.call is not None]
    with reading(served.config.database) as connection:
        found = [next(queries.calls(connection, queries.Wanted(key=key), limit=1), None) for key in keys]
    return {call.key: call for call in found if call is not None}
