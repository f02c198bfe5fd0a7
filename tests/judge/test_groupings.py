"""Which principles stand together in one ask, for every way in the table."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from preceptor.constitution.principle import Principle
from preceptor.judge.groupings import GROUPINGS, Drawing, PairGrouping, ScoreGrouping
from preceptor.judge.settings import LabelSettings, ScoreSettings

PRINCIPLES = st.integers(0, 6).map(
    lambda count: tuple(Principle(id=f"p{number}", text=f"Principle {number}.") for number in range(count))
)
DRAWINGS = st.builds(Drawing, st.integers(0, 9), st.text(max_size=5), st.integers(1, 8))


def test_the_table_has_the_names_that_settings_take() -> None:
    assert list(GROUPINGS) == list(get_args(PairGrouping))
    assert set(get_args(ScoreGrouping)) < set(GROUPINGS)
    for kind, names in ((LabelSettings, get_args(PairGrouping)), (ScoreSettings, get_args(ScoreGrouping))):
        assert [kind.model_validate({"principles": name}).principles for name in names] == list(names)


@given(principles=PRINCIPLES, by=DRAWINGS)
def test_nothing_is_asked_twice_and_no_ask_is_about_nothing(
    principles: tuple[Principle, ...], by: Drawing
) -> None:
    for name, way in GROUPINGS.items():
        asks = way.asks(principles, by)
        asked = [one.id for group in asks for one in group]
        assert all(asks), name
        assert len(asked) == len(set(asked)), name
        assert set(asked) <= {one.id for one in principles}
        wanted = min(by.draws, len(principles)) if "draws" in way.options else len(principles)
        assert len(asked) == wanted, name
        assert not way.resums or len(asks) == len(principles), name


@pytest.mark.parametrize("name", get_args(PairGrouping))
def test_an_option_of_one_way_is_refused_with_another(name: PairGrouping) -> None:
    if "draws" in GROUPINGS[name].options:
        assert LabelSettings(principles=name, draws=2).draws == 2
    else:
        with pytest.raises(ValidationError, match="draws are for `sample`"):
            LabelSettings(principles=name, draws=2)
