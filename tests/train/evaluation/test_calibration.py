"""The report card's statistics against cases worked by hand and against scikit-learn."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss

from preceptor.judge.statistics import wilson
from preceptor.train.evaluation.calibration import log_sigmoid, reliability, report_card, sigmoid

MARGINS = [2.0, -1.0, 0.5, 3.0, -0.2, 0.0]
PAIRS = st.lists(st.tuples(st.floats(-9, 9), st.floats(0.5, 1)), min_size=1, max_size=40)


def test_nothing_seen_says_nothing() -> None:
    none = wilson(0, 0)
    assert math.isnan(none.share)
    assert (none.low, none.high, none.n) == (0.0, 1.0, 0)
    assert report_card([], []) == {"n": 0}


def test_card_equals_scikit_learn_on_hard_labels() -> None:
    """At p = 1 NLL and Brier score are those of a classifier whose every label is `chosen`."""
    card = report_card(MARGINS, [1.0] * 6)
    predicted = [sigmoid(margin) for margin in MARGINS]
    assert card["nll"] == pytest.approx(log_loss([1] * 6, predicted, labels=[0, 1]))
    assert card["brier"] == pytest.approx(brier_score_loss([1] * 6, predicted))
    assert card["accuracy"] == 3 / 6  # no margin is a miss
    assert card["nll_floor"] == 0


def test_a_model_that_gives_the_judges_probability_is_perfect() -> None:
    probabilities = [0.6, 0.75, 0.9, 0.99]
    card = report_card([math.log(p / (1 - p)) for p in probabilities], probabilities)
    assert card["nll"] == pytest.approx(card["nll_floor"])
    assert card["brier"] == pytest.approx(0)
    assert card["ece"] == pytest.approx(0)


def test_overconfidence_is_the_calibration_error() -> None:
    """Sure of everything and right half of the time: confidence 1, agreement one half."""
    card = report_card([40.0, -40.0], [1.0, 1.0])
    assert card["ece"] == pytest.approx(0.5)
    (only,) = reliability([40.0, -40.0], [1.0, 1.0])
    assert (only.n, only.confidence, only.found) == (2, pytest.approx(1), 0.5)


@given(PAIRS)
def test_bins_hold_every_pair_once_and_in_their_place(pairs: list[tuple[float, float]]) -> None:
    margins, probabilities = [d for d, _ in pairs], [p for _, p in pairs]
    bins = reliability(margins, probabilities)
    assert sum(row.n for row in bins) == len(pairs)
    assert all(row.low - 1e-9 <= row.confidence <= row.high + 1e-9 for row in bins)


@given(PAIRS)
def test_which_reply_is_called_chosen_has_no_part_in_the_calibration(
    pairs: list[tuple[float, float]],
) -> None:
    """Exchanging the replies of every pair turns d into -d and p into 1 - p."""
    card = report_card([d for d, _ in pairs], [p for _, p in pairs])
    turned = report_card([-d for d, _ in pairs], [1 - p for _, p in pairs])
    for name in ("nll", "brier", "ece", "nll_floor"):
        assert card[name] == pytest.approx(turned[name], abs=1e-9)
    assert card["nll"] >= card["nll_floor"] - 1e-12


def test_sigmoid_does_not_overflow() -> None:
    assert sigmoid(-1000) == 0
    assert sigmoid(1000) == 1
    assert log_sigmoid(-1000) == -1000
