"""The first page, signing in and out, and the files that pages load."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import FileResponse, RedirectResponse

from preceptor.serve.auth import Doorkeeper
from preceptor.serve.keys import Keyring
from preceptor.serve.pages.rendering import HEADERS, HERE, show
from preceptor.serve.pages.route import PageRoute
from preceptor.serve.pages.session import LONGEST_NAME, Looking, sign_in, sign_out
from preceptor.serve.problems import Problem

router = APIRouter(route_class=PageRoute, include_in_schema=False)
STATIC = {
    "pages.css": "text/css; charset=utf-8",
    "pages.js": "text/javascript; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "htmx.LICENSE.txt": "text/plain; charset=utf-8",
}


@router.get("/")
def first(request: Request, _: Looking) -> Response:
    """What there is."""
    return show(request, "first.html")


@router.get("/static/{name}")
def static(name: str) -> Response:
    """One of the few files that pages load."""
    if name not in STATIC:
        raise Problem(404, "not_found", "there is no such file")
    return FileResponse(HERE / "static" / name, media_type=STATIC[name], headers=HEADERS)


@router.get("/sign-in")
def ask(request: Request, next: str = "/") -> Response:  # noqa: A002 - the name of the field in the address
    """The form."""
    doorkeeper: Doorkeeper = request.app.state.doorkeeper
    return show(request, "sign_in.html", open=doorkeeper.open, next=_local(next), wrong="")


@router.post("/sign-in")
async def enter(
    request: Request,
    name: Annotated[str, Form(max_length=LONGEST_NAME)] = "",
    key: Annotated[str, Form(max_length=200)] = "",
    next: Annotated[str, Form(max_length=2000)] = "/",  # noqa: A002
) -> Response:
    """Show a key, or on loopback without keys a name alone."""
    doorkeeper: Doorkeeper = request.app.state.doorkeeper
    keys: Keyring = request.app.state.keys
    found = None
    if not doorkeeper.open:
        found = await asyncio.to_thread(keys.found, key.strip())
        if found is None:
            wrong = "This key is not known, revoked or at its end."
            return show(request, "sign_in.html", 401, open=False, next=_local(next), wrong=wrong)
        doorkeeper.admitted(found)
    made = RedirectResponse(_local(next), 303, HEADERS)
    sign_in(request, made, found, " ".join(name.split()) or (found.name if found else ""))
    return made


@router.post("/sign-out")
def leave() -> Response:
    """Forget who it was."""
    made = RedirectResponse("/sign-in", 303, HEADERS)
    sign_out(made)
    return made


def _local(path: str) -> str:
    """A path of this server, whatever came."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() else "/"
