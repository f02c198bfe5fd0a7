"""Coverage is drawn: every cell with its count, whatever the tags are called."""

from __future__ import annotations

from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.judge.dataset.coverage import CoverageCell, CoverageFigures
from preceptor.workbench.coverage_picture import NONE, TIES, picture


def cell(tag: str, principle: str, prompts: int, judged: int | None, apart: int | None) -> CoverageCell:
    return {
        "tag": tag,
        "principle": principle,
        "prompts": prompts,
        "judged": judged,
        "told_apart": apart,
        "decided": apart,
        "rejected_refusals": None,
    }


def covered(cells: list[CoverageCell], ties: list[list[str]]) -> CoverageFigures:
    return {
        "constitution": "mine@1",
        "prompts": 3,
        "labels": 2,
        "foreign": 0,
        "cells": cells,
        "empty": [],
        "all_tie": ties,
    }


CELLS = st.builds(
    cell,
    st.text(max_size=40),
    st.sampled_from(["one", "two"]),
    st.integers(0, 10**6),
    st.just(None) | st.integers(1, 10**6),
    st.integers(0, 10),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(CELLS, max_size=8, unique_by=lambda one: (one["tag"], one["principle"])))
def test_any_coverage_is_drawn_and_no_cell_is_left_out(cells: list[CoverageCell]) -> None:
    texts = [one.text for one in ElementTree.fromstring(picture(covered(cells, []))).iter() if one.text]
    for one in cells:
        words = str(one["prompts"]) if one["judged"] is None else f"{one['told_apart']} of {one['judged']}"
        assert words in texts
    names = {text for text in texts if text.strip()}
    assert {one["principle"] for one in cells} <= names


def test_empty_cells_and_those_of_ties_alone_are_marked() -> None:
    full = covered([cell("x", "one", 3, 2, 2)], [])
    assert NONE not in picture(full)
    assert TIES not in picture(full)
    assert NONE in picture(covered([cell("x", "one", 0, None, None)], []))
    assert TIES in picture(covered([cell("x", "one", 3, 2, 0)], [["x", "one"]]))
    assert "a&lt;b&gt;" in picture(covered([cell("a<b>", "one", 1, None, None)], []))
