"""The HTTP beneath both SDKs: the fast transport where it is installed, and what no reply may do to it."""

from __future__ import annotations

import re
import zlib
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from typing import Any

import httpx2

from preceptor.judge.errors import ProviderStopped, Transient
from preceptor.judge.models.door import LARGEST_BODY, LARGEST_RESULTS

RESULTS = re.compile(r"/files/[^/]+/content$|/batches/[^/]+/results$")
"""Paths whose answers are the results of a batch; every other answer is no larger than a reply."""

BY_GET = frozenset({301, 302, 303})
"""Redirects that are followed without what was sent."""


COMPRESSED = {"gzip": zlib.MAX_WBITS | 32, "x-gzip": zlib.MAX_WBITS | 32, "deflate": zlib.MAX_WBITS | 32}
"""Content encodings that are asked for and read -> how zlib knows them, by their first bytes."""
BLOCK = 2**16
"""Bytes that are unpacked at a time."""


class _Bounded(httpx2.AsyncByteStream):
    """A body of which no more is read, and no more unpacked, than it may have."""

    def __init__(self, stream: Any, url: str, encoding: str, most: int) -> None:
        """encoding: one of `COMPRESSED`, or empty. most: bytes."""
        self._stream = stream
        self._url = url
        self._most = most
        self._encoding = encoding

    async def __aiter__(self) -> AsyncIterator[bytes]:
        unpacking = _Unpacking(self._encoding) if self._encoding else None
        read = made = 0
        async for block in self._stream:
            read += len(block)
            for part in unpacking.parts(block) if unpacking else (block,):
                made += len(part)
                if max(read, made) > self._most:
                    raise _too_large(self._url, self._most)
                yield part
        if unpacking is not None and not unpacking.whole:
            raise Transient(f"{self._url} sent a broken body: its {self._encoding} data is cut short")

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Unpacking:
    """gzip or deflate in pieces: a few bytes can stand for gigabytes, which no single call may make of them."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._zlib = zlib.decompressobj(COMPRESSED[encoding])
        self._begun = False

    @property
    def whole(self) -> bool:
        """Whether the data has come to its end, or there was none."""
        return self._zlib.eof or not self._begun

    def parts(self, data: bytes) -> Iterator[bytes]:
        """What the next bytes stand for. Raises Transient where they stand for nothing."""
        while data:
            if self._zlib.eof:  # several members stand for one text
                self._zlib = zlib.decompressobj(COMPRESSED[self._encoding])
            try:
                made = self._zlib.decompress(data, BLOCK)
            except zlib.error as exc:
                if self._begun or self._encoding != "deflate":
                    raise Transient(f"the server sent a broken body: {exc}") from exc
                self._zlib, self._begun = zlib.decompressobj(-zlib.MAX_WBITS), True  # as some servers mean it
                continue
            self._begun = True
            data = self._zlib.unused_data if self._zlib.eof else self._zlib.unconsumed_tail
            if made:
                yield made


async def _look(response: Any) -> None:
    """A response hook of the HTTP client, called before the body is read."""
    url = response.request.url
    response.encoding = "utf-8"  # what a server calls it may be no encoding of texts: hex, zip, idna
    if response.has_redirect_location:
        there = _redirected_to(url, response.headers["location"])
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
    most = LARGEST_RESULTS if RESULTS.search(url.path) else LARGEST_BODY
    size = response.headers.get("content-length", "")
    if size.isdecimal() and int(size[:20]) > most:
        raise _too_large(url.host, most)
    # unpacked here: the library would unpack without a bound, behind the one on what comes over the line
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        encoding = ""
    elif encoding in COMPRESSED:
        del response.headers["content-encoding"]
    else:
        raise Transient(
            f"{url.host} sent a reply packed as {encoding!r}, which was not asked for and is not read"
        )
    response.stream = _Bounded(response.stream, url.host, encoding, most)


def _redirected_to(url: Any, location: str) -> Any:
    """The address that a redirect names, which may be none."""
    try:
        there = url.join(location)
        there.host  # noqa: B018 - is decoded as it is looked at
    except (httpx2.InvalidURL, ValueError) as exc:
        raise Transient(
            f"{url.scheme}://{url.netloc.decode()} sends requests on to what is no address ({type(exc).__name__})"
        ) from exc
    return there


def _too_large(url: str, most: int) -> Transient:
    return Transient(f"{url} sent a reply of more than {most // 2**20:,} MiB, which is not read")


def fast_transport() -> bool:
    """Whether the SDKs' aiohttp transport is free: half the CPU time a call (docs/labelling.md)."""
    return find_spec("aiohttp") is not None


def http_client(sdk: Any, timeout: Any) -> Any:
    """The SDK's own HTTP client on the fastest transport that is installed."""
    kind = sdk.DefaultAioHttpClient if fast_transport() else sdk.DefaultAsyncHttpxClient
    headers = {"accept-encoding": "gzip, deflate"}
    return kind(timeout=timeout, headers=headers, event_hooks={"response": [_look]})
