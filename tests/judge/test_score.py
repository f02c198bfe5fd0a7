"""Grades: expected values where the judge gives probabilities, and never a number out of nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor.judge.models.protocol import Completion, Failure, Outcome, Request
from preceptor.judge.records import Score
from preceptor.judge.score import ReplyToScore, expected_grade, score, template_for
from preceptor.judge.settings import ScoreSettings
from tests.judge.canned import BOTH, WITH_CHECK, Absent, drive, prompt, says

REPLY = ReplyToScore("reply-1", prompt(), "Fine, thank you.")


def scored(answer: object, constitution: object = BOTH, **chosen: object) -> tuple[Score, list[Request]]:
    settings = ScoreSettings.model_validate(chosen)
    template = template_for(Absent(), settings)
    return drive(score(REPLY, constitution, Absent(), template, settings), answer)  # type: ignore[arg-type]


def grades(**shares: float) -> Completion:
    best = max(shares, key=shares.__getitem__)
    return says(f"Score: {best[1:]}", probabilities={name[1:]: share for name, share in shares.items()})


def test_a_grade_is_the_expected_value() -> None:
    made, (asked,) = scored(lambda _: grades(g7=0.5, g9=0.25, g10=0.25))
    assert made.score == pytest.approx(8.25)
    assert made.reward == pytest.approx((8.25 - 1) / 9 * 2 - 1)
    assert (made.status, made.parsed) == ("ok", False)
    assert list(asked.menu) == [str(grade) for grade in range(1, 11)]


def test_without_probabilities_the_written_number_counts_and_the_row_says_so() -> None:
    made, _ = scored(lambda _: says("It is kind.\nScore: 10"), reasoning=True)
    assert (made.score, made.reward, made.parsed) == (10, 1, True)
    assert made.grades[0].reason == "It is kind."


def test_the_last_grade_counts_and_ten_is_not_one() -> None:
    made, _ = scored(lambda _: says("Score: 1 would be wrong.\nScore: 10"), reasoning=True)
    assert made.score == 10
    made, _ = scored(lambda _: says("Score: 10 would be wrong.\nScore: 1"), reasoning=True)
    assert made.score == 1


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Failure(kind="failed", problem="no answer"), "failed"),
        (Failure(kind="refused", problem="filtered"), "refused"),
        (says("Score: eleven"), "unparsed"),
        (says("Score: 11"), "unparsed"),
        (says(""), "unparsed"),
        (says("I cannot help with that."), "refused"),
    ],
)
def test_what_is_no_grade_is_no_number(outcome: Outcome, status: str) -> None:
    """Never 0, never the middle, never the lowest."""
    made, _ = scored(lambda _: outcome)
    assert (made.status, made.score, made.reward) == (status, None, None)
    assert made.unjudged == ("kind", "true")


def test_principles_count_by_their_weight_and_those_without_a_grade_not_at_all() -> None:
    """`true` weighs twice as much as `kind`."""

    def answer(request: Request) -> Outcome:
        return grades(g4=1.0) if request.principle == "kind" else grades(g10=1.0)

    made, asked = scored(answer, principles="each")
    assert made.score == pytest.approx((4 + 2 * 10) / 3)
    assert len(asked) == 2

    def one_fails(request: Request) -> Outcome:
        return says("no") if request.principle == "kind" else grades(g10=1.0)

    made, _ = scored(one_fails, principles="each")
    assert (made.score, made.unjudged) == (10, ("kind",))


def test_machine_checks_are_not_graded() -> None:
    made, _ = scored(lambda _: grades(g5=1.0), WITH_CHECK)
    assert made.unjudged == ("short",)


@given(st.dictionaries(st.integers(1, 10).map(str), st.floats(0.01, 1), min_size=1))
def test_an_expected_grade_lies_among_the_grades(shares: dict[str, float]) -> None:
    found = expected_grade(shares)
    assert found is not None
    assert min(map(int, shares)) - 1e-9 <= found <= max(map(int, shares)) + 1e-9


def test_no_probabilities_have_no_expected_value() -> None:
    assert expected_grade(None) is None
    assert expected_grade({"3": 0.0}) is None
