"""Near-duplicates: what is found, what is kept, what leaks."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.prompts.dedupe import Leakage, NearDuplicate, Source, deduplicated
from preceptor.prompts.errors import RowsError
from preceptor.prompts.near import (
    MISSED,
    PERMUTATIONS,
    NearIndex,
    jaccard,
    plain,
    rows_of_a_band,
    said,
    shingles,
)
from preceptor.prompts.records import Message, Prompt

WORDS = ["where", "is", "the", "pool", "and", "when", "does", "it", "open"]
TEXTS = st.one_of(
    st.text(min_size=1, max_size=12),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join),
)
THRESHOLDS = st.floats(0.1, 1)


def prompts(texts: list[str]) -> list[Prompt]:
    return [
        Prompt(id=str(number), messages=(Message(role="user", content=text),))
        for number, text in enumerate(texts)
    ]


def kept_of(
    rows: list[Prompt],
    threshold: float = 0.7,
    held_out: list[Prompt] | None = None,
    leakage: Leakage = "drop",
) -> tuple[list[Prompt], list[NearDuplicate]]:
    told: list[NearDuplicate] = []
    apart = [Source("held-out", held_out or [])]
    return list(deduplicated([Source("file", rows)], apart, threshold, leakage, told.append)), told


@given(st.text(max_size=20))
def test_shingles_are_those_of_the_text(text: str) -> None:
    width = min(5, len(text))
    assert len(shingles(text)) == len({text[at : at + width] for at in range(len(text) - width + 1)})


@given(TEXTS, TEXTS)
def test_jaccard_is_that_of_the_sets(one: str, other: str) -> None:
    ours, theirs = set(shingles(one).tolist()), set(shingles(other).tolist())
    assert jaccard(shingles(one), shingles(other)) == len(ours & theirs) / len(ours | theirs)


@given(THRESHOLDS)
def test_few_pairs_at_the_threshold_are_missed_and_one_more_row_would_miss_more(threshold: float) -> None:
    rows = rows_of_a_band(threshold)

    def missed(some: int) -> float:
        return float((1 - threshold**some) ** (PERMUTATIONS // some))

    assert missed(rows) <= MISSED
    assert rows == PERMUTATIONS or missed(rows + 1) > MISSED


@settings(deadline=None, max_examples=40)
@given(st.lists(TEXTS, max_size=12), THRESHOLDS)
def test_every_prompt_is_kept_or_near_one_that_was_kept_before(texts: list[str], threshold: float) -> None:
    rows = prompts(texts)
    kept, told = kept_of(rows, threshold)
    gone = {near.id for near in told}
    assert kept == [row for row in rows if row.id not in gone]  # in order, and none twice
    assert len(told) == len(gone)
    there = {row.id for row in kept}
    for near in told:
        assert near.of in there
        assert int(near.of) < int(near.id)
        pair = (shingles(said(rows[int(one)])) for one in (near.id, near.of))
        assert near.jaccard == jaccard(*pair) >= threshold


@settings(deadline=None, max_examples=40)
@given(st.lists(TEXTS, max_size=12), THRESHOLDS)
def test_of_what_is_kept_no_candidates_are_near(texts: list[str], threshold: float) -> None:
    kept, _ = kept_of(prompts(texts), threshold)
    with NearIndex(threshold) as index:
        sketches = [index.sketch(said(row)) for row in kept]
    for one, other in combinations(sketches, 2):
        if set(one.buckets) & set(other.buckets):
            assert jaccard(one.shingles, other.shingles) < threshold


@settings(deadline=None, max_examples=40)
@given(st.lists(TEXTS, max_size=12), THRESHOLDS)
def test_what_is_kept_is_kept_again(texts: list[str], threshold: float) -> None:
    kept, _ = kept_of(prompts(texts), threshold)
    assert kept_of(kept, threshold) == (kept, [])


@settings(deadline=None, max_examples=40)
@given(st.lists(TEXTS, min_size=1, max_size=8), THRESHOLDS, st.data())
def test_equal_texts_are_always_found(texts: list[str], threshold: float, data: st.DataObject) -> None:
    again = data.draw(st.permutations(texts))
    kept, told = kept_of(prompts([*texts, *again]), threshold)
    assert len({plain(row.messages[0].content) for row in kept}) == len(kept)
    assert {str(len(texts) + number) for number in range(len(again))} <= {near.id for near in told}
    assert kept_of(prompts(again), threshold, held_out=prompts(texts))[0] == []


def test_case_width_and_space_make_no_difference() -> None:
    (only,), (near,) = kept_of(prompts(["Where is the pool?", "  WHERE is\nthe ｐｏｏｌ?"]))
    assert (only.id, near.id, near.jaccard) == ("0", "1", 1.0)


def test_a_word_more_is_near_and_another_question_is_not() -> None:
    rows = prompts(
        [
            "When does the swimming pool open on a Sunday morning?",
            "When does the swimming pool open on a Sunday morning, please?",
            "Which of the two restaurants serves breakfast until eleven?",
        ]
    )
    assert [row.id for row in kept_of(rows)[0]] == ["0", "2"]


def test_other_system_messages_make_another_prompt_but_no_other_secret() -> None:
    asked = Message(role="user", content="Where is the pool?")
    first, second = (
        Prompt(id=name, messages=(Message(role="system", content=name), asked))
        for name in ("be brief", "rhyme")
    )
    assert kept_of([first, second])[0] == [first, second]
    kept, (leak,) = kept_of([second], held_out=[first])
    assert (kept, leak.leak, leak.of_file) == ([], True, "held-out")


def test_a_leak_that_is_kept_is_told() -> None:
    rows = prompts(["Where is the pool?"])
    kept, (leak,) = kept_of(rows, held_out=rows, leakage="keep")
    assert (kept, leak.leak, leak.kept) == (rows, True, True)


def test_one_id_for_two_prompts_is_refused() -> None:
    (one,), (other,) = prompts(["Where is the pool?"]), prompts(["Who has room 12 tonight?"])
    with pytest.raises(RowsError, match="the id '0' stands in a and in b"):
        list(deduplicated([Source("a", [one]), Source("b", [other])], [], 0.7, "drop", lambda _: None))


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.1, float("nan")])
def test_a_threshold_that_is_none_is_refused(threshold: float) -> None:
    with pytest.raises(RowsError, match="threshold is"):
        NearIndex(threshold)
