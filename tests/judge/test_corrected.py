"""Corrected shares: what they find where the truth is known, and how often their intervals hold it."""

import numpy as np
import pytest
from scipy.stats import binom

from preceptor.judge.statistics import prediction_powered, rogan_gladen


def wins(drawn, n, theta, right):
    """What a judge who is right with this probability says of n rows, and the truth."""
    truth = drawn.random(n) < theta
    return (truth == (drawn.random(n) < right)).astype(float), truth.astype(float)


def covered(intervals, truth):
    return sum(one.low <= truth <= one.high for one in intervals)


def assert_covers(hits, of):
    """The interval holds the truth in 95 %, but for the chance of so many trials."""
    low, high = binom.ppf([0.0005, 0.9995], of, 0.95)
    assert low <= hits <= high


@pytest.mark.parametrize(("theta", "right"), [(0.7, 0.8), (0.5, 0.9), (0.3, 0.7)])
def test_rogan_gladen_covers_where_the_naive_share_does_not(theta, right):
    drawn = np.random.default_rng(3)
    made = [
        rogan_gladen(wins(drawn, 800, theta, right)[0], (drawn.random(150) < right).astype(float))
        for _ in range(400)
    ]
    assert_covers(covered(made, theta), 400)
    if theta != 0.5:
        assert abs(np.mean([one.naive for one in made]) - theta) > 0.03
    assert abs(np.mean([one.share for one in made]) - theta) < 0.01


def test_of_a_judge_near_chance_nothing_is_told():
    assert rogan_gladen([1.0] * 50, [1.0] * 26 + [0.0] * 24) is None
    assert rogan_gladen([], [1.0] * 50) is None
    assert rogan_gladen([1.0], []) is None


def test_a_judge_who_is_always_right_needs_no_correction():
    made = rogan_gladen([1.0] * 60 + [0.0] * 40, [1.0] * 500)
    assert (made.naive, made.share) == (0.6, pytest.approx(0.6))
    assert made.low < 0.6 < made.high


@pytest.mark.parametrize("right", [0.6, 0.9])
def test_prediction_powered_covers_and_takes_out_the_bias(right):
    drawn = np.random.default_rng(4)
    made = []
    for _ in range(400):
        rows, _ = wins(drawn, 1000, 0.7, right)
        predicted, found = wins(drawn, 100, 0.7, right)
        made.append(prediction_powered(rows, predicted, found))
    assert_covers(covered(made, 0.7), 400)
    assert abs(np.mean([one.share for one in made]) - 0.7) < 0.01


def test_good_predictions_make_the_interval_narrower_than_gold_alone():
    drawn = np.random.default_rng(5)
    rows, _ = wins(drawn, 4000, 0.6, 0.98)
    predicted, found = wins(drawn, 100, 0.6, 0.98)
    powered = prediction_powered(rows, predicted, found)
    alone = prediction_powered(np.full(4000, 0.5), np.full(100, 0.5), found)
    assert powered.high - powered.low < 0.6 * (alone.high - alone.low)
    assert alone.share == pytest.approx(found.mean())


def test_without_rows_or_gold_there_is_no_share():
    assert prediction_powered([], [1.0, 0.0], [1.0, 0.0]) is None
    assert prediction_powered([1.0], [1.0], [1.0]) is None
