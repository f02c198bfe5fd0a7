"""Labels -> figures about the judge, and the gate over them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.constitution.errors import UserError
from preceptor.constitution.principle import Constitution
from preceptor.judge.audit.audit import audit, require_gold
from preceptor.judge.conditions import gate
from preceptor.judge.errors import PairsError
from preceptor.judge.label import label
from preceptor.judge.models.protocol import Completion, Failure, Request
from preceptor.judge.records import Label, Letter, Pair
from preceptor.judge.settings import LabelSettings
from preceptor.judge.voting.cascade import Judge, Step, label_by_steps
from preceptor.prompts.template import load
from tests.judge.canned import BOTH, KIND, SHORT, Absent, drive, first_shown, pair, prompt, says

ONE = Constitution(name="one", principles=(KIND,))
KEYS = {"n", "accuracy", "correct_original", "correct_swapped", "correct_both", "orders_agree", "flip_rate"} | {
    "first_share", "longer_share", "kappa", "ece", "ci95", "unparsed", "cost_usd", "by_tag", "by_principle"
}  # fmt: skip


def made(verdicts: Sequence[str], gold: Sequence[Letter | None], **fields: Any) -> list[Label]:
    """One label for each pair of letters as the judge says them: "AB" is A in the original and B in the
    swapped order.

    Reply a is always the shorter one; "?" is no verdict.
    """
    labels = []
    for index, (said, preferred) in enumerate(zip(verdicts, gold, strict=True)):
        row = Pair(
            id=str(index),
            prompt=prompt("even" if index % 2 == 0 else "odd"),
            response_a=f"short {index}",
            response_b=f"a good deal longer {index}",
            preferred=preferred,
        )
        replies = iter("Hard to say." if letter == "?" else f"Verdict: {letter}" for letter in said)
        chosen = LabelSettings(orders="both" if len(said) == 2 else "original", tie=True, **fields)
        labels.append(drive(label(row, ONE, Absent(), None, chosen), lambda _, r=replies: says(next(r)))[0])
    return labels


def test_the_contracts_keys() -> None:
    figures = audit(made(["AB"], ["a"]), ONE, cost_usd=0.25)
    assert set(figures) >= KEYS
    assert figures["cost_usd"] == 0.25
    common = set(figures) - {"cost_usd", "by_tag", "by_principle", "kappa_ci95", "ece_ci95", "agreement_lc"}
    assert set(figures["by_tag"]["even"]) == common
    assert set(figures["by_principle"]["kind"]) == common | {"decided"}


def test_counts() -> None:
    """Four pairs whose better reply is a: right in both orders, a flip to the first, a flip to the second,
    wrong.
    """
    figures = audit(made(["AB", "AA", "BB", "BA"], ["a"] * 4), ONE)
    assert (figures["correct_original"], figures["correct_swapped"], figures["correct_both"]) == (2, 2, 1)
    assert (figures["orders_agree"], figures["flip_rate"]) == (2, 0.5)
    assert figures["accuracy"] == 0.5
    assert figures["first_share"] == 0.5
    assert figures["longer_share"] == 0.5
    assert figures["by_tag"]["even"]["correct_both"] == 1
    assert figures["by_tag"]["odd"]["correct_both"] == 0


def test_habits_are_seen_without_gold() -> None:
    figures = audit(made(["AA", "AA", "BA"], [None] * 3), ONE)
    assert figures["n"] == 0
    assert figures["accuracy"] is figures["kappa"] is figures["ece"] is figures["ci95"] is None
    assert figures["flip_rate"] == pytest.approx(2 / 3)
    assert figures["first_share"] == pytest.approx(5 / 6)
    assert figures["longer_share"] == pytest.approx(4 / 6)


def test_a_missing_verdict_is_wrong_but_no_flip() -> None:
    figures = audit(made(["A?", "??", "AB"], ["a"] * 3), ONE)
    assert (figures["correct_original"], figures["correct_swapped"], figures["correct_both"]) == (2, 1, 1)
    assert (figures["unparsed"], figures["verdicts"]) == (3, 3)
    assert (figures["orders_agree"], figures["flip_rate"]) == (1, 0.0)


def test_statuses_are_counted_apart() -> None:
    failed, _ = drive(
        label(pair(), ONE, Absent(), None, LabelSettings()), lambda _: Failure(kind="failed", problem="x")
    )
    refused, _ = drive(
        label(pair(), ONE, Absent(), None, LabelSettings()), lambda _: says("", finish_reason="refused")
    )
    figures = audit([failed, refused], ONE)
    assert (figures["failed"], figures["refused"], figures["unparsed"]) == (2, 2, 0)


def test_one_order_alone_has_no_figures_about_two() -> None:
    figures = audit(made(["A", "B"], ["a", "a"]), ONE)
    assert (figures["correct_original"], figures["accuracy"]) == (1, 0.5)
    assert (
        figures["correct_swapped"]
        is figures["correct_both"]
        is figures["orders_agree"]
        is figures["flip_rate"]
        is None
    )


def test_gold_ties() -> None:
    same = pair("same", "same").model_copy(update={"preferred": "tie"})
    equal, _ = drive(label(same, ONE, Absent(), None, LabelSettings()), lambda _: says("Verdict: A"))
    figures = audit([*made(["tt"], ["tie"]), equal], ONE)
    assert figures["n"] == 2
    assert figures["unparsed"] == 2
    assert figures["correct_both"] == 1


def test_the_interval_is_wilsons() -> None:
    """Wilson (1927) for 3 of 4: centre (p + z^2/2n)/(1 + z^2/n), half-width z sqrt(p(1-p)/n + z^2/4n^2)/(1 +
    z^2/n).
    """
    figures = audit(made(["AB", "AB", "AB", "BA"], ["a"] * 4), ONE)
    assert figures["ci95"] == pytest.approx([0.30064, 0.95441], abs=1e-4)


def test_half_a_correct_label_widens_the_interval() -> None:
    low, high = audit(made(["AB", "AA"], ["a", "a"]), ONE)["ci95"]
    assert (low, high) == pytest.approx((audit(made(["AB", "BA"], ["a", "a"]), ONE)["ci95"][0], 1.0))


def test_kappa_is_one_for_agreement_and_zero_for_a_coin() -> None:
    assert audit(made(["AB", "BA"], ["a", "b"]), ONE)["kappa"] == pytest.approx(1.0)
    assert audit(made(["AB", "AB", "BA", "BA"], ["a", "b", "a", "b"]), ONE)["kappa"] == pytest.approx(0.0)
    assert audit(made(["AB"], ["a"]), ONE)["kappa"] is None


def test_calibration_error_by_hand() -> None:
    """Confidence 0.8 and right, 0.8 and wrong: the bin holds 0.8 and is right half of the time, so the error
    is 0.3.
    """

    def sure(request: Request) -> Completion:
        first = 0.8 if first_shown(request) == pair().response_a else 0.2
        return says("Verdict: A" if first > 0.5 else "Verdict: B", probabilities={"a": first, "b": 1 - first})

    labels = []
    for gold in ("a", "b"):
        row = pair().model_copy(update={"id": gold, "preferred": gold})
        labels.append(drive(label(row, ONE, Absent(), None, LabelSettings()), sure)[0])
    assert audit(labels, ONE)["ece"] == pytest.approx(0.3)


def test_each_principle_is_audited_alone() -> None:
    """kind is always right, the check on length always wrong: together the check's weight of 4 decides."""
    mixed = Constitution(name="mixed", principles=(KIND, SHORT))
    row = pair("one", "two three four five").model_copy(update={"preferred": "b"})
    made_label, _ = drive(
        label(row, mixed, Absent(), None, LabelSettings()),
        lambda request: says("Verdict: B" if first_shown(request) == "one" else "Verdict: A"),
    )
    figures = audit([made_label], mixed)
    assert figures["correct_both"] == 0
    assert figures["by_principle"]["kind"]["correct_both"] == 1
    assert figures["by_principle"]["short"]["correct_both"] == 0


def test_a_principle_decides_where_without_it_the_orders_would_disagree() -> None:
    """Without the check the label has a probability, 0.6 for a as with it, and no winner: it is inconsistent."""

    def unsure(request: Request) -> Completion:
        first = 0.9 if first_shown(request) == "one" else 0.7
        return says("Verdict: A", probabilities={"a": first, "b": 1 - first})

    mixed = Constitution(name="mixed", principles=(KIND, SHORT))
    made_label, _ = drive(
        label(pair("one", "two three four five"), mixed, Absent(), None, LabelSettings()), unsure
    )
    assert made_label.status == "ok"
    alone, _ = drive(label(pair("one", "two three four five"), ONE, Absent(), None, LabelSettings()), unsure)
    assert (alone.status, alone.probability) == ("inconsistent", pytest.approx(0.6))
    by_principle = audit([made_label], mixed)["by_principle"]
    assert {name: own["decided"] for name, own in by_principle.items()} == {"kind": 0, "short": 1}


def test_habits_are_the_judges_own_and_not_the_checks() -> None:
    """A judge that always prefers the longer reply, its own, beside a heavier check that prefers the shorter one."""
    mixed = Constitution(name="mixed", principles=(KIND, SHORT))
    row = pair("one", "two three four five").model_copy(update={"models": ("other/m", Absent.name)})
    longer, _ = drive(
        label(row, mixed, Absent(), None, LabelSettings()),
        lambda request: says("Verdict: B" if first_shown(request) == "one" else "Verdict: A"),
    )
    figures = audit([longer], mixed)
    assert longer.probability == pytest.approx(0.8)
    assert longer.status == "ok"
    assert (figures["longer_share"], figures["self_share"], figures["first_share"]) == (1.0, 1.0, 0.5)
    assert figures["by_principle"]["short"]["longer_share"] is None


def test_each_judge_of_a_panel_has_its_own_habits() -> None:
    """Both prefer what they wrote themselves; together they are of two minds about every pair."""
    second = Absent()
    second.name = "scripted/other"
    row = pair().model_copy(update={"models": (Absent.name, second.name)})

    def vain(request: Request) -> Completion:
        own = pair().response_a if request.model == Absent.name else pair().response_b
        return says("Verdict: A" if first_shown(request) == own else "Verdict: B")

    steps = [Step((Judge(Absent(), load("compare")), Judge(second, load("compare"))))]
    made_label, _ = drive(label_by_steps(row, ONE, steps, LabelSettings(), "mean"), vain)
    figures = audit([made_label], ONE)
    assert (figures["self_share"], figures["longer_share"], figures["first_share"]) == (1.0, 0.5, 0.5)


def test_labels_of_another_constitution_are_refused() -> None:
    with pytest.raises(PairsError, match=r"label 0 was judged by kind, which .* does not hold for its tags"):
        audit(made(["AB"], ["a"]), Constitution(name="other", principles=(SHORT,)))
    assert audit(made(["AB"], ["a"]), BOTH)["n"] == 1


def test_an_audit_wants_gold() -> None:
    with pytest.raises(
        PairsError, match="no row has `preferred`; an audit wants pairs whose better reply is known"
    ):
        require_gold(made(["AB"], [None]))
    require_gold(made(["AB", "AB"], [None, "a"]))


FIGURES = {"flip_rate": 0.3, "accuracy": 0.8, "unparsed": 0, "kappa": None, "ci95": [0.1, 0.2], "by_tag": {}}


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ("flip_rate > 0.2", True),
        ("flip_rate > 0.3", False),
        ("flip_rate >= .3 and accuracy<0.9", True),
        ("not flip_rate > 0.2", False),
        ("flip_rate > 0.5 or (unparsed == 0 and accuracy != 1)", True),
        ("0.7 < accuracy <= 0.8", True),
        ("accuracy > -1", True),
    ],
)
def test_gates(expression: str, holds: bool) -> None:
    assert gate(expression, FIGURES) is holds


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        (
            "flip_rat > 0.2",
            r"'flip_rat' in 'flip_rat > 0\.2' is no figure; there are accuracy, flip_rate, kappa, unparsed",
        ),
        ("ci95 > 0.2", r"'ci95' in .* is no figure"),
        ("accuracy > 0 or nothing > 1", r"'nothing' in .* is no figure"),
        ("kappa < 0.5", r"kappa has no value here"),
        ("flip_rate", r"wanted comparisons"),
        ("1", r"wanted comparisons"),
        ("accuracy is 1", r"wanted comparisons"),
        ("accuracy in flip_rate", r"wanted comparisons"),
        ("flip_rate + 1 > 2", r"wanted a number, a text in quotes or the name of a figure"),
        ("flip_rate > True", r"wanted a number"),
        ("__import__('os') > 1", r"wanted a number"),
        ("(lambda: 1)() > 0", r"wanted a number"),
        ("flip_rate >", r"is no expression; wanted e\.g\."),
        ("", r"is no expression"),
    ],
)
def test_gates_that_are_none(expression: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        gate(expression, FIGURES)


@settings(deadline=None)
@given(st.text(max_size=30))
def test_no_text_is_anything_but_a_gate_or_a_message(text: str) -> None:
    with suppress(UserError):
        assert gate(text, FIGURES) in (True, False)
