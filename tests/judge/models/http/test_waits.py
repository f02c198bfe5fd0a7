"""Times that servers state: every form is read, and no nonsense reaches a sleep."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.judge.models.http.waits import LONGEST_S, Allowance, allowances, stated_s, wait_s

NOON = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("20ms", 0.02),
        ("1h2m3.5s", 3723.5),
        ("7.66s", 7.66),
        ("12", 12.0),
        ("2026-01-01T12:00:30Z", 30.0),
        ("2026-01-01T13:00:30+01:00", 30.0),
        ("2026-01-01T11:00:00Z", 0.0),
        ("", None),
        ("soon", None),
        ("1s later", None),
        ("Thu, 01 Jan 2026 12:00:30 GMT", 30.0),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0.0),
        (f"{NOON.timestamp() + 20:.0f}", 20.0),
        (f"{(NOON.timestamp() + 20) * 1000:.0f}", 20.0),
        (f"{NOON.timestamp() - 20:.0f}", 0.0),
        ("-1", 0.0),
        ("0", 0.0),
        ("500ms", 0.5),
        ("2 seconds", 2.0),
        ("nan", None),
        ("inf", None),
        ("-inf", None),
        ("1e300", None),
        ("999999", None),
        ("9" * 5000, None),
        ("9999-12-31T00:00:00Z", None),
        ("5 months", None),
        ("1m 5 s", 65.0),
        ("a" + "1" * 200_000, None),
        ("1s" * 100_000, None),
        (" " * 200_000 + "1s", None),
    ],
)
def test_the_forms_of_a_time(text: str, seconds: float | None) -> None:
    assert stated_s(text, NOON) == (None if seconds is None else pytest.approx(seconds))


def test_the_headers_of_both_providers() -> None:
    openai = {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "150000",
        "x-ratelimit-remaining-tokens": "149984",
        "x-ratelimit-reset-tokens": "6m0s",
        "x-request-id": "a",
    }
    assert allowances(openai, NOON) == {
        "requests": Allowance(60, 59, 1.0),
        "tokens": Allowance(150000, 149984, 360.0),
    }
    anthropic = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": "2026-01-01T12:00:01Z",
        "anthropic-ratelimit-input-tokens-limit": "1000",
        "anthropic-ratelimit-input-tokens-remaining": "0",
        "anthropic-ratelimit-input-tokens-reset": "2026-01-01T12:01:00Z",
        "anthropic-ratelimit-output-tokens-limit": "8000",
    }
    assert allowances(anthropic, NOON) == {
        "requests": Allowance(50, 49, 1.0),
        "input-tokens": Allowance(1000, 0, 60.0),
    }
    assert (
        allowances({"x-ratelimit-limit-requests": "many", "x-ratelimit-remaining-requests": "1"}, NOON) == {}
    )


@settings(deadline=None)
@given(
    st.text(max_size=30)
    | st.floats().map(str)
    | st.integers().map(str)
    | st.from_regex(r"-?[0-9]{1,20}(\.[0-9]{1,5})?(ms|s|m|h|d)?", fullmatch=True)
    | st.datetimes().map(datetime.isoformat)
)
def test_whatever_is_said_a_wait_is_finite_and_no_longer_than_a_window(text: str) -> None:
    headers = {f"x-ratelimit-{part}-requests": text for part in ("limit", "remaining", "reset")}
    found = [
        stated_s(text, NOON),
        wait_s({"retry-after": text}, {"retry_after": text}, f"try again in {text}", NOON),
    ]
    for allowance in allowances(headers, NOON).values():
        found.append(allowance.reset_s)
        assert 0 <= allowance.remaining <= allowance.limit < math.inf
    for seconds in found:
        assert seconds is None or 0 <= seconds <= LONGEST_S


@pytest.mark.parametrize(
    ("headers", "body", "message", "seconds"),
    [
        ({}, None, "", None),
        ({"retry-after": "3"}, None, "", 3.0),
        ({"retry-after": "0.25"}, None, "", 0.25),
        ({"retry-after-ms": "1500", "retry-after": "9"}, None, "", 1.5),
        ({"retry-after": "soon"}, None, "", None),
        ({}, None, "Rate limit reached. Please try again in 2s.", 2.0),
        ({}, None, "Please try again in 6m0.5s. Visit the docs.", 360.5),
        ({}, None, "try again in 873ms", 0.873),
        ({}, None, "Please retry after 26 seconds.", 26.0),
        ({}, None, "Please retry in 36.5s.", 36.5),
        ({}, None, "You can try again later.", None),
        ({}, None, "Try again in 1 hour 5 Minutes.", 3900.0),
        ({}, None, "Try again in 5 more seconds.", None),
        ({}, None, "try again in " + "1" * 200_000, None),
        ({}, None, "Use at most 5 messages", None),
        ({}, {"error": {"details": [{"@type": "x"}, {"retryDelay": "36s"}]}}, "", 36.0),
        ({}, {"error": {"retry_after": 4}}, "", 4.0),
        ({}, {"detail": {"retry_after_ms": 4000}}, "", 4.0),
        ({"retry-after": "1"}, {"retryDelay": "36s"}, "try again in 9s", 1.0),
    ],
)
def test_where_a_wait_is_said(
    headers: dict[str, str], body: object, message: str, seconds: float | None
) -> None:
    assert wait_s(headers, body, message, NOON) == seconds
