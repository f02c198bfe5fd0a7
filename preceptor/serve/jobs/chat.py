"""`/v1/models` and `/v1/chat/completions`: models in this process, tuned ones among them, in OpenAI's words.

Requests that come together are answered together (`preceptor.judge.models.local`), and a reply does not depend on its
company in the batch.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends
from fastapi import Request as HttpRequest
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from preceptor.judge.errors import ModelError
from preceptor.judge.models.protocol import Completion, Model, Request
from preceptor.judge.models.registry import open_model
from preceptor.prompts.records import Message
from preceptor.serve.auth import Caller, require
from preceptor.serve.jobs.commands import MODEL_FOLDER, absolute, trained_by
from preceptor.serve.jobs.crew import Crew
from preceptor.serve.jobs.native import READ, AskedBy, Jobs, owner_of
from preceptor.serve.jobs.tuning import FAMILY, name_of
from preceptor.serve.problems import Problem, documented
from preceptor.settings import in_this_process

router = APIRouter(tags=["chat"], responses=documented(404))
MOST_OPEN = 4
"""Models that are held in memory; the one that was asked longest ago makes room."""
DEFAULT_TOKENS = 512
"""Longest reply where the client says none."""
MOST_SAMPLES = 16


class ModelHouse:
    """The models of this process that have been asked for."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, Model] = OrderedDict()
        self._busy: dict[int, int] = {}
        """id of a model -> requests that it answers."""

    async def complete(self, name: str, requests: Sequence[Request]) -> list[Completion]:
        """The replies of one model, which is opened where it is not. Raises ModelError."""
        model = await self._model(name)
        self._busy[id(model)] = self._busy.get(id(model), 0) + 1
        try:
            endpoint = model.endpoint
            asked = [request.model_copy(update={"endpoint": endpoint}) for request in requests]
            return list(await asyncio.gather(*(model.complete(request) for request in asked)))
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
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None


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
    made = await answered(house, place, body)
    if body.stream:
        usage = body.stream_options is not None and body.stream_options.include_usage
        return StreamingResponse(_stream(made, usage), media_type="text/event-stream")
    return made


async def answered(house: ModelHouse, place: str, body: AskedChat) -> dict[str, Any]:
    """The completion of the model at this place. Raises Problem."""
    seed = secrets.randbelow(2**31) if body.seed is None else body.seed
    asked = [
        Request(
            model=place,
            messages=tuple(message.told() for message in body.messages),
            max_tokens=body.max_completion_tokens or body.max_tokens or DEFAULT_TOKENS,
            temperature=body.temperature,
            top_p=body.top_p,
            sample=number,
            seed=seed,
            stage="chat",
        )
        for number in range(body.n)
    ]
    try:
        replies = await house.complete(place, asked)
    except ModelError as error:
        raise Problem(400, "invalid_request", str(error)) from None
    stops = [body.stop] if isinstance(body.stop, str) else body.stop or []
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body.model,
        "choices": [_choice(number, reply, stops) for number, reply in enumerate(replies)],
        "usage": _usage(replies),
    }


def _choice(number: int, reply: Completion, stops: Sequence[str]) -> dict[str, Any]:
    places = [place for stop in stops if stop and (place := reply.text.find(stop)) >= 0]
    text = reply.text[: min(places)] if places else reply.text
    ended = "stop" if places or reply.finish_reason == "stop" else "length"
    return {
        "index": number,
        "message": {"role": "assistant", "content": text, "refusal": None},
        "finish_reason": ended,
        "logprobs": None,
    }


def _usage(replies: Sequence[Completion]) -> dict[str, int]:
    read = replies[0].tokens_in  # the prompt is counted once, as OpenAI does
    wrote = sum(reply.tokens_out for reply in replies)
    return {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote}


async def _stream(made: dict[str, Any], usage: bool) -> AsyncIterator[str]:
    """Each reply in one piece, as it was written together with others; then how it ended."""
    shell = {name: made[name] for name in ("id", "created", "model")}

    def sent(choice: list[dict[str, Any]], **more: Any) -> str:
        chunk = {**shell, "object": "chat.completion.chunk", "choices": choice, **more}
        return f"data: {json.dumps(chunk)}\n\n"

    for choice in made["choices"]:
        said = {"role": "assistant", "content": choice["message"]["content"]}
        yield sent([{"index": choice["index"], "delta": said, "finish_reason": None}])
        yield sent([{"index": choice["index"], "delta": {}, "finish_reason": choice["finish_reason"]}])
    if usage:
        yield sent([], usage=made["usage"])
    yield "data: [DONE]\n\n"
