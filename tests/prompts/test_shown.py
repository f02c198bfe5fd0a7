"""Foreign text that goes out steers nothing, and what must come back comes back as it was."""

from __future__ import annotations

import json
import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from preceptor.prompts.shown import (
    HARMLESS,
    STEERING,
    csv_cell,
    csv_text,
    json_text,
    markdown,
    markdown_code,
    one_line,
    printable,
)

TEXTS = st.text(st.characters(), max_size=40)
ODD = st.one_of(TEXTS, st.text("`|<>*_[]()#!~$\\&'=+-@ \t\r\n\x1b\u202e\u2028ab1.", max_size=25))


def steers(text: str) -> bool:
    return any(unicodedata.category(mark) in STEERING and mark not in HARMLESS for mark in text)


@settings(deadline=None, max_examples=150)
@given(ODD)
def test_nothing_that_is_shown_steers(text: str) -> None:
    for shown in (printable(text), one_line(text), markdown(text), markdown_code(text), json_text(text)):
        assert not steers(shown)
    assert len(printable(text)) == len(text)
    assert printable(printable(text)) == printable(text)
    assert "\n" not in one_line(text) + markdown(text) + markdown_code(text)


@settings(deadline=None, max_examples=100)
@given(st.recursive(ODD, lambda some: st.lists(some, max_size=2) | st.dictionaries(ODD, some, max_size=2)))
def test_json_reads_back_as_it_was(value: object) -> None:
    assert json.loads(json_text(value)) == value


@settings(deadline=None, max_examples=150)
@given(ODD)
def test_a_cell_reads_back_as_it_was_and_is_no_formula(text: str) -> None:
    cell = str(csv_cell(text))
    assert csv_text(cell) == text
    assert not cell.startswith(("=", "@", "\t", "\r"))


def test_numbers_are_no_formulas() -> None:
    assert [csv_cell(cell) for cell in ("-1.5", "+3", "- a list", "-1e-9", 7)] == [
        "-1.5",
        "+3",
        "- a list",
        "-1e-9",
        7,
    ]
    assert csv_cell("-1+cmd|' /C calc'!A0") == "'-1+cmd|' /C calc'!A0"


@settings(deadline=None, max_examples=100)
@given(ODD)
def test_markdown_holds_the_words_and_no_markup(text: str) -> None:
    inline = MarkdownIt("commonmark").parseInline(f"x {markdown(text)} x")[0].children or []
    assert {token.type for token in inline} <= {"text", "text_special"}
    assert "".join(token.content for token in inline) == f"x {one_line(text)} x"
