"""A client that never ends its headers, or opens connections without end, holds nobody else up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send

from preceptor.serve.config import ServeLimits
from preceptor.serve.connections import with_limits
from preceptor.serve.running import bound

ASKED = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
SHORT_S = 0.2
LONG_S = 600.0


async def hello(scope: Scope, _: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


@asynccontextmanager
async def listening(limits: ServeLimits) -> AsyncIterator[int]:
    """The port of a server with these limits."""
    options = uvicorn.Config(hello, http=with_limits(limits), lifespan="off", log_config=None)
    server = uvicorn.Server(options)
    with bound("127.0.0.1", 0) as socket:
        socket.listen(64)  # so that who connects waits until it answers
        serving = asyncio.create_task(server.serve(sockets=[socket]))
        try:
            yield socket.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


class Connection:
    """One of a client's, by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def to(cls, port: int) -> Connection:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def status(self) -> int:
        """Of the next answer, which has a short body."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        self.body = await self._reader.readexactly(int(length.partition(b":")[2]))
        return int(head.split(b" ", 2)[1])

    async def rest(self) -> bytes:
        """What comes until the server closes."""
        return await self._reader.read()

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


def problem_in(body: bytes) -> Mapping[str, Any]:
    told: dict[str, Any] = json.loads(body)
    assert told["error"]["message"] == told["detail"]
    return told


async def test_headers_that_do_not_end_are_answered_and_closed() -> None:
    """Also on a connection that was good before; one on which nothing comes is closed without a word."""
    limits = ServeLimits(header_s=LONG_S)
    async with listening(limits) as port:
        slow = await Connection.to(port)
        for _ in range(3):
            slow.send(ASKED[:20])
            slow.send(ASKED[20:])
            assert await slow.status() == 200
        vars(limits)["header_s"] = SHORT_S  # from now on
        slow.send(ASKED[:-2] + b"X-Slow: ")
        assert await slow.status() == 408
        told = problem_in(slow.body)
        assert (told["status"], told["error"]["code"]) == (408, "too_slow")
        assert await slow.rest() == b""
        silent = await Connection.to(port)
        assert await silent.rest() == b""
        for one in (slow, silent):
            await one.close()


async def test_one_address_holds_so_many_connections_and_no_more() -> None:
    async with listening(ServeLimits(header_s=LONG_S, max_per_address=2)) as port:
        first, second, third = [await Connection.to(port) for _ in range(3)]
        for one in (first, second):
            one.send(ASKED)
            assert await one.status() == 200
        third.send(ASKED)
        assert await third.status() == 503
        assert problem_in(third.body)["error"]["code"] == "too_many_connections"
        assert await third.rest() == b""
        first.send(ASKED)  # those that it has go on
        assert await first.status() == 200
        for one in (first, third):
            await one.close()
        status = 503
        while status == 503:  # until the server has seen that they are closed
            fourth = await Connection.to(port)
            fourth.send(ASKED)
            status = await fourth.status()
            await fourth.close()
        assert status == 200
        await second.close()


async def test_without_a_limit_an_address_holds_as_many_as_it_likes() -> None:
    async with listening(ServeLimits(header_s=LONG_S, max_per_address=None)) as port:
        held = [await Connection.to(port) for _ in range(20)]
        for one in held:
            one.send(ASKED)
            assert await one.status() == 200
        for one in held:
            await one.close()
