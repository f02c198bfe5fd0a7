"""`/keys`: who may ask, for those with the scope `admin`."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from preceptor.serve.auth import Doorkeeper, require
from preceptor.serve.keys import SCOPES, Key, Keyring
from preceptor.serve.pages.rendering import HEADERS, show
from preceptor.serve.pages.route import PageRoute
from preceptor.serve.pages.session import Looking

router = APIRouter(route_class=PageRoute, include_in_schema=False, prefix="/keys")
DAY_S = 24 * 3600


@router.get("")
def listed(request: Request, looking: Looking) -> Response:
    """Every key, those out of use among them."""
    require(looking.caller, "admin")
    return _page(request)


@router.post("")
async def create(
    request: Request,
    looking: Looking,
    name: Annotated[str, Form(max_length=100)],
    scope: Annotated[list[str] | None, Form()] = None,
    budget_usd: Annotated[float | None, Form(ge=0, allow_inf_nan=False)] = None,
    per_minute: Annotated[int | None, Form(ge=1)] = None,
    days: Annotated[float | None, Form(gt=0, allow_inf_nan=False)] = None,
) -> Response:
    """Another key, shown once. Raises UserError for scopes that are none."""
    require(looking.caller, "admin")
    keys: Keyring = request.app.state.keys
    expires_at = None if days is None else time.time() + days * DAY_S

    def make() -> tuple[Key, str]:
        return keys.create(
            name, scope or [], expires_at=expires_at, budget_usd=budget_usd, per_minute=per_minute
        )

    key, shown = await asyncio.to_thread(make)
    return await asyncio.to_thread(_page, request, made=key, shown=shown)


@router.post("/{identity}/revoke")
async def revoke(request: Request, looking: Looking, identity: str) -> Response:
    """Have it be refused from now on."""
    require(looking.caller, "admin")
    keys: Keyring = request.app.state.keys
    await asyncio.to_thread(keys.revoke, identity)
    return RedirectResponse("/keys", 303, HEADERS)


def _page(request: Request, made: Key | None = None, shown: str = "") -> Response:
    keys: Keyring = request.app.state.keys
    doorkeeper: Doorkeeper = request.app.state.doorkeeper
    now = time.time()
    rows = [(key, key.usable(now), sorted(key.scopes)) for key in keys.all().values()]
    return show(request, "keys.html", keys=rows, scopes=SCOPES, made=made, shown=shown, open=doorkeeper.open)
