"""Anthropic's messages as bodies: request -> body, body -> Completion, faults -> our errors. No network.

The model and the batches stand on it alike. The API takes no seed: samples of one prompt are equal bodies. It gives no
token probabilities.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import anthropic

from preceptor.judge.errors import ModelError, ProviderStopped, Transient
from preceptor.judge.models.anthropic.provider import PROVIDER
from preceptor.judge.models.http.faults import Fault, broken_body, error_of, unreachable
from preceptor.judge.models.http.verdict_schema import verdict_schema
from preceptor.judge.models.learned import NOTHING, Learned, Lesson
from preceptor.judge.models.protocol import Completion, FinishReason, ModelName, Request

KEY = PROVIDER.key

FINISHES: dict[str, FinishReason] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refused",
}
OPTIONAL = ("output_config", "top_p", "temperature")
"""Parameters that some models refuse, and without which the request still means something. Where several are named
together one of them may still stay: the first is left out."""


def body_of(request: Request, learned: Learned = NOTHING) -> dict[str, Any]:
    """The request's parameters, but for those that the model is known to refuse."""
    system = "\n\n".join(message.content for message in request.messages if message.role == "system")
    body: dict[str, Any] = {
        "model": ModelName.of(request.model).model,
        "max_tokens": request.max_tokens,
        "messages": [message.model_dump() for message in request.messages if message.role != "system"],
        "temperature": request.temperature,
    }
    if system:
        # instructions and constitution are the same in every ask of a run: read from the cache at a tenth
        body["system"] = [{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}]
    if request.top_p < 1:
        body["top_p"] = request.top_p
    if request.structured and request.menu:
        body["output_config"] = {"format": {"type": "json_schema", "schema": verdict_schema(request)}}
    return {name: value for name, value in body.items() if name not in learned.refused}


def lesson(said: str, body: Mapping[str, Any], learned: Learned) -> Lesson | None:
    """What is known of the model after it turned this body away in these words; None: nothing that another body could
    mend."""
    for name in OPTIONAL:
        if name in body and re.search(rf"\b{name}\b", said):
            return learned.without(name)
    return None


def completion_of(answer: object) -> Completion:
    """Raises Transient where the body has not the protocol's form."""
    try:
        if not isinstance(answer, dict):
            raise TypeError(f"not JSON but {type(answer).__name__}")
        usage = answer.get("usage") or {}
        cached = usage.get("cache_read_input_tokens") or 0
        written = usage.get("cache_creation_input_tokens") or 0
        return Completion(
            text="".join(block["text"] for block in answer["content"] if block["type"] == "text"),
            finish_reason=FINISHES.get(answer.get("stop_reason") or "", "stop"),
            served_by=answer.get("model") or "",
            # the API counts what came from or went to the cache apart
            tokens_in=(usage.get("input_tokens") or 0) + cached + written,
            tokens_out=usage.get("output_tokens") or 0,
            tokens_cached=cached,
            tokens_cache_written=written,
        )
    except KeyError as exc:
        raise broken_body("anthropic", ValueError(f"it has no {exc}")) from exc
    except (AttributeError, TypeError, ValueError) as exc:
        raise broken_body("anthropic", exc) from exc


def mapped(exc: Exception, model: str, address: str) -> ModelError:
    """Our error for any of the SDK's. model: as the user named it. address: where it was asked."""
    if isinstance(exc, anthropic.APIStatusError):
        code = " ".join(filter(None, (exc.type, exc.error_code)))
        said = exc.api_message or exc.message
        return error_of(Fault("anthropic", model, exc.status_code, said, code, exc.response.headers, KEY))
    if isinstance(exc, anthropic.APIConnectionError):
        return unreachable(address, exc)
    if isinstance(exc, anthropic.APIResponseValidationError | json.JSONDecodeError):
        return broken_body("anthropic", exc)
    if isinstance(exc, anthropic.APIError | anthropic.RetryableError):
        return Transient(f"anthropic: {exc}")
    return ProviderStopped(f"the anthropic client cannot send requests: {exc}")


@contextmanager
def faults(model: str, address: str) -> Iterator[None]:
    """Raise ours for any of the SDK's errors within."""
    try:
        yield
    except (anthropic.AnthropicError, json.JSONDecodeError) as exc:
        raise mapped(exc, model, address) from exc
