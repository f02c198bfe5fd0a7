"""`/v1/models` and `/v1/chat/completions`: models in this process, tuned ones among them, in OpenAI's words.

Requests that come together are answered together (`preceptor.judge.models.local`), and a reply does not depend on its
company in the batch.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Literal, NamedTuple, Self

from fastapi import APIRouter, Depends
from fastapi import Request as HttpRequest
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator

from preceptor.judge.errors import ModelError
from preceptor.judge.models.protocol import (
    Completion,
    Listener,
    Model,
    Request,
    WritesAloud,
    WrittenToken,
)
from preceptor.judge.models.registry import open_model
from preceptor.prompts.records import Message
from preceptor.serve.auth import Caller, require
from preceptor.serve.jobs.chat_reply import GrowingReply, ReplyPart, logprobs_of
from preceptor.serve.jobs.commands import MODEL_FOLDER, absolute, trained_by
from preceptor.serve.jobs.crew import Crew
from preceptor.serve.jobs.native import READ, AskedBy, Jobs, owner_of
from preceptor.serve.jobs.tuning import FAMILY, name_of
from preceptor.serve.problems import Problem, documented, error_of, problem_of
from preceptor.settings import in_this_process

router = APIRouter(tags=["chat"], responses=documented(404))
MOST_OPEN = 4
"""Models that are held in memory; the one that was asked longest ago makes room."""
DEFAULT_TOKENS = 512
"""Longest reply where the client says none."""
MOST_SAMPLES = 16
MOST_LOGPROBS = 20
"""Likely tokens that are told at a place, as with OpenAI."""


class ModelHouse:
    """The models of this process that have been asked for."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, Model] = OrderedDict()
        self._busy: dict[int, int] = {}
        """id of a model -> requests that it answers."""

    async def write(self, name: str, request: Request, listener: Listener | None) -> Completion:
        """The reply of one model, which is opened where it is not. Raises ModelError, and Problem for a listener where
        the model writes in silence."""
        model = await self._model(name)
        self._busy[id(model)] = self._busy.get(id(model), 0) + 1
        try:
            asked = request.model_copy(update={"endpoint": model.endpoint})
            if listener is None:
                return await model.complete(asked)
            if not isinstance(model, WritesAloud):
                said = f"{model.name} tells nothing of its tokens: leave out stream, stop and logprobs"
                raise Problem(400, "unsupported_parameter", said)
            return await model.write(asked, listener)
        finally:
            self._busy[id(model)] -= 1

    async def close(self) -> None:
        """Let go of all of them."""
        while self._open:
            _, model = self._open.popitem()
            await model.close()

    async def _model(self, name: str) -> Model:
        if name not in self._open:
            made = await asyncio.to_thread(open_model, name)
            if name in self._open:  # another request was quicker
                await made.close()
            else:
                self._open[name] = made
        self._open.move_to_end(name)
        for old in [one for one, model in self._open.items() if not self._busy.get(id(model))]:
            if len(self._open) <= MOST_OPEN or old == name:
                break
            await self._open.pop(old).close()
        return self._open[name]


def house_of(request: HttpRequest) -> ModelHouse:
    """The models of this server."""
    house: ModelHouse = request.app.state.house
    return house


class ChatPart(BaseModel):
    """A part of a message; texts alone are read."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """A turn of the conversation."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[ChatPart]
    name: str | None = None

    def told(self) -> Message:
        """As models here read it."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message(role="system" if self.role == "developer" else self.role, content=text)


class StreamOptions(BaseModel):
    """What a stream ends with."""

    include_usage: bool = False


class AskedChat(BaseModel):
    """The body of `POST /v1/chat/completions`. What is not served is refused, and nothing passed over."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(max_length=300)
    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, gt=0)
    max_completion_tokens: int | None = Field(default=None, gt=0)
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    n: int = Field(default=1, ge=1, le=MOST_SAMPLES)
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MOST_LOGPROBS)
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None

    @model_validator(mode="after")
    def _of_logprobs(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs: wanted logprobs: true beside it")
        return self


@router.get("/v1/models")
def models(crew: Jobs, asking: AskedBy) -> dict[str, Any]:
    """The configuration's models and those that were tuned here."""
    named = [
        {"id": name, "object": "model", "created": 0, "owned_by": "preceptor"} for name in crew.config.models
    ]
    tuned = [
        {
            "id": name_of(job),
            "object": "model",
            "created": int(job.finished_at or 0),
            "owned_by": job.owner or "preceptor",
        }
        for job in (crew.store.jobs(_reader(asking), FAMILY, 1000) if asking.may(READ) else ())
        if job.status == "succeeded"
    ]
    return {"object": "list", "data": [*named, *tuned]}


@router.get("/v1/models/{name:path}")
def model_of(crew: Jobs, asking: AskedBy, name: str) -> dict[str, Any]:
    """One of them."""
    found = next((one for one in models(crew, asking)["data"] if one["id"] == name), None)
    if found is None:
        raise Problem(404, "model_not_found", f"there is no model {name!r}")
    made: dict[str, Any] = found
    return made


def _reader(asking: Caller) -> str | None:
    return owner_of(asking, READ)


def place_of(crew: Crew, asking: Caller, name: str) -> str:
    """`provider/model` of a model of this process. Raises Problem."""
    if (entry := crew.config.models.get(name)) is not None:
        if not in_this_process(entry.model):
            said = f"{name!r} is behind an address; ask that server, or judge with it over /v1/judge"
            raise Problem(400, "unsupported_model", said)
        return absolute(entry.model)
    if (job := trained_by(crew.store, _reader(asking), name)) is not None:
        return f"hf/{crew.store.data / 'jobs' / job.id / MODEL_FOLDER}"
    there = ", ".join(crew.config.models) or "(there are none)"
    said = f"there is no model {name!r}; wanted one of {there}, or a model that was tuned here"
    raise Problem(404, "model_not_found", said)


@router.post("/v1/chat/completions", response_model=None)
async def chat(
    crew: Jobs, asking: AskedBy, body: AskedChat, house: Annotated[ModelHouse, Depends(house_of)]
) -> dict[str, Any] | StreamingResponse:
    """Replies of a model in this process."""
    require(asking, "judge")
    place = await asyncio.to_thread(place_of, crew, asking, body.model)
    if not body.stream:
        return await answered(house, place, body)
    events = _written(house, place, body)
    try:
        first = await anext(events)  # what is refused is refused with its status, before anything is sent
    except ModelError as error:
        raise _refused(error) from None
    return StreamingResponse(_stream(body, first, events), media_type="text/event-stream")


async def answered(house: ModelHouse, place: str, body: AskedChat) -> dict[str, Any]:
    """The completion of the model at this place. Raises Problem."""
    pieces: list[list[ReplyPart]] = [[] for _ in range(body.n)]
    ended: dict[int, _Ended] = {}
    try:
        async with aclosing(_written(house, place, body)) as events:
            async for number, event in events:
                if isinstance(event, _Ended):
                    ended[number] = event
                else:
                    pieces[number].append(event)
    except ModelError as error:
        raise _refused(error) from None
    choices = [
        {
            "index": number,
            "message": {
                "role": "assistant",
                "content": "".join(piece.text for piece in said),
                "refusal": None,
            },
            "finish_reason": ended[number].finish_reason,
            "logprobs": _logprobs(body, [token for piece in said for token in piece.tokens]),
        }
        for number, said in enumerate(pieces)
    ]
    return {
        **_shell(body),
        "object": "chat.completion",
        "choices": choices,
        "usage": _usage([ended[number].completion for number in range(body.n)]),
    }


class _Ended(NamedTuple):
    """The end of a reply."""

    completion: Completion
    finish_reason: Literal["stop", "length"]


_Event = tuple[int, ReplyPart | _Ended]
"""Which of the replies, and what has come of it."""


async def _written(house: ModelHouse, place: str, body: AskedChat) -> AsyncGenerator[_Event]:
    """The replies as they are written; each ends with `_Ended`. Raises ModelError and Problem.

    Once nobody takes what comes, the replies end with their next token.
    """
    seed = secrets.randbelow(2**31) if body.seed is None else body.seed
    stops = [body.stop] if isinstance(body.stop, str) else body.stop or []
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[_Event | Exception] = asyncio.Queue()
    gone = threading.Event()

    async def write(number: int) -> None:
        request = Request(
            model=place,
            messages=tuple(message.told() for message in body.messages),
            max_tokens=body.max_completion_tokens or body.max_tokens or DEFAULT_TOKENS,
            temperature=body.temperature,
            top_p=body.top_p,
            sample=number,
            seed=seed,
            stage="chat",
        )
        reply = GrowingReply(stops)

        def heard(token: WrittenToken) -> bool:
            """In the model's thread."""
            piece = reply.take(token)
            if gone.is_set():
                return False
            if piece is not None:
                loop.call_soon_threadsafe(events.put_nowait, (number, piece))
            return not reply.stopped

        wanted = body.stream or stops or body.logprobs
        listener = Listener(heard, (body.top_logprobs or 0) if body.logprobs else None) if wanted else None
        try:
            completion = await house.write(place, request, listener)
        except Exception as error:
            events.put_nowait(error)
            return
        events.put_nowait((number, reply.finish(completion)))
        stopped = reply.stopped or completion.finish_reason == "stop"
        events.put_nowait((number, _Ended(completion, "stop" if stopped else "length")))

    writing = [asyncio.create_task(write(number)) for number in range(body.n)]
    try:
        open_replies = body.n
        while open_replies:
            event = await events.get()
            if isinstance(event, Exception):
                raise event
            open_replies -= isinstance(event[1], _Ended)
            yield event
    finally:
        gone.set()
        for task in writing:
            task.cancel()
        await asyncio.wait(writing)


def _refused(error: ModelError) -> Problem:
    return Problem(400, "invalid_request", str(error))


def _shell(body: AskedChat) -> dict[str, Any]:
    return {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": body.model}


def _logprobs(body: AskedChat, tokens: Sequence[WrittenToken]) -> dict[str, Any] | None:
    return logprobs_of(tokens) if body.logprobs else None


def _usage(replies: Sequence[Completion]) -> dict[str, int]:
    read = replies[0].tokens_in  # the prompt is counted once, as OpenAI does
    wrote = sum(reply.tokens_out for reply in replies)
    return {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote}


async def _stream(body: AskedChat, first: _Event, rest: AsyncGenerator[_Event]) -> AsyncIterator[str]:
    """Chunks in OpenAI's shape, each as soon as it may be sent; an error that comes later is the last of them."""
    usage = body.stream_options is not None and body.stream_options.include_usage
    shell = {**_shell(body), "object": "chat.completion.chunk"}

    def chunk(number: int, delta: dict[str, Any], ended: str | None = None, **more: Any) -> str:
        choice = {"index": number, "delta": delta, "finish_reason": ended, "logprobs": None, **more}
        return _sent({**shell, "choices": [choice], **({"usage": None} if usage else {})})

    completions: dict[int, Completion] = {}
    for number in range(body.n):
        yield chunk(number, {"role": "assistant", "content": "", "refusal": None})
    try:
        async with aclosing(rest):
            event: _Event | None = first
            while event is not None:
                number, came = event
                if isinstance(came, _Ended):
                    completions[number] = came.completion
                    yield chunk(number, {}, came.finish_reason)
                elif came.text or came.tokens:
                    yield chunk(number, {"content": came.text}, logprobs=_logprobs(body, came.tokens))
                event = await anext(rest, None)
    except Exception as error:
        problem = _refused(error) if isinstance(error, ModelError) else problem_of(error)
        if problem is None:
            raise
        yield _sent({"error": error_of(problem)})
        return
    if usage:
        made = _usage([completions[number] for number in range(body.n)])
        yield _sent({**shell, "choices": [], "usage": made})
    yield "data: [DONE]\n\n"


def _sent(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"
