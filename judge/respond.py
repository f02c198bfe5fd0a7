"""Prompt -> Responses: several sampled replies of one model."""

from __future__ import annotations

from pydantic import Field

from preceptor.judge.models.protocol import Dialogue, Model, Request
from preceptor.judge.records import Response
from preceptor.judge.replies import read_reply
from preceptor.prompts.records import Message, Prompt, Record, content_id


class RespondSettings(Record):
    """How replies are sampled."""

    samples: int = Field(default=4, ge=1)
    max_tokens: int = Field(default=512, ge=1)
    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int = 0
    system: str = ""
    """System message for prompts that bring none of their own."""


def respond(prompt: Prompt, model: Model, settings: RespondSettings) -> Dialogue[tuple[Response, ...]]:
    """All samples for one prompt, in order; a sample without a usable reply keeps its place and says why."""
    messages = prompt.messages
    if settings.system and messages[0].role != "system":
        messages = (Message(role="system", content=settings.system), *messages)
    requests = tuple(
        Request(
            model=model.name,
            endpoint=model.endpoint,
            messages=messages,
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            sample=sample,
            seed=settings.seed,
            stage="respond",
        )
        for sample in range(settings.samples)
    )
    outcomes = yield requests
    responses = []
    for request, outcome in zip(requests, outcomes, strict=True):
        reply = read_reply(outcome)
        responses.append(
            Response(
                id=content_id("response", prompt.id, request.key),
                prompt=prompt,
                text=reply.text,
                model=model.name,
                sample=request.sample,
                status=reply.status,
                problem=reply.problem,
                call=request.key,
            )
        )
    return tuple(responses)
