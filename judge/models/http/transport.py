"""The HTTP beneath both SDKs: the fast transport where it is installed, and the rate-limit headers of replies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Any

from preceptor.judge.models.protocol import OnHeaders

_on_headers: ContextVar[OnHeaders | None] = ContextVar("on_headers", default=None)
"""Of the request that this task is making: the SDKs call hooks of the client, and pass nothing of a call's own on."""


@contextmanager
def handing_headers_to(on_headers: OnHeaders | None) -> Iterator[None]:
    """Whoever is to have the rate-limit headers of the replies to the requests that this task makes meanwhile."""
    token = _on_headers.set(on_headers)
    try:
        yield
    finally:
        _on_headers.reset(token)


async def _hand_on(response: Any) -> None:
    """A response hook of the HTTP client, called in the task that made the request."""
    on_headers = _on_headers.get()
    if on_headers is None:
        return
    said = {
        name.decode("latin-1").lower(): value.decode("latin-1")
        for name, value in response.headers.raw
        if b"ratelimit" in name.lower()
    }
    if said:
        on_headers(said)


def fast_transport() -> bool:
    """Whether the SDKs' aiohttp transport can be had: half the CPU time a call (docs/labelling.md)."""
    return find_spec("aiohttp") is not None


def http_client(sdk: Any, timeout: Any) -> Any:
    """The SDK's own HTTP client on the fastest transport that is installed."""
    kind = sdk.DefaultAioHttpClient if fast_transport() else sdk.DefaultAsyncHttpxClient
    return kind(timeout=timeout, event_hooks={"response": [_hand_on]})
