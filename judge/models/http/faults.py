"""What a provider's HTTP fault means for us: try again, give this request up, or stop the run."""

from __future__ import annotations

import json
import re
import socket
from asyncio import CancelledError
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from preceptor.judge.errors import ModelError, ProviderStopped, Rejected, Transient
from preceptor.judge.models.door import json_of, sound
from preceptor.judge.models.http.waits import wait_s

MOST_WORDS = 500
"""Characters of a message that are shown."""
MESSAGES = ("message", "msg", "error_msg", "error_message", "detail", "title")
"""Fields that hold it."""

AGAIN = frozenset({408, 409, 425, 429})
"""Statuses below 500 that may succeed on a second try."""

CROWDED = frozenset({408, 429, 498, 504, 529})
"""Statuses of a provider that has too much to do; 498 is Groq's, of its flex tier."""

STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "billing_error": 402,
    "insufficient_credits": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The HTTP status of an error with this code or type, where it stands alone: in a batch, or inside a 200."""

QUOTA_CODES = frozenset(
    {
        "insufficient_quota",
        "billing_error",
        "insufficient_credits",
        "billing_hard_limit_reached",
        "billing_not_active",
    }
    | {"credit_balance_too_low", "spend_limit_reached", "quota_exceeded_permanently", "budget_exceeded"}
)
"""Codes of an account that has run out: waiting does not help."""
LIMIT_CODES = frozenset(
    {"rate_limit_exceeded", "rate_limit_error", "rate_limited", "too_many_requests", "requests", "tokens"}
    | {"ratelimitreached", "overloaded_error", "model_overloaded", "throttling", "slow_down"}
)
"""Codes of a limit that the next minute lifts."""
LIMIT_WORDS = re.compile(
    r"\bper[ _-]?(?:min(?:ute)?|sec(?:ond)?)\b|/ ?min\b|\b[rt]pm\b|\brate.?limit|\btoo many requests\b|\boverloaded\b"
)
QUOTA_WORDS = re.compile(
    r"\bcredit balance\b|\bspend(?:ing)? limit\b|\bquota exceeded\b"
    r"|\b(?:exceeded|used up) (?:your|the)(?: current)? quota\b"
    r"|\binsufficient[ _](?:credits?|funds|balance|quota)\b|\bout of credits?\b|\bbilling\b"
)
"""What messages say where no code tells. A limit that passes beats a page about billing, which many messages name."""
SHORT_WAIT_S = 120.0
"""A wait up to here says that waiting helps, whatever else is said."""

KEYS = ("api_key_invalid", "api key not valid", "invalid_api_key", "invalid api key")
MODELS = ("model_not_found", "invalid_model", "unknown model", "no such model")
"""Marks of a key or model that nobody will serve, for servers that say 400 where others say 401 or 404."""

FILTER = ("content_filter", "content_policy", "content management policy", "moderation", "flagged")
"""Marks of a request that a filter declined."""


DROPPED = frozenset({"ServerDisconnectedError", "ClientOSError"})
"""aiohttp's names for a line that dropped, which one of the SDKs' bridges calls a failed connection."""


class Unreachable(Transient):
    """Nothing answers at the address: a server that is starting, or one that never will."""


class Throttled(Transient):
    """The provider has too much to do: a rate limit, an overload, no answer in time. Fewer at once may help."""


class TimedOut(Throttled):
    """No answer in time."""


class HttpFault(NamedTuple):
    """A refused or failed HTTP request, in terms that all providers share."""

    provider: str
    """`openai` or `anthropic`."""
    model: str
    status: int
    message: str
    code: str = ""
    """The provider's own codes and types for it, apart by blanks."""
    headers: Mapping[str, str] = {}
    key_variable: str = ""
    """Environment variable that holds the key."""
    param: str = ""
    """The parameter that it is about, where it says so."""
    body: object = None
    """All that was said."""


class FaultContext(NamedTuple):
    """Of whom an answer was wanted: what a fault's words need."""

    provider: str
    model: str
    key_variable: str


def fault_of(
    asked: FaultContext, status: int, body: object, headers: Mapping[str, str] | None = None
) -> HttpFault:
    """What a body says went wrong, in any of the forms that servers have: an `error` object or text, a list of them,
    FastAPI's `detail`, or just text."""
    error = _error_in(body)
    if isinstance(error, Mapping):
        said = next((error[name] for name in MESSAGES if error.get(name)), "")
        codes = [error.get(name) for name in ("code", "type", "status")]
        nested = error.get("error")
        if not said and isinstance(nested, str):
            said = nested
        param = error.get("param") or _place(error.get("loc"))
    else:
        said, codes, param = error, [], None
    message = said if isinstance(said, str) else json.dumps(said, default=str) if said else ""
    message = sound(" ".join(message.split()))[:MOST_WORDS] or "no reason given"
    code = " ".join(sound(one) for one in codes if isinstance(one, str))
    return HttpFault(
        asked.provider,
        asked.model,
        status,
        message,
        code,
        headers or {},
        asked.key_variable,
        param if isinstance(param, str) else "",
        body,
    )


def _place(loc: object) -> str:
    """The parameter that one of FastAPI's faults is about: `messages.0.role` of ("body", "messages", 0, "role")."""
    parts = [str(part) for part in loc] if isinstance(loc, list | tuple) else []
    return ".".join(parts[1:] if parts[:1] == ["body"] else parts)


class Answer(Protocol):
    """An HTTP response, as both SDKs' errors carry it."""

    @property
    def content(self) -> bytes: ...
    @property
    def text(self) -> str: ...
    @property
    def headers(self) -> Mapping[str, str]: ...


def fault_of_answer(asked: FaultContext, status: int, answer: Answer, otherwise: str) -> HttpFault:
    """What a response that is not 2xx says. otherwise: the words where it has no body."""
    try:
        body = json_of(answer.content)
    except ValueError:
        body = answer.text
    return fault_of(asked, status, body or otherwise, answer.headers)


def status_in(body: object, otherwise: int = 500) -> int:
    """The HTTP status that an error's own fields say, where it came without one."""
    error = _error_in(body)
    if not isinstance(error, Mapping):
        return otherwise
    for name in ("code", "status", "status_code", "http_status", "type"):
        value = error.get(name)
        if isinstance(value, str) and value.isdecimal():
            value = int(value[:4])
        if isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600:
            return value
        if isinstance(value, str) and value.lower() in STATUSES:
            return STATUSES[value.lower()]
    return otherwise


def _error_in(body: object) -> object:
    """The part of a body that says what is wrong."""
    if isinstance(body, list) and body:
        return _error_in(body[0])
    if isinstance(body, Mapping):
        for name in ("error", "detail", "errors"):
            if body.get(name):
                found = body[name]
                return _error_in(found) if isinstance(found, list) else found
    return body


def error_of(fault: HttpFault) -> ModelError:
    """The error to raise for a status that is not 2xx. Codes go before prose, and a short wait before both."""
    said = f"{fault.provider} answered {fault.status}: {fault.message}"
    codes = {code.lower() for code in fault.code.split()}
    words = fault.message.lower()
    marks = f"{fault.code.lower()} {words}"
    asked_s = wait_s(fault.headers, fault.body, fault.message, datetime.now(UTC))
    if _used_up(fault.status, codes, words, asked_s):
        return ProviderStopped(
            f"{said}; the account's quota or credit is used up: add credit or raise the limit"
        )
    if (
        fault.status in CROWDED or fault.status == 402
    ):  # money that calls in flight hold is free when they end
        return Throttled(said, asked_s)
    if fault.status in AGAIN or fault.status >= 500:
        return Transient(said, asked_s)
    if fault.status in (400, 403) and any(mark in marks for mark in FILTER):
        return Rejected(said, refused=True)
    if fault.status == 401 or (fault.status in (400, 403) and any(mark in marks for mark in KEYS)):
        return ProviderStopped(f"{said}; the key was not accepted: set {fault.key_variable} to a valid one")
    if fault.status == 403 and not any(mark in marks for mark in MODELS):
        return ProviderStopped(f"{said}; the key in {fault.key_variable} may not use {fault.model}")
    if fault.status == 404 or (fault.status in (400, 403) and any(mark in marks for mark in MODELS)):
        return ProviderStopped(
            f"{said}; there is no model {fault.model} at this address: check its name and --base-url"
        )
    return Rejected(said)


def _used_up(status: int, codes: set[str], words: str, asked_s: float | None) -> bool:
    """Whether an account has run out, so that no request can succeed until somebody pays."""
    if status in (402, 429) and asked_s is not None and asked_s <= SHORT_WAIT_S:
        return False
    if status == 402:
        return True
    if status not in (400, 403, 429):
        return False
    if codes & QUOTA_CODES:
        return True
    if codes & LIMIT_CODES or (status == 429 and LIMIT_WORDS.search(words)):
        return False
    found = QUOTA_WORDS.search(words)
    # a 400 quotes what was sent
    return found is not None and not (status == 400 and found[0] == "billing")


def unreachable(url: str, exc: BaseException) -> ModelError:
    """A connection that failed: nobody listening and unknown hosts told apart from silence and from a line that
    dropped. The SDKs' own classes do not tell: over aiohttp one calls all three a timeout, the other all three a
    failure to connect."""
    chain: list[BaseException] = []
    link: BaseException | None = exc
    while link is not None and not isinstance(link, CancelledError):
        chain.append(link)
        link = link.__cause__ or link.__context__
    for link in chain:
        if isinstance(link, ModelError):  # the transport's own, which the SDK has wrapped
            return link
    dropped = any(isinstance(link, ConnectionResetError) or type(link).__name__ in DROPPED for link in chain)
    if not dropped and (unreached := [link for link in chain if _unreached(link)]):
        return Unreachable(
            f"nothing answers at {url} ({unreached[-1]}); start the server or check --base-url"
        )
    if any(isinstance(link, TimeoutError) for link in chain) or "Timeout" in type(chain[-1]).__name__:
        return TimedOut(f"{url} did not answer in time")
    return Transient(f"the connection to {url} broke: {str(chain[-1]) or type(chain[-1]).__name__}")


def _unreached(reason: BaseException) -> bool:
    """Whether no connection came about at all. The SDKs' HTTP library is theirs: its error is known by
    name."""
    return (
        isinstance(reason, ConnectionRefusedError | socket.gaierror)
        or type(reason).__name__ == "ConnectError"
    )
