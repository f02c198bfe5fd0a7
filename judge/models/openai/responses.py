"""OpenAI's Responses API in the terms of its chat completions: a body of the one as a body of the other, and back.

It is used for what Chat Completions cannot do: levels of effort that only it takes (`effort.Profile`), and models of
which their server says so (`Learned.responses`). Nothing is kept at the provider.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from preceptor.judge.models import door

PATH = "/responses"
LIMIT = "max_output_tokens"
LEAST_TOKENS = 16
"""The API takes no lower limit for a reply."""
WANTED = re.compile(r"/responses\b|\bresponses[ -](?:api|endpoint)\b", re.IGNORECASE)
"""What a server names where it turns away a chat that only this API can do: "This model is only supported in
v1/responses and not in v1/chat/completions"."""
NAMES = {
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
    "logprobs": "include",
    "max_tokens": LIMIT,
}
"""Parameters of a chat that are called otherwise here."""


def body_of(chat: Mapping[str, Any]) -> dict[str, Any]:
    """The body for this body of a chat. There is no seed."""
    body: dict[str, Any] = {"model": chat["model"], "input": chat["messages"], "store": False}
    for name in ("temperature", "top_p", "top_logprobs", "service_tier"):
        if name in chat:
            body[name] = chat[name]
    limit = chat.get("max_completion_tokens", chat.get("max_tokens"))
    if limit is not None:
        body[LIMIT] = max(LEAST_TOKENS, limit)
    if "reasoning_effort" in chat:
        body["reasoning"] = {"effort": chat["reasoning_effort"]}
    if chat.get("logprobs"):
        body["include"] = ["message.output_text.logprobs"]
    if "response_format" in chat:
        body["text"] = {"format": {"type": "json_schema", **chat["response_format"]["json_schema"]}}
    return body


def is_body(body: Mapping[str, Any]) -> bool:
    """Whether a body is one of this API."""
    return "input" in body


def is_answer(answer: Mapping[str, Any]) -> bool:
    """Whether an answer is one of this API."""
    return answer.get("object") == "response" or ("output" in answer and "choices" not in answer)


def chat_of(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The answer as a chat's, without choices where it has no output."""
    output = answer.get("output")
    chat = {name: answer[name] for name in ("model", "service_tier", "error") if name in answer}
    chat["usage"] = _usage(answer.get("usage"))
    if not isinstance(output, Sequence) or isinstance(output, str) or (answer.get("error") and not output):
        return chat
    items = [item for item in output if isinstance(item, Mapping)]
    parts = [
        part
        for item in items
        if item.get("type") == "message"
        for part in _listed(item.get("content"))
        if isinstance(part, Mapping)
    ]
    thoughts = [
        door.texts_of(item.get("content")) or door.texts_of(item.get("summary"))
        for item in items
        if item.get("type") == "reasoning"
    ]
    tokens = [
        one for part in parts if part.get("type") == "output_text" for one in _listed(part.get("logprobs"))
    ]
    message = {
        "content": "".join(door.texts_of(part) for part in parts if part.get("type") == "output_text"),
        "reasoning": "\n\n".join(filter(None, thoughts)),
        "refusal": "".join(
            door.texts_of(part.get("refusal")) for part in parts if part.get("type") == "refusal"
        ),
    }
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": _finish(answer),
        "logprobs": {"content": tokens},
    }
    return {**chat, "choices": [choice]}


def _finish(answer: Mapping[str, Any]) -> object:
    """Why it ended, where it did not come to its end, else its status."""
    details = answer.get("incomplete_details")
    why = details.get("reason") if isinstance(details, Mapping) else None
    return why or answer.get("status")


def _usage(usage: object) -> dict[str, Any] | None:
    if not isinstance(usage, Mapping):
        return None
    return {
        "prompt_tokens": usage.get("input_tokens"),
        "completion_tokens": usage.get("output_tokens"),
        "total_tokens": usage.get("total_tokens"),
        "prompt_tokens_details": usage.get("input_tokens_details"),
        "completion_tokens_details": usage.get("output_tokens_details"),
    }


def _listed(value: object) -> Sequence[Any]:
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()
