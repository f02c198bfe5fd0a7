"""What keeps a server going: whether it lives, whether it is ready, its figures."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from preceptor.serve.auth import Caller, caller
from preceptor.serve.metrics import REGISTRY

router = APIRouter(tags=["operations"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Whether the process answers."""
    return {"status": "ok"}


@router.get("/metrics")
async def figures(_: Annotated[Caller, Depends(caller)]) -> Response:
    """Figures in Prometheus's form."""
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)
