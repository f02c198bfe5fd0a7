"""What an HTTP fault means."""

from __future__ import annotations

from asyncio import CancelledError
from itertools import pairwise

import pytest

from preceptor.judge.errors import ProviderStopped, Rejected, Transient
from preceptor.judge.models.http.faults import (
    FaultContext,
    HttpFault,
    Throttled,
    TimedOut,
    Unreachable,
    error_of,
    fault_of,
    status_in,
    unreachable,
)


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_what_a_second_try_can_mend(status: int) -> None:
    error = error_of(HttpFault("openai", "openai/m", status, "said"))
    assert isinstance(error, Transient)
    assert isinstance(error, Throttled) is (status in (408, 429, 504, 529)), "fewer at once may help"


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_is_this_requests_own_fault(status: int) -> None:
    error = error_of(HttpFault("openai", "openai/m", status, "maximum context length is 8192 tokens"))
    assert isinstance(error, Rejected)
    assert not error.refused


def test_a_filters_refusal_is_told_from_a_fault() -> None:
    error = error_of(HttpFault("openai", "openai/m", 400, "said", "content_filter"))
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
    assert isinstance(error_of(HttpFault("openai", "openai/m", status, message)), ProviderStopped)


ASKED = FaultContext("openai", "openai/m", "A_KEY")


@pytest.mark.parametrize(
    ("message", "code", "headers"),
    [
        # an ordinary limit a minute whose words name the page about money, as three providers have it
        (
            "Limit of 3 reached on requests per min. Try again in 1s. See the billing page.",
            "rate_limit_exceeded",
            {},
        ),
        ("You exceeded your current quota, check your plan and billing. Please retry in 12.5s.", "", {}),
        ("Limit reached: 6000 tokens per minute. Upgrade your plan on the billing page.", "", {}),
        ("You exceeded your current quota.", "insufficient_quota", {"retry-after": "2"}),
        ("Please see billing.", "tokens", {}),
    ],
)
def test_a_limit_that_passes_is_no_empty_account(message: str, code: str, headers: dict[str, str]) -> None:
    for wrap in (lambda error: {"error": error}, lambda error: [{"error": error}]):
        fault = fault_of(ASKED, 429, wrap({"message": message, "code": code}), headers)
        assert isinstance(error_of(fault), Throttled), message


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": {"message": "no"}}, "no"),
        ({"error": "no"}, "no"),
        ([{"error": {"message": "no", "details": [{"retryDelay": "3s"}]}}], "no"),
        ({"object": "error", "message": "no"}, "no"),
        ({"detail": "no"}, "no"),
        ({"detail": [{"msg": "no", "loc": ["body"]}]}, "no"),
        ({"errors": [{"message": "no"}]}, "no"),
        ("no", "no"),
        (None, "no reason given"),
        ({}, "no reason given"),
    ],
)
def test_what_went_wrong_is_found_in_every_form(body: object, said: str) -> None:
    assert fault_of(ASKED, 400, body).message == said


@pytest.mark.parametrize(
    ("fault", "param"),
    [
        (
            {"loc": ["body", "messages", 0, "role"], "msg": "Input should be 'user' or 'assistant'"},
            "messages.0.role",
        ),
        ({"loc": ["body", "top_logprobs"], "msg": "Input should be less than or equal to 5"}, "top_logprobs"),
        ({"loc": ["query", "x"], "msg": "no"}, "query.x"),
        ({"loc": ["body"], "msg": "no"}, ""),
        ({"loc": None, "msg": "no"}, ""),
        ({"loc": ["body", "seed"], "param": "max_tokens", "msg": "no"}, "max_tokens"),
    ],
)
def test_the_place_that_fastapi_tells_is_the_parameter(fault: dict[str, object], param: str) -> None:
    assert fault_of(ASKED, 422, {"detail": [fault]}).param == param


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"code": 402, "message": "Insufficient credits"}, 402),
        ({"code": "429"}, 429),
        ({"type": "overloaded_error"}, 529),
        ({"type": "authentication_error"}, 401),
        ({"code": True}, 500),
        ({"code": "weather"}, 500),
        ("just words", 500),
    ],
)
def test_the_status_of_an_error_that_came_without_one(error: object, status: int) -> None:
    assert status_in({"error": error}) == status


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
        ((APITimeoutError(), ConnectTimeout(), TimeoutError()), TimedOut, "did not answer in time"),
        ((APITimeoutError(),), TimedOut, "did not answer in time"),
        ((TimeoutError(), CancelledError("deadline")), TimedOut, "did not answer in time"),
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
