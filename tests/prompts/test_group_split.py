"""Splits by whole groups."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from preceptor.prompts.errors import RowsError
from preceptor.prompts.group_split import SplitBy, SplitColumns, sides
from preceptor.prompts.near import NearIndex, said
from preceptor.prompts.records import Message, Prompt

WORDS = ["pool", "breakfast", "lunch", "room", "key", "towel", "lift", "lobby", "taxi", "window"]
NONE = SplitColumns()


def prompt(number: int, text: str, tags: tuple[str, ...] = (), **meta: object) -> Prompt:
    return Prompt(id=str(number), messages=(Message(role="user", content=text),), tags=tags, meta=meta)


def different(count: int) -> list[str]:
    """Texts of which none is near another."""
    return [f"{number * 7919 % 10007} {word * 2} {number:b}" for number, word in enumerate(WORDS * count)][
        :count
    ]


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(" ".join), min_size=2, max_size=20),
    st.floats(0.2, 0.8),
    st.sampled_from(["group", "tag"]),
    st.integers(0, 5),
)
def test_no_prompt_is_near_one_on_the_other_side(
    texts: list[str], share: float, by: SplitBy, seed: int
) -> None:
    rows = [prompt(number, text, (text[0],)) for number, text in enumerate(texts)]
    try:
        found = sides(rows, share, by, 0.5, seed, NONE)
    except RowsError as refused:
        assume(refused.exit_code != 2)  # one side would be empty: told below
    assert found == sides(rows, share, by, 0.5, seed, NONE)
    assert 0 < sum(found.held_out) < len(rows)
    if by == "group":
        assert sum(found.held_out) <= round(share * len(rows))
    with NearIndex(0.5) as index:
        for row, apart in zip(rows, found.held_out, strict=True):
            sketch = index.sketch(said(row))
            assert all(found.held_out[near.number] == apart for near in index.near(sketch))
            index.add(sketch)


def test_another_seed_is_another_split() -> None:
    rows = [prompt(number, text) for number, text in enumerate(different(60))]
    assert len({sides(rows, 0.5, "group", 0.9, seed, NONE).held_out for seed in range(3)}) == 3


def test_one_conversation_stays_together() -> None:
    said_first = Message(role="user", content="Hello, I have a question about my bill.")
    turns = [
        Prompt(
            id=str(number),
            messages=(
                said_first,
                Message(role="assistant", content="Ask."),
                Message(role="user", content=text),
            ),
        )
        for number, text in enumerate(different(10))
    ]
    others = [prompt(10 + number, text) for number, text in enumerate(different(40)[10:])]
    for seed in range(5):
        assert len({*sides([*turns, *others], 0.3, "group", 0.9, seed, NONE).held_out[:10]}) == 1


def test_one_value_of_the_column_stays_together() -> None:
    rows = [prompt(number, text, thread=number // 5) for number, text in enumerate(different(40))]
    found = sides(rows, 0.3, "group", 0.9, 0, SplitColumns(conversation="thread"))
    assert (found.groups, found.largest) == (8, 5)
    assert all(len({*found.held_out[start : start + 5]}) == 1 for start in range(0, 40, 5))


def test_every_set_of_tags_gives_its_share() -> None:
    rows = [prompt(n, text, ("a",) if n < 20 else ("a", "b")) for n, text in enumerate(different(60))]
    found = sides(rows, 0.2, "tag", 0.95, 0, NONE)
    assert (sum(found.held_out[:20]), sum(found.held_out[20:])) == (4, 8)


@pytest.mark.parametrize("written", [lambda day: f"2026-01-{day + 1:02}", lambda day: day])
def test_the_latest_are_held_out(written: object) -> None:
    assert callable(written)
    rows = [prompt(n, text, at=written((n * 7) % 20)) for n, text in enumerate(different(20))]
    found = sides(rows, 0.25, "time", 0.95, 0, SplitColumns(time="at"))
    assert list(found.held_out) == [(n * 7) % 20 >= 15 for n in range(20)]


@pytest.mark.parametrize("value", [None, "yesterday", True, float("nan"), [1]])
def test_a_time_that_is_none_is_refused(value: object) -> None:
    rows = [prompt(0, "one thing", at=1), prompt(1, "another matter", at=value)]
    with pytest.raises(RowsError, match="prompt '1'"):
        sides(rows, 0.5, "time", 0.9, 0, SplitColumns(time="at"))


def test_a_side_that_would_be_empty_is_refused() -> None:
    alike = [prompt(number, "Where is the pool?") for number in range(9)]
    with pytest.raises(RowsError, match="no group of 9 prompts in 1 groups fits"):
        sides(alike, 0.5, "group", 0.7, 0, NONE)
    with pytest.raises(RowsError, match="all 2 prompts would be held out"):
        sides([prompt(0, "one thing"), prompt(1, "another matter")], 0.99, "group", 0.7, 0, NONE)
