"""Columns under other names: a mapping says the same whichever side of `=` stands first, and loses no value."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.prompts.columns import OURS, at, mapping_of, renamed
from preceptor.prompts.errors import RowsError

THEIRS = st.text("abcxyz_0", min_size=1, max_size=6).map(lambda name: f"x{name}")
MAPPINGS = st.dictionaries(st.sampled_from(OURS), THEIRS, max_size=4)


@settings(deadline=None, max_examples=80)
@given(MAPPINGS, st.lists(st.booleans(), min_size=4, max_size=4))
def test_either_side_may_stand_first(columns: dict[str, str], turned: list[bool]) -> None:
    words = [
        f"{theirs} = {ours}" if turn else f"{ours}={theirs}"
        for (ours, theirs), turn in zip(columns.items(), turned, strict=False)
    ]
    assert mapping_of(words) == columns


@settings(deadline=None, max_examples=80)
@given(MAPPINGS, st.dictionaries(st.one_of(THEIRS, st.sampled_from(OURS)), st.integers(), max_size=8))
def test_a_row_under_our_names_has_each_mapped_value_and_all_that_was_not_mapped(
    columns: dict[str, str], row: dict[str, Any]
) -> None:
    found = renamed(dict(row), columns)
    for ours, theirs in columns.items():
        assert found.get(ours) == row.get(theirs)
    taken = {*columns, *columns.values()} | (
        {"prompt", "messages"} if {"prompt", "messages"} & {*columns} else set()
    )
    assert {key: value for key, value in found.items() if key not in taken} == {
        key: value for key, value in row.items() if key not in taken
    }


LEAVES = st.one_of(st.none(), st.integers(), st.text("ab", max_size=3))
VALUES = st.recursive(
    LEAVES,
    lambda some: st.one_of(
        st.lists(some, max_size=3), st.dictionaries(st.sampled_from("abc"), some, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=80)
@given(
    st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3),
    st.lists(st.sampled_from(["a", "b", "0", "1", "7"]), min_size=1, max_size=4),
)
def test_a_place_within_a_column_is_found_step_by_step_or_is_none(
    row: dict[str, Any], steps: list[str]
) -> None:
    value: Any = row
    for step in steps:
        try:
            value = value[int(step)] if isinstance(value, list) else value[step]
        except (KeyError, IndexError, TypeError, ValueError):
            value = None
    assert at(row, ".".join(steps)) == value


@pytest.mark.parametrize("words", [["prompt"], ["=x"], ["prompt="], ["one=two"], ["prompt=a", "prompt=b"]])
def test_what_is_no_mapping_is_refused(words: list[str]) -> None:
    with pytest.raises(RowsError, match="--map"):
        mapping_of(words)
