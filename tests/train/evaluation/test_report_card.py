"""The report card's figures against hand-worked ones and planted faults."""

from __future__ import annotations

import json
import random

import pytest

from preceptor.train.evaluation.calibration import sigmoid
from preceptor.train.evaluation.report_card import (
    Judged,
    card,
    fitted_temperature,
    length_figures,
    sample_figures,
)
from preceptor.train.evaluation.report_card_page import page
from preceptor.train.evaluation.reward_figures import RewardFigures
from tests.declared import faults


def pairs(n: int = 400, scale: float = 1.0, length_bias: float = 0.0) -> list[Judged]:
    """Pairs whose margins fit the judge's probabilities but for a scale, and lean towards length."""
    draw = random.Random(0)
    rows = []
    for number in range(n):
        odds = abs(draw.gauss(0, 2))
        longer = draw.randrange(-40, 41)
        rows.append(
            Judged(
                scale * odds + length_bias * longer,
                sigmoid(odds),
                (100 + longer, 100),
                ("even",) if number % 2 == 0 else (),
                (("kind", 1.0 if number % 4 else 0.0),),
                "chosen" if number % 5 else "rejected",
            )
        )
    return rows


def test_the_temperature_undoes_a_scale() -> None:
    assert fitted_temperature(pairs(scale=1.0)) == pytest.approx(1.0, rel=1e-3)
    assert fitted_temperature(pairs(scale=4.0)) == pytest.approx(4.0, rel=1e-3)
    figures = card(pairs(scale=4.0))
    assert figures["ece"] > 0.05
    assert figures["ece_fitted"] < 0.01


def test_a_planted_length_bias_is_seen_past_the_label() -> None:
    unbiased, biased = length_figures(pairs()), length_figures(pairs(length_bias=0.2))
    assert unbiased["partial_correlation"] == pytest.approx(0, abs=0.1)
    assert biased["partial_correlation"] is not None
    assert biased["partial_correlation"] > 0.8
    buckets = card(pairs(length_bias=0.2))["by_length"]
    assert buckets[0]["accuracy"] < 0.4 < 0.95 < buckets[-1]["accuracy"]


def test_correlations_do_not_depend_on_which_reply_is_called_chosen() -> None:
    rows = pairs(length_bias=0.1)
    turned = [
        row._replace(margin=-row.margin, probability=1 - row.probability, lengths=row.lengths[::-1])
        if number % 3
        else row
        for number, row in enumerate(rows)
    ]
    assert length_figures(turned) == pytest.approx(length_figures(rows))


def test_figures_by_hand() -> None:
    rows = [
        Judged(1.0, 0.9, (5, 3), ("x",), (("p", 0.9), ("q", 0.5)), "chosen", 0.1),
        Judged(-1.0, 0.6, (3, 5), ("x", "y"), (("p", 0.2),), "rejected", 0.9),
        Judged(2.0, 1.0, (4, 4), (), (), "tie", 0.2),
    ]
    figures = card(rows, ensemble=True)
    assert figures["accuracy"] == pytest.approx(2 / 3)
    assert {tag: row["accuracy"] for tag, row in figures["by_tag"].items()} == {"x": 0.5, "y": 0.0}
    assert figures["by_principle"]["p"]["accuracy"] == 1.0
    assert "q" not in figures["by_principle"]
    assert (figures["gold"]["n"], figures["gold"]["accuracy"], figures["gold"]["judge"]) == (2, 1.0, 0.5)
    assert [(row["low"], row["n"]) for row in figures["by_probability"]] == [(0.6, 1), (0.9, 2)]
    assert figures["spread"]["surer_half"]["accuracy"] == 1.0
    assert figures["spread"]["less_sure_half"]["accuracy"] == 0.0


def test_samples_are_told_apart_within_a_prompt() -> None:
    figures = sample_figures([[1.0, 3.0], [11.0, 13.0], [7.0]])
    assert (figures["prompts"], figures["replies"], figures["mean"]) == (2, 4, 7.0)
    assert figures["std_within_prompt"] == pytest.approx(2**0.5)
    assert figures["std"] > 5
    assert sample_figures([[1.0]]) == {"prompts": 0}


def test_cards_have_the_keys_of_their_type() -> None:
    for rows, several in ((pairs(), True), (pairs(length_bias=0.2), False), ([], False)):
        assert list(faults(json.loads(json.dumps(card(rows, ensemble=several))), RewardFigures)) == []


def test_a_card_of_nothing_is_a_card() -> None:
    assert card([]) == {"n": 0}
    settings = {"model": "m", "adapter": None, "per_principle": False, "ensemble": 1, "length_debias": False}
    assert "No pair was held out" in page(card([]), settings, {"used": 3})
    shown = page(card(pairs()), settings, {"used": 3})
    assert shown.count("<svg") == 5
    assert "ECE, fitted" in shown
