"""Intervals of paired figures: mirrored by swapping the sides, and rarely wrong where nothing differs."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.train.evaluation.paired import BeforeAfter, RatioPart, left_out, ratios, shares

TOLD = st.sampled_from([True, False, None])
PAIRS = st.lists(st.tuples(TOLD, TOLD), min_size=1, max_size=30)
PARTS = st.lists(st.tuples(*[st.tuples(st.floats(0, 100), st.floats(1, 10))] * 2), min_size=2, max_size=12)


def mirrored(change: BeforeAfter) -> BeforeAfter:
    return BeforeAfter(change.after, change.before, -change.by, -change.high, -change.low)


def same(one: BeforeAfter, other: BeforeAfter) -> bool:
    flat = [[*side.before, *side.after, side.by, side.low, side.high] for side in (one, other)]
    return flat[0] == pytest.approx(flat[1], nan_ok=True, abs=1e-9)


@given(PAIRS)
def test_swapping_the_sides_of_shares_mirrors_them(pairs: list[tuple[bool | None, bool | None]]) -> None:
    before, after = zip(*pairs, strict=True)
    assert same(shares(after, before), mirrored(shares(before, after)))


@settings(deadline=None)  # the first example imports scipy
@given(PARTS)
def test_swapping_the_sides_of_ratios_mirrors_them(rows: list[tuple[tuple[float, float], ...]]) -> None:
    before, after = ([RatioPart(*row[side]) for row in rows] for side in (0, 1))
    assert same(ratios(after, before), mirrored(ratios(before, after)))


def test_a_share_by_hand() -> None:
    """12 of 50 gained, 2 lost, 36 kept; Newcombe's interval worked out from the four Wilson limits at 99 %."""
    before = [True] * 36 + [False] * 12 + [True] * 2
    after = [True] * 48 + [False] * 2
    change = shares(before, after)
    assert (change.before.value, change.after.value) == (0.76, 0.96)
    # nobody failed both times: ad - bc = 0 * 36 - 12 * 2, over the root of 48 * 2 * 38 * 12; Wilson by its formula
    phi = -24 / math.sqrt(48 * 2 * 38 * 12)
    z = 2.5758293035489004

    def wilson(p: float) -> tuple[float, float]:
        centre, half = p + z * z / 100, z * math.sqrt(p * (1 - p) / 50 + z * z / 10000)
        return (centre - half) / (1 + z * z / 50), (centre + half) / (1 + z * z / 50)

    (l1, u1), (l2, u2) = wilson(0.96), wilson(0.76)
    down = math.sqrt((0.96 - l1) ** 2 - 2 * phi * (0.96 - l1) * (u2 - 0.76) + (u2 - 0.76) ** 2)
    up = math.sqrt((u1 - 0.96) ** 2 - 2 * phi * (u1 - 0.96) * (0.76 - l2) + (0.76 - l2) ** 2)
    assert (change.low, change.high) == pytest.approx((0.2 - down, 0.2 + up))


def test_prompts_that_say_nothing_do_not_count() -> None:
    change = shares([True, None, None], [None, False, True])
    assert (change.before.n, change.after.n, change.by) == (1, 2, -0.5)
    assert math.isnan(shares([None], [True]).by)


def test_a_ratio_by_hand() -> None:
    change = ratios([RatioPart(10, 1), RatioPart(20, 1)], [RatioPart(10, 2), RatioPart(50, 2)])
    assert (change.before.value, change.after.value, change.by) == (15, 15, 0)
    assert (change.before.low, change.before.high) == (10, 20)
    nothing = ratios([RatioPart(0, 5), RatioPart(0, 7)], [RatioPart(1, 5), RatioPart(1, 7)])
    assert nothing.before.value == 0
    assert math.isnan(nothing.before.low)
    assert nothing.low > 0


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = [0.1, 0.4, 0.5, 0.2]
    change = left_out(values, values, lambda some: sum(some) / len(some))
    error = math.sqrt(sum((value - 0.3) ** 2 for value in values) / 3 / 4)
    assert change.before.high - change.before.value == pytest.approx(3.182446 * error, rel=1e-5)  # t, 3 df
    assert (change.by, change.low, change.high) == (0, 0, 0)


@pytest.mark.parametrize("share", [0.03, 0.3, 0.9])
def test_shares_that_do_not_differ_are_rarely_told_apart(share: float) -> None:
    """At 99 % at most 1 in 50 of 1000 draws, and a real difference of the same size of sample is found."""
    rng = random.Random(f"{share}")

    def draw(probability: float) -> list[bool]:
        return [rng.random() < probability for _ in range(24)]

    def found(change: BeforeAfter) -> bool:
        return change.low > 0 or change.high < 0

    assert sum(found(shares(draw(share), draw(share))) for _ in range(1000)) <= 20
    assert sum(found(shares(draw(0.1), draw(0.8))) for _ in range(200)) >= 190


def test_means_that_do_not_differ_are_rarely_told_apart() -> None:
    rng = random.Random(2)

    def draw(mean: float) -> list[RatioPart]:
        return [RatioPart(rng.expovariate(1 / mean), 1) for _ in range(24)]

    def found(change: BeforeAfter) -> bool:
        return change.low > 0 or change.high < 0

    assert sum(found(ratios(draw(10), draw(10))) for _ in range(150)) <= 6
    assert sum(found(ratios(draw(10), draw(40))) for _ in range(50)) >= 45
