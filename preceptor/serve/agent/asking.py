"""The service as the tools ask it: over HTTP, or within this process by the same requests."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx

from preceptor.serve.app import create_app
from preceptor.serve.config import ServeConfig

KEY = "PRECEPTOR_KEY"
"""The variable that holds the key of whoever starts the tools."""
HERE = "http://127.0.0.1"
CALL_S = 600.0
"""How long one request may take: a plan counts tokens."""


class RequestRefused(Exception):
    """The service did not do it, and why in its own words."""


class ServiceCaller:
    """Sends the requests of tools."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def ask(self, method: str, path: str, authorization: str | None, **more: Any) -> httpx.Response:
        """The service's answer. authorization: the header of who asks. Raises RequestRefused."""
        headers = {**more.pop("headers", {})}
        if authorization:
            headers["Authorization"] = authorization
        try:
            answer = await self._client.request(method, path, headers=headers, **more)
        except httpx.TransportError as error:
            raise RequestRefused(
                f"the service at {self._client.base_url} does not answer ({type(error).__name__}); "
                "see that `preceptor serve` runs there"
            ) from error
        if answer.is_error:
            raise RequestRefused(_said(answer))
        return answer


def _said(answer: httpx.Response) -> str:
    try:
        body: Mapping[str, Any] = answer.json()
        return f"{answer.status_code} {body['error']['code']}: {body['detail']}"
    except (ValueError, KeyError, TypeError):
        return f"{answer.status_code} {answer.reason_phrase}"


def own_key() -> str | None:
    """The Authorization header of whoever starts the tools, by the environment."""
    key = os.environ.get(KEY)
    return f"Bearer {key}" if key else None


@asynccontextmanager
async def service_within(config: ServeConfig) -> AsyncIterator[ServiceCaller]:
    """The service in this process, with no socket of its own; its jobs are carried out as those of a server.

    Raises UserError, ProviderStopped, LedgerError where the configuration cannot be served.
    """
    app = create_app(config)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.router.lifespan_context(app))
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        client = httpx.AsyncClient(transport=transport, base_url=HERE, timeout=CALL_S)
        yield ServiceCaller(await stack.enter_async_context(client))


@asynccontextmanager
async def service_at(url: str) -> AsyncIterator[ServiceCaller]:
    """A service that runs."""
    async with httpx.AsyncClient(base_url=url.rstrip("/"), timeout=CALL_S) as client:
        yield ServiceCaller(client)
