"""What a judge likes for reasons that are none."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor.judge.audit.audit import drift
from preceptor.judge.audit.biases import FORMATTED, Traits, VerdictTraits, habits, length_effect
from preceptor.judge.audit.calibration import picture
from preceptor.judge.figures import ReliabilityBin
from preceptor.judge.records import Label, Letter
from preceptor.judge.statistics import calibration_error, reliability
from tests.judge.canned import pair

LETTERS = st.sampled_from(("a", "b", "tie"))


def verdict(
    letter: Letter, gold: Letter | None = None, doublings: float = 0.0, **fields: Letter
) -> VerdictTraits:
    longer: Letter = "tie" if doublings == 0 else "a" if doublings > 0 else "b"
    return VerdictTraits(
        letter, gold, Traits(longer, doublings, fields.get("formatted", "tie"), fields.get("own", "tie"))
    )


@pytest.mark.parametrize(
    "text", ["- one\n- two", "1. one", "## Head", "so:\n```\ncode\n```", "| a | b |", " * x"]
)
def test_what_counts_as_format(text: str) -> None:
    assert FORMATTED.search(text)


@pytest.mark.parametrize("text", ["plain words - with a dash", "5 is a number", "#hashtag", "a * b", ""])
def test_what_does_not(text: str) -> None:
    assert not FORMATTED.search(text)


def test_shares_are_of_pairs_that_differ() -> None:
    rows = [
        verdict("a", doublings=1, formatted="a", own="b"),
        verdict("b", doublings=1, formatted="a", own="b"),
        verdict("a"),
        verdict("tie", doublings=1, formatted="a", own="a"),
    ]
    found = habits(rows)
    assert (found["longer_share"], found["list_share"], found["self_share"]) == (0.5, 0.5, 0.5)
    assert habits([verdict("a")])["self_share"] is None


def test_a_planted_love_of_length_is_found_and_a_fair_judge_has_none() -> None:
    """Gold goes with length; only a judge that likes length beyond that has a coefficient."""
    drawn = random.Random(1)

    def rows(love: float) -> list[VerdictTraits]:
        made = []
        for _ in range(3000):
            doublings = drawn.gauss(0, 1)
            gold: Letter = "a" if drawn.random() < 1 / (1 + math.exp(-doublings)) else "b"
            logit = love * doublings + (1.5 if gold == "a" else -1.5)
            made.append(verdict("a" if drawn.random() < 1 / (1 + math.exp(-logit)) else "b", gold, doublings))
        return made

    fair, fond = length_effect(rows(0.0)), length_effect(rows(1.2))
    assert fair is not None
    assert fond is not None
    assert abs(fair[0]) < 3 * fair[1]
    assert fond[0] == pytest.approx(1.2, abs=3 * fond[1])


@given(st.lists(st.tuples(LETTERS, LETTERS, st.floats(-3, 3)), max_size=40))
def test_whatever_the_verdicts_there_is_a_number_or_none(rows: list[tuple[Letter, Letter, float]]) -> None:
    found = habits([verdict(letter, gold, doublings) for letter, gold, doublings in rows])
    for value in found.values():
        assert value is None or math.isfinite(value)


@given(st.lists(st.tuples(st.floats(0.5, 1), st.booleans()), min_size=1))
def test_bins_hold_every_row_once(rows: list[tuple[float, bool]]) -> None:
    bins = reliability(rows)
    assert sum(one.n for one in bins) == len(rows)
    assert sum(one.n * one.found for one in bins) == pytest.approx(sum(right for _, right in rows))
    error = calibration_error(bins)
    assert error is not None
    assert 0 <= error <= 1
    drawn: list[ReliabilityBin] = [
        {"low": one.low, "high": one.high, "n": one.n, "confidence": one.confidence, "right": one.found}
        for one in bins
    ]
    assert picture(drawn).count("<circle") == len(bins)


def label(number: int, probability: float | None) -> Label:
    base = pair().model_dump()
    return Label.model_validate(
        {
            **base,
            "id": f"{number}",
            "status": "ok",
            "probability": probability,
            "judgements": (),
            "constitution": "c",
            "judge": "j",
        }
    )


def test_drift_is_of_pairs_judged_both_times() -> None:
    found = drift(
        [label(1, 0.9), label(2, 0.2), label(3, None)], [label(2, 0.6), label(1, 0.8), label(3, 0.1)]
    )
    assert (found["n"], found["changed"]) == (2, 0.5)
    assert found["mean_shift"] == pytest.approx(0.25)
    assert drift([], [])["changed"] is None
