"""Certified sets: the binomial test they rest on, the largest set, refusals, the shift test."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from preceptor.judge.audit.certify import (
    Found,
    Refused,
    certify,
    fewest,
    forgiven,
    lower_bound,
    needed,
    shift,
)


def test_the_fewest_rows_are_those_that_all_right_would_certify():
    assert fewest(0.9) == 29  # 0.9 ** 29 = 0.047, 0.9 ** 28 = 0.052
    assert fewest(0.5, 0.25) == 2
    assert forgiven(40, 0.9, 0.05)[28] == -1
    assert forgiven(40, 0.9, 0.05)[29] == 0


@given(st.integers(1, 200), st.sampled_from([0.6, 0.75, 0.9, 0.95]), st.data())
@settings(deadline=None, max_examples=60)
def test_errors_are_forgiven_just_where_the_exact_bound_holds_the_target(n, target, data):
    errors = data.draw(st.integers(0, n))
    exact = binomtest(n - errors, n, alternative="greater").proportion_ci(0.95, "exact").low
    assert lower_bound(n - errors, n) == pytest.approx(exact, abs=1e-12)
    if abs(exact - target) > 1e-9:
        assert (errors <= forgiven(n, target, 0.05)[n]) == (exact >= target)


@pytest.mark.parametrize("agreement", [0.91, 0.95, 0.99])
def test_the_number_needed_passes_and_half_of_it_does_not(agreement):
    n = needed(0.9, agreement)
    sizes = np.array([n // 2, n])
    passes = binom.cdf(np.floor(sizes * (1 - agreement) + 1e-9), sizes, 0.1) <= 0.05
    assert list(passes) == [False, True]


def test_no_number_is_enough_below_the_target():
    assert needed(0.9, 0.9) is None
    assert needed(0.9, 0.4) is None


def test_the_set_ends_where_labels_get_worse():
    sure = np.linspace(1, 0.5, 400)
    right = np.arange(400) < 300  # from the 301st on, all wrong
    found = certify(sure, right, 0.9)
    assert isinstance(found, Found)
    assert 300 <= found.n < 330
    assert found.low >= 0.9
    assert found.n == (sure >= found.threshold).sum()
    assert found.right == right[sure >= found.threshold].sum()
    assert found.coverage == found.n / 400


def test_labels_of_one_confidence_are_in_the_set_together():
    found = certify(np.ones(100), np.arange(100) < 99, 0.9)
    assert isinstance(found, Found)
    assert (found.n, found.coverage) == (100, 1.0)


def test_labels_without_a_winner_count_in_the_coverage_alone():
    sure = np.r_[np.ones(100), np.full(100, np.nan)]
    found = certify(sure, np.r_[np.ones(100, bool), np.zeros(100, bool)], 0.9)
    assert isinstance(found, Found)
    assert (found.n, found.right, found.coverage) == (100, 100, 0.5)


def test_too_little_gold_is_refused_with_the_number_needed():
    found = certify(np.ones(10), np.ones(10, bool), 0.9)
    assert isinstance(found, Refused)
    assert found.needed == 29
    nearly = certify(np.ones(60), np.arange(60) < 56, 0.9)
    assert isinstance(nearly, Refused)
    assert nearly.needed is not None
    assert nearly.needed > 60
    assert str(nearly.needed) in nearly.reason


def test_a_judge_at_chance_is_refused_whatever_the_gold():
    found = certify(np.ones(2000), np.arange(2000) % 2 == 0, 0.6)
    assert isinstance(found, Refused)
    assert found.needed is None


def test_a_set_of_lesser_agreement_is_certified_in_at_most_the_level():
    """Confidence that says nothing, and labels that agree a little less often than the target."""
    drawn = np.random.default_rng(0)
    wrong = sum(
        isinstance(certify(drawn.random(150), drawn.random(150) < 0.899, 0.9), Found) for _ in range(600)
    )
    assert wrong <= binom.ppf(0.999, 600, 0.05)


def test_shift_finds_other_rows_and_leaves_the_same_alone():
    drawn = np.random.default_rng(1)
    gold = {"length": drawn.normal(size=300), "tag": (drawn.random(300) < 0.5).astype(float)}
    same = {"length": drawn.normal(size=900), "tag": (drawn.random(900) < 0.5).astype(float)}
    assert not shift(gold, same).unlike
    longer = shift(gold, same | {"length": same["length"] + 0.7})
    assert (longer.unlike, longer.feature) == (True, "length")
    other = shift(gold, same | {"tag": np.zeros(900)})
    assert (other.unlike, other.feature) == (True, "tag")


def test_shift_keeps_its_level_over_all_features():
    drawn = np.random.default_rng(2)
    raised = sum(
        shift(*({str(k): drawn.normal(size=n) for k in range(5)} for n in (80, 200))).unlike
        for _ in range(150)
    )
    assert raised <= binom.ppf(0.999, 150, 0.01)


def test_nothing_in_common_is_no_shift():
    assert shift({}, {"length": np.ones(3)}).p == 1.0
