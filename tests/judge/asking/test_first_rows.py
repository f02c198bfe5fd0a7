"""A run whose first rows all fail alike stops; one usable row, or two kinds of fault, and it goes on."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.judge.asking.first_rows import ADVICE, FIRST, FirstRows, NothingUsable
from preceptor.judge.records import ReplyStatus, Response
from tests.judge.canned import response

BAD: tuple[ReplyStatus, ...] = ("refused", "empty", "failed")


def row(status: ReplyStatus, problem: str = "no reply") -> Response:
    usable = status in ("ok", "truncated")
    return response("A reply." if usable else "", status=status, problem="" if usable else problem)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from(BAD), max_size=2 * FIRST),
    st.sampled_from(["ok", "truncated"]),
    st.lists(st.sampled_from(BAD), max_size=2 * FIRST),
)
def test_one_usable_row_and_no_fault_stops_the_run_any_more(
    before: list[ReplyStatus], usable: ReplyStatus, after: list[ReplyStatus]
) -> None:
    seen = FirstRows()
    alike = len(before) >= FIRST and len(set(before[:FIRST])) == 1
    try:
        for status in [*before, usable, *after]:
            seen.see(row(status))
    except NothingUsable:
        assert alike
    else:
        assert not alike
        assert seen.end() is None


@pytest.mark.parametrize("status", BAD)
def test_the_run_stops_at_the_row_at_which_enough_have_failed_alike(status: ReplyStatus) -> None:
    seen = FirstRows()
    for number in range(FIRST - 1):
        seen.see(row(status, f"server said {number}"))
    with pytest.raises(NothingUsable) as stopped:
        seen.see(row(status, "server said 99"))
    assert ADVICE[status] in str(stopped.value)
    assert "server said 0" in str(stopped.value)


def test_servers_that_fail_in_other_words_are_no_one_fault() -> None:
    seen = FirstRows()
    for number in range(3 * FIRST):
        seen.see(row("failed", "no such model" if number % 2 else "no such key"))
    ended = seen.end()
    assert ended is not None
    assert f"{3 * FIRST} ended with: no such key" in str(ended)


def test_a_run_in_vain_names_what_came_most_and_what_came_besides() -> None:
    seen = FirstRows()
    assert seen.end() is None  # nothing was asked, so nothing failed
    for status in ("refused", "empty", "refused"):
        seen.see((row(status),))
    ended = seen.end()
    assert ended is not None
    assert "2 ended with" in str(ended)
    assert "(1 empty besides)" in str(ended)
    assert ADVICE["refused"] in str(ended)
