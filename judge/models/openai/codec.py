"""OpenAI's chat completions as bodies: request -> body, body -> Completion, faults -> our errors. No network.

The model and the batches stand on it alike.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import openai

from preceptor.judge.errors import ModelError, ProviderStopped, Rejected, Transient
from preceptor.judge.models import door
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
from preceptor.judge.models.openai import responses
from preceptor.judge.models.openai.provider import (
    PROVIDER,
    by_responses,
    effort,
    hidden_tokens,
    reply_tokens,
)
from preceptor.judge.models.protocol import Completion, ModelName, Request
from preceptor.judge.models.verdict_tokens import TokenChoice

ERRORS: tuple[type[Exception], ...] = (openai.OpenAIError, json.JSONDecodeError)

OPTIONAL = (
    *("top_logprobs", "logprobs", "seed", "temperature", "top_p"),
    *("reasoning_effort", "max_tokens", "response_format"),
)
"""Parameters that some models or servers refuse, and without which the request still means something."""
NO_SYSTEM = re.compile(
    r"\bsystem\b[^.]{0,40}\b(?:role|message|prompt|instruction)s?\b[^.]{0,40}\bnot\b|\bnot\b[^.]{0,60}\bsystem\b"
    r"|\bdeveloper instruction|\broles? must alternate|\bunsupported (?:message )?role\b|\bunknown role\b",
    re.IGNORECASE,
)
"""What servers say of a message in the system's role where a model's template has no place for one."""
TOO_LONG = re.compile(
    r"context[_ ]length|context window|too many tokens|maximum (?:context|prompt|input)", re.IGNORECASE
)
"""A fault of this request, which may name parameters by the way."""
LIMITED = re.compile(
    r"\b(?:at most|up to|max(?:imum)?|limit|less|greater|more|larger|above|exceeds?|between|range)\b|[<>≤]",
    re.IGNORECASE,
)
"""What servers say where they give alternatives to a token, but not so many."""
PLAIN_NUMBER = re.compile(r"(?<![\w.-])\d{1,3}(?![\w.]*\d)")
"""A number that is no part of a word or of a version."""
THOUGHTS = ("reasoning_content", "reasoning", "thinking", "thoughts")
"""Fields in which servers hand on what the model thought, in the order in which they are looked for."""
THINKING_PARTS = frozenset({"thinking", "reasoning", "thought", "reasoning_text"})


def asked_of(name: str) -> FaultContext:
    """What a fault's words need."""
    return FaultContext("openai", name, PROVIDER.key)


def body_of(request: Request, learned: Learned = NOTHING) -> dict[str, Any]:
    """The request's parameters, but for those that the server is known to refuse: a chat's, or those of the Responses
    API where a chat cannot do it. Seed and sample go into a chat's, so that two samples are two bodies."""
    room = reply_tokens(request) + hidden_tokens(request) + learned.hidden_tokens(request)
    body: dict[str, Any] = {
        "model": ModelName.of(request.model).model,
        "messages": [message.model_dump() for message in learned.messages(request)],
        "seed": (request.seed * 1_000_003 + request.sample) % 2**31,
    }
    level = effort(request)
    limit = "max_tokens" if level is None else "max_completion_tokens"
    body[limit] = room
    if level or request.effort:
        body["reasoning_effort"] = level or request.effort
    if level in (None, "none"):
        # token probabilities and sampling go with no thoughts alone
        body["temperature"] = request.temperature
        if request.top_p < 1:
            body["top_p"] = request.top_p
        if request.menu:
            body |= {"logprobs": True, "top_logprobs": learned.alternatives}
    if request.structured and request.menu:
        schema = {"name": "verdict", "strict": True, "schema": verdict_schema(request)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    refused = learned.refused | ({"top_logprobs"} if "logprobs" in learned.refused else set())
    kept = {name: value for name, value in body.items() if name not in refused}
    if "max_tokens" in body and "max_tokens" in refused:
        kept["max_completion_tokens"] = body["max_tokens"]
    return responses.body_of(kept) if learned.responses or by_responses(request) else kept


def path_of(body: Mapping[str, Any]) -> str:
    """Where a body is sent, behind the server's address."""
    return responses.PATH if responses.is_body(body) else "/chat/completions"


def lesson(fault: HttpFault, body: Mapping[str, Any], learned: Learned) -> RefusalLesson | None:
    """What is known of the server after it turned this body away; None: nothing that another body could mend."""
    if TOO_LONG.search(fault.message):
        return None
    other = responses.is_body(body)
    if not other and fault.status < 500 and responses.WANTED.search(fault.message):
        change = "chat completions for it, which is asked through the Responses API"
        return RefusalLesson(learned._replace(responses=True), change)
    if fault.status == 404:
        return None
    roles = {message["role"] for message in (body["input"] if other else body["messages"])}
    about_roles = fault.param.endswith("role") or NO_SYSTEM.search(fault.message)
    if "system" in roles and not learned.no_system and about_roles:
        return RefusalLesson(
            learned._replace(no_system=True), "the system's role, whose words go to the user's"
        )
    if fault.status >= 500:
        return None
    for name in OPTIONAL:
        here = responses.NAMES.get(name, name) if other else name
        if here == responses.LIMIT:
            continue  # a reply without a bound is not asked for
        top = here.partition(".")[0]
        if top in body and (
            fault.param in (here, top) or re.search(rf"\b{re.escape(here)}\b", fault.message)
        ):
            fewer = _allowed(fault.message, body) if "logprobs" in name else None
            if fewer is not None:
                return RefusalLesson(
                    learned._replace(alternatives=fewer), f"top_logprobs above {fewer}, which is asked for"
                )
            return learned.without(name)
    return None


def _allowed(message: str, body: Mapping[str, Any]) -> int | None:
    """How many alternatives a message says that there are at most; None: it does not say."""
    if not LIMITED.search(message):  # a number in it is some model's version
        return None
    numbers = [int(found) for found in PLAIN_NUMBER.findall(message)]
    asked = body.get("top_logprobs", 0)
    return max((number for number in numbers if 0 < number < asked), default=None)


def completion_of(answer: object, request: Request, asked: FaultContext) -> Completion:
    """The completion in a body that came with a status of 200. Raises what an error inside it means, and Unreadable
    where it has not the protocol's form."""
    answer = answer[0] if isinstance(answer, list) and len(answer) == 1 else answer
    if not isinstance(answer, Mapping):
        raise door.unreadable("openai", f"not an object but {type(answer).__name__}", request)
    if responses.is_answer(answer):
        answer = responses.chat_of(answer)
    counts = _counts(answer.get("usage"))
    choice = _choice(answer.get("choices"))
    error = answer.get("error") or (choice or {}).get("error")
    message = _message(choice) if choice is not None else None
    if error and not (message and door.texts_of(message.get("content"))):
        told = {"error": error}
        raise error_of(fault_of(asked, status_in(told), told))
    if choice is None and (answer.get("object") == "error" or answer.get("errors") or answer.get("detail")):
        raise error_of(fault_of(asked, status_in(answer), answer))
    if choice is None or message is None:
        raise door.unreadable("openai", "it has no choices with a message", request, counts)
    with door.reading("openai", request, counts):
        return door.completion_of(_arrived(choice, message, answer, counts), request)


def _choice(choices: object) -> Mapping[str, Any] | None:
    """The one that was asked for, where several came."""
    if not isinstance(choices, Sequence) or isinstance(choices, str):
        return None
    found = [choice for choice in choices if isinstance(choice, Mapping)]
    return next((choice for choice in found if choice.get("index") == 0), found[0] if found else None)


def _message(choice: Mapping[str, Any]) -> Mapping[str, Any] | None:
    message = choice.get("message")
    if isinstance(message, Mapping):
        return message
    return {"content": choice["text"]} if isinstance(choice.get("text"), str) else None


def _arrived(
    choice: Mapping[str, Any], message: Mapping[str, Any], answer: Mapping[str, Any], counts: Counts
) -> Arrived:
    text, thoughts = _parted(message.get("content"))
    given = next((found for name in THOUGHTS if (found := door.texts_of(message.get(name)))), "")
    return Arrived(
        text=text,
        thoughts="\n\n".join(filter(None, (given, thoughts))),
        refusal=door.texts_of(message.get("refusal")),
        finish=choice.get("finish_reason"),
        counts=counts,
        served_by=answer.get("model"),
        tier=answer.get("service_tier"),
        tokens=_tokens(choice.get("logprobs")),
    )


def _parted(content: object) -> tuple[str, str]:
    """(text, thoughts) of a content that may be a list of parts."""
    if not isinstance(content, Sequence) or isinstance(content, str):
        return door.texts_of(content), ""
    text, thoughts = [], []
    for one in content:
        kind = one.get("type") if isinstance(one, Mapping) else "text"
        if kind in THINKING_PARTS:
            thoughts.append(door.texts_of(one.get(kind) or one.get("text")))
        elif kind in ("text", "output_text", None):
            text.append(door.texts_of(one))
    return "".join(text), "\n\n".join(filter(None, thoughts))


def _counts(usage: object) -> Counts:
    if not isinstance(usage, Mapping):
        return Counts()
    details = usage.get("prompt_tokens_details")
    details = details if isinstance(details, Mapping) else {}
    cached = details.get("cached_tokens")
    if cached is None:
        cached = usage.get("prompt_cache_hit_tokens")  # DeepSeek's
    read, wrote, total = (usage.get(f"{name}_tokens") for name in ("prompt", "completion", "total"))
    written = usage.get("completion_tokens_details")
    thought = written.get("reasoning_tokens") if isinstance(written, Mapping) else None
    if (
        type(total) is int  # no bool
        and type(read) is int
        and type(wrote) is int
        and read > 0
        and (wrote > 0 or thought)
    ):
        wrote = max(wrote, total - read)  # Gemini counts what was thought in the total alone
    # cache writes: for half an hour; the longer lifetime is asked for, and never by us
    return Counts(read, wrote, cached, details.get("cache_write_tokens"))


def _tokens(logprobs: object) -> list[TokenChoice] | None:
    """The reply's tokens; None where a part of them is not what it should be."""
    given = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    try:
        return [
            TokenChoice(
                *_token(one), tuple(_token(top) for top in one.get("top_logprobs") or () if _token(top)[0])
            )
            for one in given or ()
        ] or None
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
        return None


def _token(one: Mapping[str, Any]) -> tuple[str, float]:
    token, logprob = one["token"], float(one["logprob"])
    if not isinstance(token, str) or math.isnan(logprob) or logprob > 1e-3:
        raise ValueError(f"{token!r} with {logprob}")
    return token, logprob


def http_fault(exc: Exception, asked: FaultContext) -> HttpFault | None:
    """What the server said, where it is a status that the SDK raises; None: it said nothing."""
    if not isinstance(exc, openai.APIStatusError):
        return None
    return fault_of_answer(asked, exc.status_code, exc.response, str(exc.message))


def mapped(exc: Exception, asked: FaultContext, address: str) -> ModelError:
    """Our error for any of the SDK's. address: where it was asked."""
    if (fault := http_fault(exc, asked)) is not None:
        return error_of(fault)
    if isinstance(exc, openai.APIConnectionError):
        return unreachable(address, exc)
    if isinstance(exc, openai.APIResponseValidationError | json.JSONDecodeError):
        return Transient(f"openai answered with a broken body: {exc}")
    if isinstance(exc, openai.APIError):
        return Transient(f"openai: {exc.message}")
    if isinstance(exc, openai.LengthFinishReasonError | openai.ContentFilterFinishReasonError):
        return Rejected(str(exc), refused=isinstance(exc, openai.ContentFilterFinishReasonError))
    return ProviderStopped(f"the openai client cannot send requests: {exc}")


@contextmanager
def translated_errors(asked: FaultContext, address: str) -> Iterator[None]:
    """Raise our error for each that the SDK raises within the block, whether it has a type for it or not."""
    with door.asking(asked.provider):
        try:
            yield
        except ERRORS as exc:
            raise mapped(exc, asked, address) from exc
