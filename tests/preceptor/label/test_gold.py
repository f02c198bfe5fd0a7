"""Gold is read alike by every command: the rows that say which reply is better, among those that are read."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.judge.errors import PairsError
from preceptor.judge.records import Letter, Pair
from preceptor.label.gold import gold_pairs
from preceptor.prompts.rows import write_rows
from tests.judge.canned import prompt


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.sampled_from(["a", "b", "tie", None]), min_size=1, max_size=8),
    st.one_of(st.none(), st.integers(1, 8)),
    st.booleans(),
)
def test_what_says_which_reply_is_better_is_gold(
    tmp_path_factory: pytest.TempPathFactory, said: list[Letter | None], limit: int | None, ties: bool
) -> None:
    path = tmp_path_factory.mktemp("gold") / "gold.jsonl"
    rows = [
        Pair(id=f"p{n}", prompt=prompt(), response_a=f"a{n}", response_b=f"b{n}", preferred=letter)
        for n, letter in enumerate(said)
    ]
    write_rows(path, rows)
    wanted = [row for row in rows[:limit] if row.preferred and (ties or row.preferred != "tie")]
    if wanted:
        assert gold_pairs(str(path), limit=limit, ties=ties) == wanted
    else:
        with pytest.raises(PairsError, match="whose better reply is known"):
            gold_pairs(str(path), limit=limit, ties=ties)
