"""Anthropic's messages as bodies: request -> body, body -> Completion, faults -> our errors. No network.

The model and the batches stand on it alike. The API takes no seed: samples of one prompt are equal bodies. It gives no
token probabilities.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import anthropic

from preceptor.judge.errors import ModelError, ProviderStopped, Transient
from preceptor.judge.models import door
from preceptor.judge.models.anthropic.provider import PROVIDER, effort, hidden_tokens, off, samples
from preceptor.judge.models.door import Arrived, Counts
from preceptor.judge.models.http.faults import (
    FaultContext,
    HttpFault,
    error_of,
    fault_of,
    fault_of_answer,
    status_in,
    unreachable,
)
from preceptor.judge.models.http.verdict_schema import verdict_schema
from preceptor.judge.models.learned import NOTHING, Learned, RefusalLesson
from preceptor.judge.models.protocol import Completion, ModelName, Request

ERRORS: tuple[type[Exception], ...] = (anthropic.AnthropicError, json.JSONDecodeError)
OPTIONAL = ("output_config", "thinking", "top_p", "temperature")
"""Parameters that some models refuse and that a request can do without. Where a model names several at once, the first
is left out: without it the others may be taken."""
TOO_LONG = re.compile(r"prompt is too long|context window|context limit", re.IGNORECASE)


def asked_of(name: str) -> FaultContext:
    """What the message of a fault names."""
    return FaultContext("anthropic", name, PROVIDER.key)


def body_of(request: Request, learned: Learned = NOTHING) -> dict[str, Any]:
    """The request's parameters, but for those that the model is known to refuse."""
    messages = learned.messages(request)
    system = "\n\n".join(message.content for message in messages if message.role == "system")
    body: dict[str, Any] = {
        "model": ModelName.of(request.model).model,
        "max_tokens": request.max_tokens + hidden_tokens(request) + learned.hidden_tokens(request),
        "messages": [message.model_dump() for message in messages if message.role != "system"],
    }
    if samples(request):
        body["temperature"] = request.temperature
        if request.top_p < 1:
            body["top_p"] = request.top_p
    level = effort(request) or request.effort
    output: dict[str, Any] = {}
    if level == "none":
        body["thinking"] = {"type": off(request)}
    elif level:
        output["effort"] = level
    if system:
        # instructions and constitution are the same in every ask of a run: read from the cache at a tenth
        body["system"] = [{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}]
    if request.structured and request.menu:
        output["format"] = {"type": "json_schema", "schema": verdict_schema(request)}
    if output:
        body["output_config"] = output
    return {name: value for name, value in body.items() if name not in learned.refused}


def path_of(_body: Mapping[str, Any]) -> str:
    """Where a body is sent, behind the server's address."""
    return "/v1/messages"


def lesson(fault: HttpFault, body: Mapping[str, Any], learned: Learned) -> RefusalLesson | None:
    """What is known of the model after it turned this body away; None: nothing that another body could mend."""
    if fault.status == 404 or fault.status >= 500 or TOO_LONG.search(fault.message):
        return None
    for name in OPTIONAL:
        if name in body and re.search(rf"\b{name}\b", fault.message):
            return learned.without(name)
    return None


def completion_of(answer: object, request: Request, asked: FaultContext) -> Completion:
    """The completion in a body that came with a status of 200. Raises what an error inside it means, and Unreadable
    where it has not the protocol's form."""
    if not isinstance(answer, Mapping):
        raise door.unreadable("anthropic", f"not an object but {type(answer).__name__}", request)
    usage = answer.get("usage")
    counts = _counts(usage)
    blocks = answer.get("content")
    if answer.get("error") and not blocks:
        raise error_of(fault_of(asked, status_in(answer), answer))
    if not isinstance(blocks, Sequence):
        raise door.unreadable("anthropic", "it has no content", request, counts)
    with door.reading("anthropic", request, counts):
        arrived = Arrived(
            text=_joined(blocks, "text"),
            thoughts=_joined(blocks, "thinking"),
            finish=answer.get("stop_reason"),
            counts=counts,
            served_by=answer.get("model"),
            tier=usage.get("service_tier") if isinstance(usage, Mapping) else None,
        )
        return door.completion_of(arrived, request)


def _joined(blocks: Sequence[Any], kind: str) -> str:
    if isinstance(blocks, str):
        return blocks if kind == "text" else ""
    found = (one for one in blocks if isinstance(one, Mapping) and one.get("type") == kind)
    return "".join(door.texts_of(one.get(kind)) for one in found)


def _counts(usage: object) -> Counts:
    """The API counts what came from or went to the cache apart."""
    if not isinstance(usage, Mapping):
        return Counts()
    fresh, cached, written = (
        usage.get(name) for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    )
    known = type(fresh) is int and fresh >= 0
    parts = [part for part in (fresh, cached, written) if type(part) is int and part > 0]
    lifetimes = usage.get("cache_creation")
    hour = lifetimes.get("ephemeral_1h_input_tokens") if isinstance(lifetimes, Mapping) else None
    return Counts(sum(parts) if known else None, usage.get("output_tokens"), cached, written, hour)


def http_fault(exc: Exception, asked: FaultContext) -> HttpFault | None:
    """What the server said, where it is a status that the SDK raises; None: it said nothing."""
    if not isinstance(exc, anthropic.APIStatusError):
        return None
    return fault_of_answer(asked, exc.status_code, exc.response, str(exc.message))


def mapped(exc: Exception, asked: FaultContext, address: str) -> ModelError:
    """Our error for any of the SDK's. address: where it was asked."""
    if (fault := http_fault(exc, asked)) is not None:
        return error_of(fault)
    if isinstance(exc, anthropic.APIConnectionError):
        return unreachable(address, exc)
    if isinstance(exc, anthropic.APIResponseValidationError | json.JSONDecodeError):
        return Transient(f"anthropic answered with a broken body: {exc}")
    if isinstance(exc, anthropic.APIError | anthropic.RetryableError):
        return Transient(f"anthropic: {exc}")
    return ProviderStopped(f"the anthropic client cannot send requests: {exc}")


@contextmanager
def translated_errors(asked: FaultContext, address: str) -> Iterator[None]:
    """Raise our error for each that the SDK raises within the block, whether it has a type for it or not."""
    with door.asking(asked.provider):
        try:
            yield
        except ERRORS as exc:
            raise mapped(exc, asked, address) from exc
