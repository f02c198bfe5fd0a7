"""Who judges, step by step: every judge that is named has a step, and every step but the first a condition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from preceptor.constitution.errors import UserError
from preceptor.label.judging import WHEN, Certifying, Judges, OneJudge

NAMES = st.lists(st.sampled_from(["checks", "openai/a", "hf/b"]), max_size=3)


@given(
    NAMES, NAMES, st.booleans(), st.lists(st.sampled_from(["margin < 0.1", "confidence < 0.9"]), max_size=3)
)
def test_everybody_who_is_named_judges_once_and_in_the_order_named(
    first: list[str], further: list[str], human: bool, when: list[str]
) -> None:
    judges = Judges(judge=tuple(first), escalate_to=tuple(further), human=human, when=tuple(when))
    named = [*first, *further, *(["human"] if human else [])]
    steps = len(further) + human if first else len(named) - 1
    if not named or (when and steps == 0) or (len(when) > 1 and len(when) != steps):
        with pytest.raises(UserError):
            _ = judges.panels
        return
    panels = judges.panels
    assert judges.names == named
    assert [condition for _, condition in panels] == [
        "",
        *(when if len(when) == steps else (when or [WHEN]) * steps),
    ]
    assert panels[0][0] == (first or named[:1])
    assert all(len(names) == 1 for names, _ in panels[1:])


@pytest.mark.parametrize(
    "fields", [{"gold": "gold.jsonl"}, {"adaptive": True}, {"certify": 0.5}, {"certify": 1.0}]
)
def test_what_a_certificate_needs_is_asked_for(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Certifying.model_validate(fields)


def test_where_one_judges_a_second_and_none_are_refused() -> None:
    assert OneJudge(judge=("checks",)).needed == OneJudge(judge=("checks",)).name == "checks"
    assert OneJudge().name is None
    with pytest.raises(UserError, match="nobody judges"):
        _ = OneJudge().needed
    with pytest.raises(ValidationError, match="given 2 times"):
        OneJudge(judge=("checks", "openai/a"))
