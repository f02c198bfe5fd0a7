"""What every request passes before anything looks at it: Host, size, nesting, time; and what is written of it after.

Nothing that a client sent, no key and no prompt, is written to the log or becomes a label of a metric: only the
method, the route's own pattern, the status, sizes and times.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from preceptor.serve import metrics
from preceptor.serve.config import ServeLimits
from preceptor.serve.problems import Problem, answer, unavailable

MIB = 2**20
UPLOAD_BYTES_S = 16_000
"""Bytes of a file that are to arrive in a second, once its first minute is over."""
UPLOADS = ("/v1/files", "/files")
"""Paths whose bodies are files, which are not read here: whoever takes them streams them, under the larger limit."""
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{]|[\]}]', re.DOTALL)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
access = logging.getLogger("preceptor.serve.access")


class Gate:
    """An ASGI application around another."""

    def __init__(self, app: ASGIApp, limits: ServeLimits, hosts: Sequence[str]) -> None:
        """hosts: the names, without ports, by which this server may be called; `*` among them: by any."""
        self._app = app
        self._limits = limits
        self._hosts = frozenset(host.lower() for host in hosts)
        self._there = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request = Request(scope)
        given = request.headers.get("x-request-id", "")
        identity = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = identity
        status = 500

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", []),
                    (b"x-request-id", identity.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"cache-control", b"no-store"),
                ]
            await send(message)

        self._there += 1
        try:
            try:
                inner = await self._let_in(request, receive)
            except Problem as problem:
                await answer(problem, request)(scope, receive, sent)
            else:
                await self._app(scope, inner, sent)
        finally:
            self._there -= 1
            if (leave := scope["state"].pop("leave", None)) is not None:
                leave()
            took_s = time.perf_counter() - started
            # the pattern of the route, not the path: a path may hold what a client chose
            route = getattr(scope.get("route"), "path", "none")
            metrics.REQUESTS.labels(route, str(status)).inc()
            metrics.LATENCY.labels(route).observe(took_s)
            fields = {
                "request": identity,
                "method": request.method if request.method in METHODS else "other",
                "route": route,
                "status": status,
                "ms": round(took_s * 1000, 1),
                "key": getattr(scope["state"].get("caller"), "key", ""),
            }
            access.info("request", extra={"fields": fields})

    async def _let_in(self, request: Request, receive: Receive) -> Receive:
        """Where the body is read from. Raises Problem."""
        if self._there > self._limits.max_connections:
            raise unavailable("overloaded", "more requests are being answered than this server takes")
        if "*" not in self._hosts and _host_of(request.headers.get("host", "")) not in self._hosts:
            raise Problem(
                421, "unknown_host", "this server does not go by that name; its `hosts` may list further ones"
            )
        if request.url.path.startswith(UPLOADS):
            return _counted(receive, round(self._limits.max_file_mb * MIB), self._limits.body_s)
        body = await self._body(request, receive)
        if _depth(body, self._limits.max_nesting) > self._limits.max_nesting:
            raise Problem(400, "too_nested", f"JSON may be {self._limits.max_nesting} deep here")
        return _replayed(body, receive)

    async def _body(self, request: Request, receive: Receive) -> bytes:
        most = round(self._limits.max_body_mb * MIB)
        told = request.headers.get("content-length", "0")
        if told.isdecimal() and int(told) > most:
            raise _too_large(most)
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._limits.body_s):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise Problem(400, "cut_short", "the connection ended before the body did")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise _too_large(most)
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            raise _too_slow(self._limits.body_s) from None


METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _too_large(most: int) -> Problem:
    return Problem(413, "too_large", f"the body may have {most} bytes here")


def _host_of(header: str) -> str:
    """The name in a Host header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()


def _depth(body: bytes, most: int) -> int:
    """How deep brackets are nested outside of strings; looking ends past `most`."""
    depth = deepest = 0
    for token in _TOKEN.finditer(body):
        first = token.group()[:1]
        if first in b"[{":
            depth += 1
            deepest = max(deepest, depth)
            if deepest > most:
                break
        elif first in b"]}":
            depth -= 1
    return deepest


def _replayed(body: bytes, receive: Receive) -> Receive:
    waiting = True

    async def inner() -> Message:
        nonlocal waiting
        if waiting:
            waiting = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return inner


def _too_slow(most_s: float) -> Problem:
    return Problem(408, "too_slow", f"the body did not arrive in {most_s:g} s")


def _counted(receive: Receive, most: int, body_s: float) -> Receive:
    """The parts of a file, as long as they are not too many and do not come too slowly."""
    size = 0
    started: float | None = None

    async def inner() -> Message:
        nonlocal size, started
        now = asyncio.get_running_loop().time()
        started = now if started is None else started
        allowed_s = body_s + size / UPLOAD_BYTES_S
        try:
            async with asyncio.timeout(started + allowed_s - now):
                message: dict[str, Any] = dict(await receive())
        except TimeoutError:
            raise _too_slow(allowed_s) from None
        size += len(message.get("body", b""))
        if size > most:
            raise _too_large(most)
        return message

    return inner
