"""The little language of gates means what Python means by the same words, and lets nothing else through."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.constitution.errors import UserError
from preceptor.judge.conditions import check, gate, names_in

NAMES = ("accuracy", "flip_rate", "n")
NUMBERS = st.floats(-1e6, 1e6).map(lambda number: round(number, 3))
SIDES = st.one_of(st.sampled_from(NAMES), NUMBERS.map(repr))
COMPARISONS = st.builds(
    lambda first, more: first + "".join(f" {op} {side}" for op, side in more),
    SIDES,
    st.lists(st.tuples(st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), SIDES), min_size=1, max_size=2),
)
EXPRESSIONS = st.recursive(
    COMPARISONS,
    lambda some: st.one_of(
        some.map("not ({})".format),
        st.tuples(some, st.sampled_from(["and", "or"]), some).map("({0[0]}) {0[1]} ({0[2]})".format),
    ),
    max_leaves=5,
)
FIGURES = st.fixed_dictionaries(dict.fromkeys(NAMES, NUMBERS))


@settings(deadline=None, max_examples=80)
@given(EXPRESSIONS, FIGURES)
def test_an_expression_means_what_python_means_by_it(expression: str, figures: dict[str, float]) -> None:
    check(expression, NAMES)
    assert gate(expression, figures) is eval(expression, {"__builtins__": {}}, dict(figures))
    assert names_in(expression) <= set(NAMES)


@settings(deadline=None, max_examples=40)
@given(EXPRESSIONS, FIGURES)
def test_an_unknown_figure_passes_no_gate_wherever_it_stands(
    expression: str, figures: dict[str, float]
) -> None:
    for joined in (f"unknown > 0 or {expression}", f"({expression}) and not unknown > 0"):
        with pytest.raises(UserError, match="no value here"):
            gate(joined, {**figures, "unknown": None})
        with pytest.raises(UserError, match="is no figure"):
            gate(joined, figures)
        with pytest.raises(UserError, match="is no figure"):
            check(joined, NAMES)


@pytest.mark.parametrize(
    "expression",
    [
        *("", "accuracy", "accuracy +", "accuracy + 1 > 0", "accuracy.real > 0", "accuracy in n", "n is n"),
        *("__import__('os')", "n > True", "[n] > 0", "n if n else n", "(lambda: n)() > 0", "n > -accuracy"),
        *("n\x00 > 1", "(" * 5000, "f'{n}' == 'x'"),
    ],
)
def test_nothing_but_comparisons_is_of_the_language(expression: str) -> None:
    with pytest.raises(UserError):
        check(expression, NAMES)
    with pytest.raises(UserError):
        gate(expression, dict.fromkeys(NAMES, 1.0))


def test_texts_are_compared_with_texts_for_being_equal_alone() -> None:
    figures = {"status": "ok", "n": 1}
    assert gate("status == 'ok' and status != 'tie'", figures)
    for wrong in ("status > 'a'", "status == 1", "n == 'ok'", "'a' < status"):
        with pytest.raises(UserError, match="texts are compared"):
            gate(wrong, figures)
        with pytest.raises(UserError, match="texts are compared"):
            check(wrong, figures, texts=["status"])
