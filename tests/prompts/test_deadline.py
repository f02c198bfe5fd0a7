"""A time limit holds in any thread, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import sys
import threading

import pytest

from preceptor.prompts.deadline import within

pytestmark = pytest.mark.skipif(sys.gettrace() is not None, reason="a tracer swallows the interruption")


def forever() -> None:
    while True:
        try:
            sum(range(100))
        except Exception:  # as a program does that wants to go on whatever happens
            continue


def test_what_ends_in_time_is_handed_on() -> None:
    assert within(60, lambda: 3) == 3
    with pytest.raises(KeyError, match="mine"):
        within(60, lambda: {}["mine"])


def test_what_does_not_end_is_stopped() -> None:
    with pytest.raises(TimeoutError, match=r"it takes longer than 0.05 s"):
        within(0.05, forever)


def test_in_another_thread_too() -> None:
    said: list[str] = []

    def run() -> None:
        try:
            within(0.05, forever)
        except TimeoutError as exc:
            said.append(str(exc))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert said == ["it takes longer than 0.05 s"]


def test_a_limit_that_ends_with_the_work_interrupts_nobody_later() -> None:
    """Whichever of the two was first, the caller gets one of the two outcomes and nothing afterwards."""
    for _ in range(300):
        with contextlib.suppress(TimeoutError):
            assert within(0.0005, lambda: sum(range(20_000))) == 199_990_000
        sum(range(100))
