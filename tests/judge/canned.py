"""A judge that is not there: dialogues driven by hand, and the rows that they need."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from preceptor.constitution.principle import Constitution, Principle
from preceptor.judge.models.protocol import Capabilities, Completion, Dialogue, Outcome, Request
from preceptor.judge.records import Pair, Response
from preceptor.prompts.records import Message, Prompt

Row = TypeVar("Row")

KIND = Principle(
    id="kind", text="Choose the kind reply.", critique="Say where it is unkind.", revision="Be kind."
)
TRUE = Principle(id="true", text="Choose the true reply.", critique="Say where it is false.", weight=2)
SHORT = Principle(id="short", text="Choose the short reply.", check={"max_words": 3}, weight=4)
BOTH = Constitution(name="both", principles=(KIND, TRUE))
WITH_CHECK = Constitution(name="with-check", principles=(KIND, TRUE, SHORT))


class Absent:
    """Satisfies the Model protocol as far as stages look at it."""

    name = "scripted/none"
    endpoint = ""
    dialect = ""
    capabilities = Capabilities()

    async def complete(self, request: Request) -> Completion:
        raise AssertionError(f"a stage asked by itself: {request.stage}")

    async def close(self) -> None:
        return None


def drive(dialogue: Dialogue[Row], answer: Callable[[Request], Outcome]) -> tuple[Row, list[Request]]:
    """The row that a dialogue makes of these answers, and what it asked."""
    asked: list[Request] = []
    outcomes: tuple[Outcome, ...] | None = None
    try:
        while True:
            requests = next(dialogue) if outcomes is None else dialogue.send(outcomes)
            asked += requests
            outcomes = tuple(answer(request) for request in requests)
    except StopIteration as end:
        return end.value, asked


def says(text: str, **fields: object) -> Completion:
    return Completion.model_validate({"text": text, "finish_reason": "stop", **fields})


def prompt(*tags: str, text: str = "How are you?") -> Prompt:
    return Prompt(id="prompt-1", messages=(Message(role="user", content=text),), tags=tags)


def pair(a: str = "Fine, thank you.", b: str = "None of your business at all.", *tags: str) -> Pair:
    return Pair(id="pair-1", prompt=prompt(*tags), response_a=a, response_b=b)


def response(text: str = "Go away.", **fields: object) -> Response:
    values = {"id": "response-1", "prompt": prompt(), "text": text, "model": "m", "sample": 0, "status": "ok"}
    return Response.model_validate({**values, "call": "0", **fields})


def first_shown(request: Request) -> str:
    """The reply that a compare request shows first."""
    user = request.messages[-1].content
    return user.split("<<<REPLY_A")[1].split(">>>\n", 1)[1].split("\n<<<END_REPLY_A")[0]
