"""Figures of a comparison: of policy and baseline exchanged they are mirrored, and gold corrects them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.evaluation.head_to_head import corrected, figures
from preceptor.judge.records import Label, Letter
from preceptor.records import HeldOut
from tests.judge.canned import prompt

SAID = st.lists(st.sampled_from(["a", "b", "tie", "inconsistent", "failed"]), min_size=1, max_size=24)
MIRROR = {"a": "b", "b": "a"}


def label(said: str, number: int, preferred: Letter | None = None) -> Label:
    probability = {"a": 0.9, "b": 0.1, "tie": 0.5}.get(said)
    return Label(
        id=f"l{number}",
        status="ok" if said in ("a", "b") else said,
        probability=probability,
        prompt=prompt(),
        response_a="the policy's words",
        response_b="the baseline's",
        preferred=preferred,
        judgements=(),
        constitution="c@1",
        judge="j",
    )


def rows_of(said: list[str]) -> list[HeldOut]:
    return [
        HeldOut(
            id=f"l{number}",
            prompt=prompt(),
            before="the baseline's",
            after="the policy's words",
            label=label(one, number),
            satisfied_before={"kind": False},
            satisfied_after={"kind": number % 2 == 0},
        )
        for number, one in enumerate(said)
    ]


@settings(deadline=None, max_examples=60)
@given(SAID)
def test_every_prompt_is_won_lost_tied_or_unjudged(said: list[str]) -> None:
    found = figures(rows_of(said))
    assert sum(found["wins"].values()) == found["n"] == len(said)
    assert found["wins"]["unjudged"] == said.count("failed")
    if found["win_rate"] is None:
        assert set(said) == {"failed"}
    else:
        assert found["win_rate_ci95"][0] <= found["win_rate"] <= found["win_rate_ci95"][1]
    assert found["before"]["kind"] == 0.0
    assert found["after"]["kind"] == pytest.approx(len(said[::2]) / len(said))


@settings(deadline=None, max_examples=60)
@given(SAID)
def test_the_other_side_wins_what_this_one_loses(said: list[str]) -> None:
    one, other = figures(rows_of(said)), figures(rows_of([MIRROR.get(each, each) for each in said]))
    assert (one["wins"]["won"], one["wins"]["lost"]) == (other["wins"]["lost"], other["wins"]["won"])
    if one["win_rate"] is not None and other["win_rate"] is not None:
        assert one["win_rate"] + other["win_rate"] == pytest.approx(1)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(["a", "b", "tie"]), min_size=1, max_size=24))
def test_a_judge_who_is_always_right_is_believed(said: list[str]) -> None:
    gold = [label(letter, number, letter) for number, letter in enumerate(["a", "b"] * 20)]
    found = corrected(rows_of(said), gold)
    assert (found["judge_accuracy"], found["gold"]) == (1.0, 40)
    assert found["win_rate"] == pytest.approx(figures(rows_of(said))["win_rate"])


def test_a_judge_who_is_no_better_than_a_coin_tells_no_win_rate() -> None:
    gold = [label("a", number, letter) for number, letter in enumerate(["a", "b"] * 20)]
    found = corrected(rows_of(["a"] * 30), gold)
    assert (found["win_rate"], found["ci95"], found["judge_accuracy"]) == (None, None, 0.5)
    assert corrected(rows_of(["a"]), [label("failed", 0, "a")])["gold"] == 0
