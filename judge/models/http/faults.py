"""What a provider's HTTP fault means for us: try again, give this request up, or stop the run."""

from __future__ import annotations

import json
import socket
from asyncio import CancelledError
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from preceptor.judge.errors import ModelError, ProviderStopped, Rejected, Transient

AGAIN = frozenset({408, 409, 425, 429})
"""Statuses below 500 that may succeed on a second try."""

CROWDED = frozenset({408, 429, 504, 529})
"""Statuses of a provider that has too much to do."""

QUOTA = ("insufficient_quota", "credit balance", "spend_limit", "spend limit", "billing")
"""Marks of an account that has run out: waiting does not help."""

KEYS = ("api_key_invalid", "api key not valid", "invalid_api_key", "invalid api key")
MODELS = ("model_not_found", "invalid_model", "unknown model", "no such model")
"""Marks of a key or model that nobody will serve, for servers that say 400 where others say 401 or 404."""

FILTER = ("content_filter", "content_policy", "content management policy", "moderation", "flagged")
"""Marks of a request that a filter declined."""


DROPPED = frozenset({"ServerDisconnectedError", "ClientOSError"})
"""aiohttp's names for a line that dropped, which one of the SDKs' bridges calls a failed connection."""


class Unreachable(Transient):
    """Nothing answers at the address: a server that is starting, or one that never will."""


class Crowded(Transient):
    """The provider has too much to do: a rate limit, an overload, no answer in time. Fewer at once may help."""


class Fault(NamedTuple):
    """A refused or failed HTTP request, in terms that all providers share."""

    provider: str
    """`openai` or `anthropic`."""
    model: str
    status: int
    message: str
    code: str = ""
    """The provider's own code or type for it."""
    headers: Mapping[str, str] = {}
    key_variable: str = ""
    """Environment variable that holds the key."""


def error_of(fault: Fault) -> ModelError:
    """The error to raise for a status that is not 2xx."""
    said = f"{fault.provider} answered {fault.status}: {fault.message}"
    marks = f"{fault.code} {fault.message}".lower()
    if fault.status == 402 or (fault.status in (400, 403, 429) and any(mark in marks for mark in QUOTA)):
        return ProviderStopped(
            f"{said}; the account's quota or credit is used up: add credit or raise the limit"
        )
    if fault.status in CROWDED:
        return Crowded(said, retry_after_s(fault.headers, datetime.now(UTC)))
    if fault.status in AGAIN or fault.status >= 500:
        return Transient(said, retry_after_s(fault.headers, datetime.now(UTC)))
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


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """The wait that a reply asks for: `retry-after-ms`, or `Retry-After` in seconds or as an HTTP date."""
    try:
        return max(0.0, float(headers["retry-after-ms"]) / 1000)
    except (KeyError, ValueError):
        pass
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds())


def unreachable(url: str, exc: BaseException) -> Transient:
    """A connection that failed: nobody listening and unknown hosts told apart from silence and from a line that
    dropped. The SDKs' own classes do not tell: over aiohttp one calls all three a timeout, the other all three a
    failure to connect."""
    chain: list[BaseException] = []
    link: BaseException | None = exc
    while link is not None and not isinstance(link, CancelledError):
        chain.append(link)
        link = link.__cause__ or link.__context__
    dropped = any(isinstance(link, ConnectionResetError) or type(link).__name__ in DROPPED for link in chain)
    if not dropped and (deaf := [link for link in chain if _deaf(link)]):
        return Unreachable(f"nothing answers at {url} ({deaf[-1]}); start the server or check --base-url")
    if any(isinstance(link, TimeoutError) for link in chain) or "Timeout" in type(chain[-1]).__name__:
        return Crowded(f"{url} did not answer in time")
    return Transient(f"the connection to {url} broke: {str(chain[-1]) or type(chain[-1]).__name__}")


def _deaf(reason: BaseException) -> bool:
    """Whether no connection came about at all. The SDKs' HTTP library is theirs: its error is known by
    name."""
    return (
        isinstance(reason, ConnectionRefusedError | socket.gaierror)
        or type(reason).__name__ == "ConnectError"
    )


def broken_body(provider: str, exc: BaseException) -> Transient:
    """An answer that is no answer: a body that is not JSON, or not of the form that the protocol has."""
    why = f"not JSON ({exc})" if isinstance(exc, json.JSONDecodeError) else str(exc)
    return Transient(f"{provider} answered with a broken body: {why}")
