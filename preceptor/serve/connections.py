"""Connections, before there is a request on them: how long headers may take, and how many one address may hold.

The application sees a request once its headers are whole. A client that never ends them, or opens connections without
end, is met here, and told so as by any other error.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from preceptor.serve import metrics
from preceptor.serve.config import ServeLimits
from preceptor.serve.problems import MEDIA_TYPE, Problem, body_of, unavailable

_UVICORNS: Any = AutoHTTPProtocol


def with_limits(limits: ServeLimits) -> type[asyncio.Protocol]:
    """uvicorn's protocol for HTTP/1.1, by which a slow or a greedy client does not hold connections of others."""
    there: Counter[str] = Counter()
    """Address -> connections that it holds."""

    class LimitedProtocol(_UVICORNS):  # type: ignore[misc]
        """One connection."""

        def connection_made(self, transport: asyncio.Transport) -> None:
            """As uvicorn's; the time for its first headers begins."""
            super().connection_made(transport)
            self._address = self.client[0] if self.client else ""
            there[self._address] += 1
            most = limits.max_per_address
            self._refused = most is not None and there[self._address] > most
            self._heard = False
            self._timer: asyncio.TimerHandle | None = None
            self._time_headers()

        def data_received(self, data: bytes) -> None:
            """As uvicorn's, where the address holds no more connections than it may."""
            self._heard = True
            if self._refused:
                said = f"more than {limits.max_per_address} connections of one address"
                self._end(unavailable("too_many_connections", said), "address")
                return
            super().data_received(data)
            answering = self.cycle is not None and not self.cycle.response_complete
            if answering:
                self._stop_timer()
            else:
                self._time_headers()

        def connection_lost(self, exc: Exception | None) -> None:
            """As uvicorn's."""
            self._stop_timer()
            there[self._address] -= 1
            if not there[self._address]:
                del there[self._address]
            super().connection_lost(exc)

        def _time_headers(self) -> None:
            if self._timer is None:
                self._timer = self.loop.call_later(limits.header_s, self._too_late)

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _too_late(self) -> None:
            if not self._heard:
                self.transport.close()  # it never asked for anything
                return
            said = f"the headers did not arrive in {limits.header_s:g} s"
            self._end(Problem(408, "too_slow", said), "headers")

        def _end(self, problem: Problem, why: str) -> None:
            if not self.transport.is_closing():
                metrics.CLOSED.labels(why).inc()
                self.transport.write(_written(problem))
                self.transport.close()

    return LimitedProtocol


def _written(problem: Problem) -> bytes:
    """A whole answer, for a connection on which there is no request."""
    body = json.dumps(body_of(problem, "")).encode()
    headers = {
        **problem.headers,
        "Content-Type": MEDIA_TYPE,
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    lines = [f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
