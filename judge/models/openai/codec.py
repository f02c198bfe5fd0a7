"""OpenAI's chat completions as bodies: request -> body, body -> Completion, faults -> our errors. No network.

The model and the batches stand on it alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import openai

from preceptor.judge.errors import ModelError, ProviderStopped, Rejected, Transient
from preceptor.judge.models.http.faults import Fault, broken_body, error_of, unreachable
from preceptor.judge.models.http.verdict_schema import verdict_schema
from preceptor.judge.models.learned import NOTHING, Learned, Lesson
from preceptor.judge.models.openai.provider import PROVIDER, hidden_tokens, reply_tokens
from preceptor.judge.models.protocol import Completion, FinishReason, ModelName, Request
from preceptor.judge.models.verdict_tokens import TokenChoice, verdict_probabilities

KEY = PROVIDER.key

ALTERNATIVES = 20
"""Most alternatives that the API gives at a token."""
OPTIONAL = (
    *("top_logprobs", "logprobs", "seed", "temperature", "top_p"),
    *("reasoning_effort", "max_tokens", "response_format"),
)
"""Parameters that some models or servers refuse, and without which the request still means something."""


class Refusal(NamedTuple):
    """What a 400 says about the body."""

    param: str | None
    message: str


def body_of(request: Request, learned: Learned = NOTHING) -> dict[str, Any]:
    """The request's parameters, but for those that the server is known to refuse. Seed and sample go in, so that two
    samples are two bodies."""
    body: dict[str, Any] = {
        "model": ModelName.of(request.model).model,
        "messages": [message.model_dump() for message in request.messages],
        "seed": (request.seed * 1_000_003 + request.sample) % 2**31,
    }
    if hidden := hidden_tokens(request):
        body |= {"max_completion_tokens": reply_tokens(request) + hidden, "reasoning_effort": "low"}
    else:
        body |= {"max_tokens": reply_tokens(request), "temperature": request.temperature}
        if request.top_p < 1:
            body["top_p"] = request.top_p
        if request.menu:
            body |= {"logprobs": True, "top_logprobs": ALTERNATIVES}
    if request.structured and request.menu:
        schema = {"name": "verdict", "strict": True, "schema": verdict_schema(request)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    refused = learned.refused | ({"top_logprobs"} if "logprobs" in learned.refused else set())
    kept = {name: value for name, value in body.items() if name not in refused}
    if "max_tokens" in body and "max_tokens" in refused:
        kept["max_completion_tokens"] = body["max_tokens"]
    return kept


def lesson(said: Refusal, body: Mapping[str, Any], learned: Learned) -> Lesson | None:
    """What is known of the server after it turned this body away; None: nothing that another body could mend."""
    for name in OPTIONAL:
        if name in body and (said.param == name or re.search(rf"\b{name}\b", said.message)):
            return learned.without(name)
    return None


def completion_of(answer: object, request: Request) -> Completion:
    """Raises Transient where the body has not the protocol's form; the SDK does not check it."""
    try:
        if not isinstance(answer, dict):  # the SDK hands plain text on where the body is not called JSON
            raise TypeError(f"not JSON but {type(answer).__name__}")
        choice = answer["choices"][0]
        message = choice["message"]
        usage = answer.get("usage") or {}
        details = usage.get("prompt_tokens_details") or {}
        return Completion(
            text=message.get("refusal") or message.get("content") or "",
            finish_reason=_finish(choice),
            probabilities=_probabilities(choice, request),
            served_by=answer.get("model") or "",
            tokens_in=usage.get("prompt_tokens") or 0,
            tokens_out=usage.get("completion_tokens") or 0,
            tokens_cached=details.get("cached_tokens") or 0,
        )
    except KeyError as exc:
        raise broken_body("openai", ValueError(f"it has no {exc}")) from exc
    except (AttributeError, IndexError, TypeError, ValueError) as exc:
        raise broken_body("openai", exc) from exc


def _finish(choice: Mapping[str, Any]) -> FinishReason:
    if choice["message"].get("refusal") or choice.get("finish_reason") == "content_filter":
        return "refused"
    return "length" if choice.get("finish_reason") == "length" else "stop"


def _probabilities(choice: Mapping[str, Any], request: Request) -> dict[str, float] | None:
    tokens_given = (choice.get("logprobs") or {}).get("content")
    if not request.menu or not tokens_given:
        return None
    tokens = [
        TokenChoice(
            token["token"],
            token["logprob"],
            tuple((top["token"], top["logprob"]) for top in token.get("top_logprobs") or ()),
        )
        for token in tokens_given
    ]
    return verdict_probabilities(tokens, request.menu)


def mapped(exc: Exception, model: str, address: str) -> ModelError:
    """Our error for any of the SDK's. model: as the user named it. address: where it was asked."""
    if isinstance(exc, openai.APIStatusError):
        said = exc.body.get("message") if isinstance(exc.body, dict) else None
        code = " ".join(filter(None, (exc.code, exc.type)))
        headers = exc.response.headers
        return error_of(Fault("openai", model, exc.status_code, str(said or exc.message), code, headers, KEY))
    if isinstance(exc, openai.APIConnectionError):
        return unreachable(address, exc)
    if isinstance(exc, openai.APIResponseValidationError | json.JSONDecodeError):
        return broken_body("openai", exc)
    if isinstance(exc, openai.APIError):
        return Transient(f"openai: {exc.message}")
    if isinstance(exc, openai.LengthFinishReasonError | openai.ContentFilterFinishReasonError):
        return Rejected(str(exc), refused=isinstance(exc, openai.ContentFilterFinishReasonError))
    return ProviderStopped(f"the openai client cannot send requests: {exc}")


@contextmanager
def faults(model: str, address: str) -> Iterator[None]:
    """Raise ours for any of the SDK's errors within."""
    try:
        yield
    except (openai.OpenAIError, json.JSONDecodeError) as exc:
        raise mapped(exc, model, address) from exc
