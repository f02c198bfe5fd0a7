"""The HTTP beneath both SDKs: the fast transport where it is installed, and what no reply may do to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib.util import find_spec
from typing import Any

import httpx2

from preceptor.judge.errors import ProviderStopped, Transient
from preceptor.judge.models.door import LARGEST_BODY

REPLIES = ("/chat/completions", "/messages")
"""Ends of the paths whose answers are one reply; results of batches are as large as they are."""

BY_GET = frozenset({301, 302, 303})
"""Redirects that are followed without what was sent."""


class _Bounded(httpx2.AsyncByteStream):
    """A body of which no more is read than a reply may have."""

    def __init__(self, stream: Any, url: str) -> None:
        self._stream = stream
        self._url = url

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for block in self._stream:
            size += len(block)
            if size > LARGEST_BODY:
                raise _too_large(self._url)
            yield block

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _look(response: Any) -> None:
    """A response hook of the HTTP client, called before the body is read."""
    url = response.request.url
    if response.has_redirect_location:
        there = url.join(response.headers["location"])
        if (there.scheme, there.host, there.port) != (url.scheme, url.host, url.port):
            # the key would go there too
            raise ProviderStopped(
                f"{url.scheme}://{url.netloc.decode()} sends requests on to {there.scheme}://{there.netloc.decode()}, "
                "where nothing is sent; name that with --base-url if it is the server that you mean"
            )
    if (
        response.has_redirect_location
        and response.status_code in BY_GET
        and response.request.method == "POST"
    ):
        raise ProviderStopped(
            f"{url.scheme}://{url.netloc.decode()} answers {response.status_code}, by which a question becomes the "
            "fetching of a page; name the address that it sends on to with --base-url"
        )
    if url.path.endswith(REPLIES):
        size = response.headers.get("content-length", "")
        if size.isdigit() and int(size[:20]) > LARGEST_BODY:
            raise _too_large(url.host)
        response.stream = _Bounded(response.stream, url.host)


def _too_large(url: str) -> Transient:
    return Transient(f"{url} sent a reply of more than {LARGEST_BODY // 2**20} MiB, which is not read")


def fast_transport() -> bool:
    """Whether the SDKs' aiohttp transport is free: half the CPU time a call (docs/labelling.md)."""
    return find_spec("aiohttp") is not None


def http_client(sdk: Any, timeout: Any) -> Any:
    """The SDK's own HTTP client on the fastest transport that is installed."""
    kind = sdk.DefaultAioHttpClient if fast_transport() else sdk.DefaultAsyncHttpxClient
    return kind(timeout=timeout, event_hooks={"response": [_look]})
