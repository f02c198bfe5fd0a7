"""The provider that a seed plays: replies, refusals, silence, rate limits and a batch API, and its own bill.

Our real HTTP model and codec ask it; only the SDK's client is another. It outlives every process.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple

import httpx2
import openai

from preceptor.judge.asking.prices import Prices
from preceptor.judge.settings import Price
from tests.simulation import world as here
from tests.simulation.machine import Process

NAME = "openai/simulated"
PRICES = Prices.load({NAME: Price(input=100.0, output=200.0)})
BATCH_SHARE = 0.5
URL = "https://provider.test/v1/chat/completions"
TOKENS_IN = 5
MOST_TOKENS = 40


def text_of(question: str, turn: int = 0) -> str:
    """A good answer to a question: whoever asks again gets another, so that it shows which one is kept."""
    asked = f"{question} {turn}" if turn else question
    return f"answer {hashlib.sha256(asked.encode()).hexdigest()[:8]}"


def is_refused(question: str) -> bool:
    """Whether the provider's filter never lets it through."""
    return "forbidden" in question


def is_odd(question: str) -> bool:
    """Whether its first reply holds nothing."""
    return "odd" in question


class Reply(NamedTuple):
    """A reply of 200, as far as our model looks at it."""

    content: bytes
    headers: dict[str, str]


class Call:
    """A request that reached the provider, and what became of it."""

    def __init__(self, process: Process, question: str) -> None:
        self.process = process
        self.question = question
        self.usd = 0.0
        """On the provider's bill, if it was heard or its process was killed."""
        self.answered = False
        self.heard = False
        self.given_up = False
        """Whether nobody waited for it any more while nothing had befallen its process: it took too long."""
        self.again = False
        """Whether the reply holds nothing, so that a second one is asked for."""
        self.left_at = 0.0


class Batch:
    """A batch at the provider."""

    def __init__(self, number: int, token: str, lines: list[dict[str, Any]], made_at: float) -> None:
        self.id = f"batch_{number}"
        self.token = token
        self.lines = lines
        self.made_at = made_at
        self.ends_at = made_at
        self.listed_at = made_at
        self.status = "completed"
        self.code = ""
        self.results: list[str] = []
        self.usd: dict[str, float] = {}
        """By custom id, what is on the provider's bill."""


class Provider:
    """What stands behind the network."""

    def __init__(self, skew_s: float) -> None:
        self.skew_s = skew_s
        self.calls: list[Call] = []
        self.batches: dict[str, Batch] = {}
        self.files: dict[str, tuple[str, bytes]] = {}
        self.in_flight: dict[str, int] = {}
        self.most_in_flight: dict[str, int] = {}
        self.sent: dict[str, set[str]] = {}
        """By question, every text that was sent as an answer."""
        self.asked_at: dict[str, list[float]] = {}
        """By process, when its requests arrived."""
        self._asked: dict[str, int] = {}
        self._told: dict[str, int] = {}
        """By question, how many good answers there were."""
        self._window: list[float] = []

    def now_s(self) -> float:
        """Its own clock, seconds since 1970."""
        return here.EPOCH_S + here.world().machine.now_s + self.skew_s

    def answer(self, call: Call) -> Any:
        """What it sends back: a Reply, or the exception that the SDK makes of it; None: nothing, ever."""
        world = here.world()
        random = world.random
        question = call.question
        if is_refused(question):
            return refusal(400, "flagged by the content_filter", code="content_filter")
        limit = world.plan.provider_rpm
        now = world.machine.now_s
        if limit is not None:
            self._window = [at for at in self._window if at > now - 60]
            if len(self._window) >= limit:
                return refusal(429, "rate limit", {"retry-after": f"{self._window[0] + 60 - now + 0.01:.2f}"})
            self._window.append(now)
        match world.fault(
            ("busy", "held", "500", "529", "dropped", "unreached", "silent", "page", "broken", "cut", "key")
        ):
            case "busy":
                return refusal(429, "too many requests")
            case "held":
                return refusal(429, "slow down", {"retry-after": str(random.choice((0, 1, 7, 30)))})
            case "500":
                return refusal(500, "oops")
            case "529":
                return refusal(529, "overloaded")
            case "dropped":
                return dropped(ConnectionResetError("reset by peer"))
            case "unreached":
                return dropped(ConnectionRefusedError("refused"))
            case "silent":
                return None
            case "page":
                return Reply(b"<html>gateway</html>", {})
            case "broken":
                call.again = True
                call.usd, body = self._body(question, "")
                return Reply(json.dumps({"choices": 7, "usage": body["usage"]}).encode(), {})
            case "cut":
                call.again = True
                call.usd, body = self._body(question, text_of(question)[:6], "aborted")
                return Reply(json.dumps(body).encode(), {})
            case "key":
                return refusal(401, "no such key")
            case _:
                pass
        times = self._asked[question] = self._asked.get(question, 0) + 1
        call.again = is_odd(question) and times == 1
        text = "" if call.again else self._next_text(question)
        call.usd, body = self._body(question, text)
        return Reply(json.dumps(body).encode(), self._headers(limit))

    def _next_text(self, question: str) -> str:
        turn = self._told.get(question, 0)
        self._told[question] = turn + 1
        return text_of(question, turn)

    def _headers(self, limit: int | None) -> dict[str, str]:
        if limit is None or not here.world().plan.headers:
            return {}
        left = max(0, limit - len(self._window))
        full_s = 60.0 * len(self._window) / limit
        names = ("limit", "remaining", "reset")
        values = (str(limit), str(left), f"{full_s:.3f}s")
        return {f"x-ratelimit-{name}-requests": value for name, value in zip(names, values, strict=True)}

    def _body(self, question: str, text: str, finish: str = "stop") -> tuple[float, dict[str, Any]]:
        """(USD, body); what a reply costs differs from one to the next."""
        tokens = here.world().random.randint(1, MOST_TOKENS)
        self.sent.setdefault(question, set()).add(text)
        usage = {"prompt_tokens": TOKENS_IN, "completion_tokens": tokens}
        message = {"role": "assistant", "content": text}
        body = {"choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": usage}
        return (TOKENS_IN * 100.0 + tokens * 200.0) / 1e6, body

    def make_batch(self, token: str, file: bytes) -> Batch:
        """Take a batch in, and decide what will come of it."""
        world = here.world()
        random = world.random
        lines = [json.loads(line) for line in file.decode().splitlines()]
        made = Batch(len(self.batches), token, lines, self.now_s())
        made.listed_at = made.made_at + random.choice((0.0, 0.0, 3.0, 12.0))
        made.ends_at = made.made_at + random.choice((3.0, 30.0, 400.0))
        end = world.fault(("expired", "cancelled", "token_limit", "late"))
        if end == "token_limit":
            made.status, made.code = "failed", "token_limit_exceeded"
        else:
            made.status = end if end in ("expired", "cancelled") else "completed"
            for line in lines:
                self._carry_out(made, line)
            random.shuffle(made.results)
        self.batches[made.id] = made
        return made

    def _carry_out(self, batch: Batch, line: dict[str, Any]) -> None:
        world = here.world()
        name, question = line["custom_id"], line["body"]["messages"][-1]["content"]
        if batch.status != "completed" and world.random.random() < 0.5:
            return
        fault = world.fault(("500", "lost", "torn", "broken"))
        response: dict[str, Any]
        if is_refused(question):
            error = {"message": "flagged by the content_filter", "code": "content_filter"}
            response = {"status_code": 400, "body": {"error": error}}
        elif fault == "500":
            response = {"status_code": 500, "body": {"error": {"message": "oops"}}}
        elif fault == "lost":
            return
        else:
            usd, body = self._body(question, self._next_text(question))
            batch.usd[name] = usd * BATCH_SHARE
            if fault == "broken":
                body["choices"] = 7
            response = {"status_code": 200, "body": body}
        text = json.dumps({"custom_id": name, "response": response})
        if fault == "torn":
            batch.usd.pop(name, None)  # what nobody can read is not billed
            text = text[: len(text) // 2]
        batch.results.append(text)


def refusal(
    status: int, message: str, headers: dict[str, str] | None = None, code: str = ""
) -> openai.APIStatusError:
    """What the SDK raises for a status that is none of 2xx."""
    body = {"error": {"message": message, "code": code or None}}
    response = httpx2.Response(
        status,
        headers=headers or {},
        content=json.dumps(body).encode(),
        request=httpx2.Request("POST", URL),
    )
    kind = openai.NotFoundError if status == 404 else openai.APIStatusError
    return kind(message, response=response, body=body["error"])


def dropped(cause: Exception) -> openai.APIConnectionError:
    """What the SDK raises for a line that breaks."""
    error = openai.APIConnectionError(request=httpx2.Request("POST", URL))
    error.__cause__ = cause
    return error


class SimulatedClient:
    """The SDK's client, as far as our model and batches use it."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._world = here.world()
        self._provider = self._world.provider
        self.timeout = SimpleNamespace(read=self._world.plan.timeout_s, connect=5.0)
        self.files = _Files(self)
        self.batches = _Batches(self)

    async def post(self, url: str, *, cast_to: Any, body: dict[str, Any], options: Any) -> Reply:
        """One call."""
        call = Call(self._process, body["messages"][-1]["content"])
        flying = self._provider.in_flight
        name = self._process.name
        flying[name] = flying.get(name, 0) + 1
        most = self._provider.most_in_flight
        most[name] = max(most.get(name, 0), flying[name])
        try:
            reply = await self._there_and_back(call)
            call.heard = True
        finally:
            flying[name] -= 1
            call.given_up = not call.heard and not self._process.disturbed
        if isinstance(reply, BaseException):
            raise reply
        return reply  # type: ignore[no-any-return]

    async def get(self, address: str, *, cast_to: Any, options: Any) -> Reply:
        """Whether it is there."""
        await asyncio.sleep(self._world.network_s())
        if self._world.fault(("unreached",)):
            raise dropped(ConnectionRefusedError("refused"))
        return Reply(b"{}", {})

    async def close(self) -> None:
        """Nothing is held."""

    async def _there_and_back(self, call: Call) -> Any:
        world = self._world
        answered: asyncio.Future[Any] = self._process.loop.create_future()

        def arrive() -> None:
            if answered.cancelled():
                return
            call.left_at = world.machine.now_s
            self._provider.calls.append(call)
            self._provider.asked_at.setdefault(self._process.name, []).append(world.machine.now_s)
            world.outside("a request arrives", self._process)
            reply = self._provider.answer(call)
            if reply is not None:
                call.answered = True
                world.machine.after(world.model_s(), lambda: give(reply))

        def give(reply: Any) -> None:
            world.machine.wake(self._process, answered, _holder(reply))
            world.outside("a reply arrives", self._process)

        world.machine.after(world.network_s(), arrive)
        return (await answered).reply

    async def request(self, arrives: Any, upload_s: float | None = None) -> Any:
        """Have the provider do something; what it gives, or raises. It may be done, and the reply be lost. A request
        that is long in leaving never arrives where its process is killed meanwhile."""
        world = self._world
        answered: asyncio.Future[Any] = self._process.loop.create_future()

        def arrive() -> None:
            if upload_s is not None and not self._process.alive:
                return
            fault = world.fault(("500", "dropped", "lost"))
            world.outside("a batch request arrives", self._process)
            try:
                result = arrives() if fault in (None, "lost") else refusal(500, "oops")
            except openai.OpenAIError as exc:
                result = exc
            if fault in ("dropped", "lost"):
                result = dropped(ConnectionResetError("reset by peer"))
            world.machine.after(
                world.network_s(), lambda: world.machine.wake(self._process, answered, _holder(result))
            )

        world.machine.after(world.network_s() if upload_s is None else upload_s, arrive)
        result = (await answered).reply
        if isinstance(result, BaseException):
            raise result
        return result


def _holder(reply: Any) -> Any:
    return SimpleNamespace(reply=reply)


class _Files:
    """`client.files`."""

    def __init__(self, client: SimulatedClient) -> None:
        self._client = client
        self._world = here.world()
        self.with_streaming_response = self

    async def create(self, *, file: tuple[str, bytes], purpose: str, timeout: float) -> Any:
        files = self._world.provider.files

        def arrives() -> Any:
            name = f"file_{len(files)}"
            files[name] = file
            return SimpleNamespace(id=name)

        return await self._client.request(arrives, self._world.upload_s())

    async def list(self, *, purpose: str, limit: int) -> AsyncIterator[Any]:
        files = self._world.provider.files
        found = await self._client.request(
            lambda: [
                SimpleNamespace(id=key, filename=name, created_at=self._world.provider.now_s())
                for key, (name, _) in files.items()
            ]
        )
        for one in found:
            yield one

    async def delete(self, name: str) -> None:
        await self._client.request(lambda: self._world.provider.files.pop(name, None))

    @asynccontextmanager
    async def content(self, place: str, timeout: float) -> AsyncIterator[Any]:
        made = self._world.provider.batches[place.removeprefix("results_")]
        lines = await self._client.request(lambda: made.results)

        async def iter_bytes() -> AsyncIterator[bytes]:
            for line in lines:
                await asyncio.sleep(0.001)
                if self._world.fault(("dropped",)):
                    raise dropped(ConnectionResetError("reset by peer"))
                yield f"{line}\n".encode()

        yield SimpleNamespace(iter_bytes=iter_bytes)


class _Batches:
    """`client.batches`."""

    def __init__(self, client: SimulatedClient) -> None:
        self._client = client
        self._world = here.world()

    async def create(
        self, *, input_file_id: str, endpoint: str, completion_window: str, metadata: dict[str, str]
    ) -> Any:
        provider = self._world.provider

        def arrives() -> Any:
            made = provider.make_batch(metadata["preceptor_batch"], provider.files[input_file_id][1])
            return self._seen(made)

        return await self._client.request(arrives)

    async def retrieve(self, name: str) -> Any:
        return await self._client.request(lambda: self._seen(self._world.provider.batches[name]))

    async def list(self, *, limit: int) -> AsyncIterator[Any]:
        provider = self._world.provider
        made = await self._client.request(
            lambda: [
                self._seen(one)
                for one in reversed(provider.batches.values())
                if one.listed_at <= provider.now_s()
            ]
        )
        for one in made:
            yield one

    def _seen(self, made: Batch) -> Any:
        ended = self._world.provider.now_s() >= made.ends_at
        failed = [SimpleNamespace(message="too much waits", code=made.code)] if made.code else []
        count = len(made.lines)
        return SimpleNamespace(
            id=made.id,
            metadata={"preceptor_batch": made.token},
            created_at=int(made.made_at),
            request_counts=SimpleNamespace(total=count, completed=count if ended else 0, failed=0),
            status=made.status if ended else "in_progress",
            errors=SimpleNamespace(data=failed),
            output_file_id=f"results_{made.id}" if ended and not made.code else None,
            error_file_id=None,
        )
