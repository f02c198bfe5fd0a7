"""What an HTTP fault means."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from judge.errors import ProviderStopped, Rejected, Transient
from judge.models.faults import Fault, error_of, retry_after_s

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
    assert type(error_of(Fault("openai", "openai/m", status, "said"))) is Transient


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
    ],
)
def test_what_stops_the_run(status: int, message: str) -> None:
    assert isinstance(error_of(Fault("openai", "openai/m", status, message)), ProviderStopped)
