"""Shares and intervals, held against other ways to the same numbers."""

from __future__ import annotations

import math
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import binomtest

from preceptor.judge.statistics import Z95, bootstrap, kappa, logistic, newcombe, phi, wilson

TRUTHS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


@given(st.integers(0, 60), st.integers(1, 60))
def test_wilson_equals_scipys(successes: int, n: int) -> None:
    successes = min(successes, n)
    theirs = binomtest(successes, n).proportion_ci(method="wilson")
    ours = wilson(successes, n)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@given(TRUTHS)
def test_a_difference_is_mirrored_by_swapping_its_sides(rows: list[tuple[bool, bool]]) -> None:
    before, after = ([row[side] for row in rows] for side in (0, 1))
    old, new = (wilson(sum(side), len(side)) for side in (before, after))
    there, back = newcombe(old, new, phi(before, after)), newcombe(new, old, phi(after, before))
    assert there == pytest.approx((-back.by, -back.high, -back.low), abs=1e-12)
    assert -1 <= there.low <= there.by <= there.high <= 1


def test_newcombe_by_his_own_example() -> None:
    """Newcombe 1998 (17:873), table II, (a): 56 of 70 less 48 of 80, method 10: 0.0524 to 0.3339."""
    found = newcombe(wilson(48, 80, Z95), wilson(56, 70, Z95))
    assert found == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=3, max_size=3))
def test_kappa_is_cohens(table: list[list[int]]) -> None:
    """Cohen 1960, eq. 1, in his own words: agreement beyond chance over what there could be."""
    n = sum(map(sum, table))
    found = kappa(table)
    if not n:
        assert found is None
        return
    agreed = sum(table[i][i] for i in range(3)) / n
    chance = sum(sum(table[i]) * sum(row[i] for row in table) for i in range(3)) / n**2
    if chance == 1:
        assert found is None
    else:
        assert found == pytest.approx((agreed - chance) / (1 - chance))


def test_a_bootstrap_interval_holds_the_mean_and_narrows() -> None:
    drawn = random.Random(2)
    few, many = ([float(drawn.random() < 0.3) for _ in range(n)] for n in (20, 2000))
    wide, narrow = (
        bootstrap(len(row), lambda times, row=row: float(times @ row) / len(row)) for row in (few, many)
    )
    assert wide is not None
    assert narrow is not None
    assert narrow[0] < 0.3 < narrow[1]
    assert narrow[1] - narrow[0] < (wide[1] - wide[0]) / 3
    assert bootstrap(1, lambda _: 1.0) is None
    assert bootstrap(5, lambda _: None) is None


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_logistic_regression_is_at_the_maximum_of_the_likelihood(seed: int) -> None:
    import numpy as np

    drawn = np.random.default_rng(seed)
    x = np.column_stack([drawn.normal(size=60), np.ones(60)])
    y = (drawn.random(60) < 1 / (1 + np.exp(-x @ [0.7, -0.3]))).astype(float)

    def loss(beta: object) -> float:
        return float(np.logaddexp(0, x @ beta).sum() - y @ (x @ beta))  # type: ignore[operator]

    found = logistic(x, y)
    assert found is not None
    least = minimize(loss, [0.0, 0.0], tol=1e-12).x
    assert [one.coefficient for one in found] == pytest.approx(least, abs=1e-4)
    step = 1e-3  # the standard error out of the curvature, measured
    curve = [[loss(least + step * (i + j)) for j in np.eye(2)] for i in np.eye(2)]
    one = [loss(least + step * i) for i in np.eye(2)]
    hessian = (
        np.array([[curve[i][j] - one[i] - one[j] + loss(least) for j in (0, 1)] for i in (0, 1)]) / step**2
    )
    assert [one.stderr for one in found] == pytest.approx(np.sqrt(np.diag(np.linalg.inv(hessian))), rel=1e-2)


@pytest.mark.parametrize("gap", [0.0, 0.5])
def test_where_a_column_tells_everything_there_is_no_finite_answer(gap: float) -> None:
    """Wholly apart, or touching at one value that comes with both."""
    import numpy as np

    values = [*np.linspace(-2, -gap, 20), *np.linspace(gap, 2, 20)]
    x = np.column_stack([values, np.ones(40)])
    assert logistic(x, np.array([0.0] * 20 + [1.0] * 20)) is None
    assert logistic(np.column_stack([values, values]), np.array([0.0, 1.0] * 20)) is None


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    heavy = "('sklearn', 'scipy', 'numpy')"
    code = (
        "import sys, preceptor.judge.statistics, preceptor.judge.audit.audit; "
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )
    assert math.isnan(wilson(0, 0).share)
