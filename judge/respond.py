"""Prompt -> Responses: several sampled replies of one model."""

from __future__ import annotations

from preceptor.judge.models.protocol import Dialogue, Model, Request
from preceptor.judge.records import Response
from preceptor.judge.replies import read_reply
from preceptor.judge.settings import RespondSettings
from preceptor.prompts.records import Message, Prompt, content_id


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
            effort=settings.effort or "",
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
                thoughts=reply.thoughts,
                model=model.name,
                sample=request.sample,
                status=reply.status,
                problem=reply.problem,
                call=request.key,
            )
        )
    return tuple(responses)
