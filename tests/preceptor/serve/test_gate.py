"""What every request passes: bodies that come slowly, and requests of one key at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from fastapi import Request as HttpRequest
from starlette.types import Message

from preceptor.serve import problems
from preceptor.serve.auth import Caller, Doorkeeper, caller
from preceptor.serve.config import ServeLimits
from preceptor.serve.gate import Gate
from preceptor.serve.keys import Keyring


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[Keyring]:
    made = Keyring(f"sqlite:///{tmp_path / 'keys.db'}")
    yield made
    made.close()


def application(keys: Keyring, held: asyncio.Event, limits: ServeLimits) -> Gate:
    """Its one route answers once `held` is set; another takes a file."""
    app = FastAPI()
    app.state.doorkeeper = Doorkeeper(keys, open_without_keys=True, max_per_key=limits.max_per_key)
    problems.install(app)

    @app.get("/wait")
    async def wait(_: Annotated[Caller, Depends(caller)]) -> str:
        await held.wait()
        return "done"

    @app.post("/v1/files")
    async def take(request: HttpRequest) -> int:
        return sum([len(part) async for part in request.stream()])

    return Gate(app, limits, ("here",))


async def test_a_key_asks_so_many_at_once_and_again_once_they_are_answered(keys: Keyring) -> None:
    held = asyncio.Event()
    gate = application(keys, held, ServeLimits(max_per_key=2))
    one, other = (keys.create(name, ["reward"])[1] for name in ("one", "other"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(gate), base_url="http://here") as client:

        def ask(key: str) -> asyncio.Task[httpx.Response]:
            return asyncio.create_task(client.get("/wait", headers={"Authorization": f"Bearer {key}"}))

        waiting = [ask(one), ask(one)]
        refused = await ask(one)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "too_many_requests"
        assert refused.headers["retry-after"] == "1"
        waiting.append(ask(other))
        held.set()
        answered = [await one for one in waiting]
        assert [answer.status_code for answer in answered] == [200] * len(waiting)
        wrong = [await ask("pcp_no_key") for _ in range(5)]
        assert {answer.status_code for answer in wrong} == {401}
        assert (await ask(one)).status_code == 200


@pytest.mark.parametrize("path", ["/v1/files", "/wait"])
async def test_a_body_that_does_not_come_is_given_up(keys: Keyring, path: str) -> None:
    gate = application(keys, asyncio.Event(), ServeLimits(body_s=0.05))
    parts: list[Message] = [{"type": "http.request", "body": b"{", "more_body": True}]
    sent: list[Message] = []

    async def receive() -> Message:
        if parts:
            return parts.pop()
        return await asyncio.Future[Any]()

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", b"here")]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
    await gate({**scope, "raw_path": path.encode(), "root_path": ""}, receive, send)
    assert sent[0]["status"] == 408
    assert b'"too_slow"' in sent[1]["body"]
