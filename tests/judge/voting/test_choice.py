"""Which recorded judges should decide together; effective votes; what each member adds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from preceptor.judge.voting.choice import Recordings, choose, correctness, worth
from preceptor.judge.voting.confidence import effective_votes, error_correlation


def recordings(rights: list[Any], seed: int = 0) -> Recordings:
    """Judges who are right in these rows, gold by a coin."""
    gold = np.random.default_rng(seed).integers(0, 2, len(rights[0])).astype(float)
    said = np.stack([np.where(right, gold, 1 - gold) for right in rights], axis=1)
    return Recordings(tuple(f"j{number}" for number in range(len(rights))), said, gold)


def independent(*accuracies: float, rows: int = 1500, seed: int = 1) -> Recordings:
    drawn = np.random.default_rng(seed)
    return recordings([drawn.random(rows) < share for share in accuracies], seed)


def test_effective_votes_of_like_minded_and_of_independent_judges() -> None:
    assert effective_votes(6, 1.0) == 1
    assert effective_votes(6, 0.0) == effective_votes(6, -0.2) == 6
    assert effective_votes(6, 0.34) == pytest.approx(6 / 2.7)
    assert effective_votes(1, 0.5) == 1


def test_correlation_of_errors_by_hand() -> None:
    both = np.array([[1, 1], [0, 0], [1, 1], [0, 0]])
    assert error_correlation(both) == pytest.approx(1.0)
    assert error_correlation(np.array([[1, 0], [0, 0], [1, 1], [0, 1]])) == pytest.approx(0.0)
    assert error_correlation(np.array([[1, 0], [0, 0]])) is None
    assert error_correlation(np.zeros((0, 3))) is None


def test_independent_judges_form_a_panel_and_copies_do_not() -> None:
    assert len(choose(independent(0.75, 0.75, 0.75))) == 3
    right = np.random.default_rng(2).random(1500) < 0.75
    assert len(choose(recordings([right, right, right]))) == 1


def test_a_good_judge_among_poor_ones_is_enough() -> None:
    assert choose(independent(0.6, 0.92, 0.6)) == (1,)


def test_no_recommended_panel_loses_to_its_best_member_on_other_rows() -> None:
    """Two hundred resplits of judges of whom a panel is hardly better than one."""
    drawn = np.random.default_rng(3)
    known = independent(0.72, 0.75, 0.74, 0.7, rows=600, seed=4)
    panels = lost = 0
    for _ in range(200):
        order = drawn.permutation(600)
        halves = [
            known._replace(said=known.said[some], gold=known.gold[some])
            for some in (order[:300], order[300:])
        ]
        chosen = choose(halves[0])
        if len(chosen) > 1:
            panels += 1
            best = max(chosen, key=lambda one: correctness(halves[0].said[:, [one]], halves[0].gold).mean())
            held_out = [
                correctness(halves[1].said[:, some], halves[1].gold).mean() for some in (chosen, [best])
            ]
            lost += held_out[0] < held_out[1]
    assert panels > 20, "or nothing was tried"
    assert lost == 0


def test_what_each_judge_adds_for_a_dollar() -> None:
    known = independent(0.75, 0.75, 0.75)
    found = worth(known, {"j0": 0.5, "j1": None})
    first, second, third = found["members"]
    assert found["effective_votes"] == pytest.approx(3, abs=0.3)
    without = correctness(known.said[:, [1, 2]], known.gold).mean()
    assert first["adds"] == pytest.approx(found["accuracy"] - without)
    assert first["adds_per_usd"] == pytest.approx(first["adds"] / 0.5)
    assert (second["adds_per_usd"], third["cost_usd"]) == (None, None)
