"""The report card as a page that stands by itself: its plots, and what each is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from preceptor.prompts.shown import html_page
from preceptor.train.data.counts import TrainedRows
from preceptor.train.evaluation.plots import CSS, calibration, shares
from preceptor.train.evaluation.reward_figures import RewardFigures

TEMPLATE = Path(__file__).with_name("card.html")


def page(figures: RewardFigures, settings: Mapping[str, Any], rows: TrainedRows) -> str:
    """The page as HTML; nothing is loaded from anywhere.

    figures: of `train.evaluation.report_card.card`; settings: of the training; rows: what became of them, as in
    `train.data.counts.TrainedRows`.
    """
    values = {
        "card": figures,
        "settings": settings,
        "rows": rows,
        "table": _table(figures),
        "plots": _plots(figures) if figures["n"] else [],
    }
    return html_page(TEMPLATE, CSS, values)


def _table(figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(name, value, meaning) of the figures that are there."""
    length = figures.get("length") or {}
    samples, gold, spread = (figures.get(name) or {} for name in ("samples", "gold", "spread"))
    before = (figures.get("before_debias") or {}).get("length") or {}
    taken = figures.get("attributes") or {}
    every = [
        (
            "accuracy",
            _share(figures),
            "pairs whose chosen reply has the higher reward, with the 95 % interval",
        ),
        (
            "NLL",
            _number(figures, "nll"),
            f"nats a pair against the judge's probability; the least there is: {_number(figures, 'nll_floor')}",
        ),
        ("Brier", _number(figures, "brier"), "mean square of the two probabilities' difference"),
        ("ECE", _number(figures, "ece"), "mean gap between confidence and agreement"),
        (
            "temperature",
            _number(figures, "temperature"),
            "by which margins should be divided; 1 is calibrated",
        ),
        (
            "ECE, fitted",
            _number(figures, "ece_fitted"),
            "with the temperature of the other half of the pairs",
        ),
        ("length", _number(length, "correlation"), "correlation of margin and length difference"),
        ("length | label", _number(length, "partial_correlation"), "the same, given the judge's label"),
        (
            "judge's length",
            _number(length, "judge_correlation"),
            "correlation of the judge's label with length",
        ),
        (
            "length before",
            _number(before, "correlation"),
            f"before {', '.join(taken) or 'length'} was taken out; given the label "
            f"{_number(before, 'partial_correlation')}",
        ),
        *(
            (
                name,
                _number(own, "after"),
                f"how far it tells margins; {_number(own, 'before')} before it was taken out",
            )
            for name, own in taken.items()
        ),
        (
            "gold",
            _share(gold),
            "agreement with people's verdicts; the judge's own: " + _number(gold, "judge"),
        ),
        (
            "spread",
            _number(spread, "mean"),
            "of the margin over the members; accuracy on the surer half "
            f"{_share(spread.get('surer_half', {}))}, on the other {_share(spread.get('less_sure_half', {}))}",
        ),
        (
            "spread of samples",
            _number(samples, "std_within_prompt"),
            f"standard deviation of the reward over a policy's replies to one prompt; {samples.get('prompts', 0)} "
            f"prompts; over all replies {_number(samples, 'std')}",
        ),
    ]
    return [(name, value, meaning) for name, value, meaning in every if value != "–"]


def _plots(figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(title, note, SVG) of what there are rows for."""
    by_probability = [(f"{row['low']:.1f} to {row['high']:.1f}", row) for row in figures["by_probability"]]
    by_length = [(_bucket(row), row) for row in figures["by_length"]]
    accuracies: list[tuple[str, str, Sequence[tuple[str, Mapping[str, Any]]]]] = [
        (
            "By the judge's probability",
            "where the judge was unsure, there is little to learn",
            by_probability,
        ),
        ("By length", "chosen minus rejected reply, in tokens; a slope is a length bias", by_length),
        ("By tag of the prompt", "", list(figures["by_tag"].items())),
        (
            "By principle",
            "agreement with the judge's verdict on that principle alone",
            list(figures["by_principle"].items()),
        ),
    ]
    return [
        (
            "Calibration",
            "the line is where probabilities are as often right as they say; a dot's area is its pairs",
            calibration(figures["bins"]),
        ),
        *(
            (title, note, shares(rows, "accuracy; pairs at the right"))
            for title, note, rows in accuracies
            if rows
        ),
    ]


def _bucket(row: Mapping[str, Any]) -> str:
    return f"{row['low']:+d}" if row["low"] == row["high"] else f"{row['low']:+d} to {row['high']:+d}"


def _number(figures: Mapping[str, Any], name: str) -> str:
    value = figures.get(name)
    return "–" if value is None else f"{value:.3f}"


def _share(figures: Mapping[str, Any]) -> str:
    if not figures.get("n"):
        return "–"
    low, high = figures["ci95"]
    return f"{figures['accuracy']:.3f} [{low:.3f}, {high:.3f}] of {figures['n']}"
