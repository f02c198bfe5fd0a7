"""What is different between two constitutions, and who would have to be asked again."""

from __future__ import annotations

from typing import Any

import pytest

from preceptor.constitution.diff import compare
from preceptor.constitution.principle import Constitution, Example, Principle

ONE = Principle(id="one", text="Choose one.", critique="Say.", revision="Mend.")
TWO = Principle(id="two", text="Choose two.")
BASE = Constitution(name="base", principles=(ONE, TWO))


@pytest.mark.parametrize(
    ("field", "value", "asks", "revises"),
    [
        ("text", "Choose another.", True, False),
        ("weight", 2.0, True, False),
        ("applies_to", ("t",), True, True),
        ("check", {"max_words": 3}, True, False),
        ("examples", (Example(prompt="p", better="b", worse="w"),), True, False),
        ("critique", "Say more.", False, True),
        ("revision", "Mend more.", False, True),
        ("tags", ("t",), False, False),
    ],
)
def test_who_is_asked_again_hangs_on_the_field(field: str, value: Any, asks: bool, revises: bool) -> None:
    new = BASE.model_copy(update={"principles": (ONE.model_copy(update={field: value}), TWO)})
    (change,) = compare(BASE, new)
    assert (change.principle, change.kind, list(change.fields)) == ("one", "changed", [field])
    assert (change.asks_again, change.revises_again) == (asks, revises)


def test_added_removed_and_moved() -> None:
    three = Principle(id="three", text="Choose three.")
    new = BASE.model_copy(update={"principles": (TWO, ONE, three)})
    assert {(c.principle, c.kind) for c in compare(BASE, new)} == {
        ("one", "moved"),
        ("two", "moved"),
        ("three", "added"),
    }
    assert [(c.principle, c.kind) for c in compare(new, BASE)][-1] == ("three", "removed")
    assert all(change.asks_again for change in compare(BASE, new))


def test_a_name_asks_nobody() -> None:
    (change,) = compare(BASE, BASE.model_copy(update={"name": "other", "version": "2.0.0"}))
    assert (change.principle, set(change.fields)) == ("", {"name", "version"})
    assert not change.asks_again
    assert not change.revises_again


def test_equal_ones_have_no_difference() -> None:
    assert compare(BASE, BASE) == []
