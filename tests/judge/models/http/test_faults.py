"""What an HTTP fault means."""

from __future__ import annotations

from asyncio import CancelledError
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from preceptor.judge.errors import ProviderStopped, Rejected, Transient
from preceptor.judge.models.http.faults import (
    Crowded,
    Fault,
    Unreachable,
    error_of,
    retry_after_s,
    unreachable,
)

NOON = datetime(2025, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "-1"}, 0.0),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "Wed, 01 Jan 2025 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Wed, 01 Jan 2025 11:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], wait_s: float | None) -> None:
    assert retry_after_s(headers, NOON) == wait_s


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_what_a_second_try_can_mend(status: int) -> None:
    error = error_of(Fault("openai", "openai/m", status, "said"))
    assert isinstance(error, Transient)
    assert isinstance(error, Crowded) is (status in (408, 429, 504, 529)), "fewer at once may help"


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_is_this_requests_own_fault(status: int) -> None:
    error = error_of(Fault("openai", "openai/m", status, "maximum context length is 8192 tokens"))
    assert isinstance(error, Rejected)
    assert not error.refused


def test_a_filters_refusal_is_told_from_a_fault() -> None:
    error = error_of(Fault("openai", "openai/m", 400, "said", "content_filter"))
    assert isinstance(error, Rejected)
    assert error.refused


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "bad key"),
        (403, "no"),
        (404, "no such model"),
        (402, "pay"),
        (429, "insufficient_quota"),
        (400, "Your credit balance is"),
        (400, "API key not valid. Please pass a valid API key."),
        (400, "model_not_found: m"),
    ],
)
def test_what_stops_the_run(status: int, message: str) -> None:
    assert isinstance(error_of(Fault("openai", "openai/m", status, message)), ProviderStopped)


def _chained(*links: BaseException) -> BaseException:
    """Each the cause of the one before it."""
    for link, cause in pairwise(links):
        link.__cause__ = cause
    return links[0]


class APITimeoutError(Exception):
    """As the SDK names what its transport calls a timeout."""


class ConnectTimeout(Exception):
    """As aiohttp's bridge names every connection that failed."""


class ConnectError(Exception):
    """As the other SDK's bridge names it."""


class ServerDisconnectedError(Exception):
    """As aiohttp names a line that dropped."""


@pytest.mark.parametrize(
    ("links", "kind", "said"),
    [
        (
            (APITimeoutError(), ConnectTimeout(), ConnectionRefusedError(111, "refused")),
            Unreachable,
            "nothing answers",
        ),
        ((APITimeoutError(), ConnectTimeout(), ServerDisconnectedError("gone")), Transient, "broke: gone"),
        ((ConnectError(), ServerDisconnectedError("gone")), Transient, "broke: gone"),
        ((ConnectError(), OSError(113, "no route to host")), Unreachable, "nothing answers"),
        ((APITimeoutError(), ConnectTimeout(), TimeoutError()), Crowded, "did not answer in time"),
        ((APITimeoutError(),), Crowded, "did not answer in time"),
        ((TimeoutError(), CancelledError("deadline")), Crowded, "did not answer in time"),
        ((ConnectionResetError("reset"),), Transient, "broke: reset"),
    ],
)
def test_a_refused_connection_a_dropped_one_and_silence_are_told_apart(
    links: tuple[BaseException, ...], kind: type[Transient], said: str
) -> None:
    """By what lies beneath, because over aiohttp the SDKs call all of them a timeout."""
    error = unreachable("http://here", _chained(*links))
    assert type(error) is kind
    assert said in str(error)
