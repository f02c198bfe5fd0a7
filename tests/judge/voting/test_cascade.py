"""Panels and escalation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preceptor.constitution.errors import UserError
from preceptor.judge.aggregate import deciding
from preceptor.judge.errors import PairsError
from preceptor.judge.label import label
from preceptor.judge.models.protocol import Completion, Outcome, Request
from preceptor.judge.records import Label, Vote
from preceptor.judge.settings import LabelSettings
from preceptor.judge.voting.cascade import Judge, Step, combined, label_by_steps, require_steps, together
from preceptor.judge.voting.confidence import confidence
from preceptor.prompts.template import load
from tests.judge.canned import BOTH, WITH_CHECK, Absent, drive, first_shown, pair, says

STEADY = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
"""For a machine that is busy."""

TEMPLATE = load("compare")
Answer = Callable[[Request], Outcome]


def judge(name: str) -> Judge:
    model = Absent()
    model.name = name
    return Judge(model, TEMPLATE)


def prefers_a(request: Request) -> Completion:
    shown_first = first_shown(request) == pair().response_a
    return says("Verdict: A" if shown_first else "Verdict: B")


def prefers_b(request: Request) -> Completion:
    return says("Verdict: B" if prefers_a(request).text == "Verdict: A" else "Verdict: A")


def first_slot(_: Request) -> Completion:
    return says("Verdict: A")


def by(answers: dict[str, Answer]) -> Answer:
    return lambda request: answers[request.model](request)


def made(steps: list[Step], answers: dict[str, Answer], rule: str = "mean") -> tuple[Label, list[Request]]:
    return drive(label_by_steps(pair(), BOTH, steps, LabelSettings(), rule), by(answers))  # type: ignore[arg-type]


def test_one_judge_alone_gives_the_plain_label() -> None:
    alone, asked = made([Step((judge("x"),))], {"x": prefers_a})
    plain, asked_plain = drive(
        label(pair(), BOTH, judge("x").model, TEMPLATE, LabelSettings()), by({"x": prefers_a})
    )
    assert alone == plain
    assert asked == asked_plain


def test_a_panel_is_asked_at_once_and_the_majority_counts() -> None:
    rounds: list[int] = []
    answers = {"x": prefers_a, "y": prefers_a, "z": prefers_b}
    dialogue = label_by_steps(pair(), BOTH, [Step(tuple(map(judge, answers)))], LabelSettings(), "majority")
    requests = next(dialogue)
    rounds.append(len(requests))
    with pytest.raises(StopIteration) as end:
        dialogue.send([by(answers)(request) for request in requests])
    row: Label = end.value.value
    assert rounds == [6]
    assert (row.status, row.probability) == ("ok", pytest.approx(2 / 3))
    assert row.judge == "x + y + z"
    assert [(vote.judge, vote.probability) for vote in row.votes] == [("x", 1.0), ("y", 1.0), ("z", 0.0)]
    assert len(row.judgements) == 6


def test_two_who_disagree_are_a_tie_and_no_preference() -> None:
    row, _ = made([Step((judge("x"), judge("y")))], {"x": prefers_a, "y": prefers_b})
    assert (row.status, row.probability) == ("tie", 0.5)


def test_whoever_has_no_verdict_abstains() -> None:
    """A failed judge is not half a vote, and where all fail nobody wins."""
    row, _ = made([Step((judge("x"), judge("y")))], {"x": prefers_a, "y": lambda _: says("who knows")})
    assert (row.status, row.probability) == ("ok", 1.0)
    row, _ = made([Step((judge("x"), judge("y")))], {"x": first_slot, "y": lambda _: says("who knows")})
    assert (row.status, row.probability) == ("unparsed", None)


def test_a_machine_check_is_in_the_row_once_however_many_judge() -> None:
    row, _ = drive(
        label_by_steps(pair(), WITH_CHECK, [Step((judge("x"), judge("y")))], LabelSettings(), "mean"),
        by({"x": prefers_a, "y": prefers_a}),
    )
    assert [one.model for one in row.judgements].count("checks") == 1


WHEN = 'status != "ok" or margin < 0.2'


def test_only_the_doubtful_are_escalated() -> None:
    steps = [Step((judge("cheap"),)), Step((judge("dear"),), WHEN)]
    sure, asked = made(steps, {"cheap": prefers_a, "dear": prefers_b})
    assert {request.model for request in asked} == {"cheap"}
    assert (sure.probability, sure.votes) == (1.0, ())
    doubtful, asked = made(steps, {"cheap": first_slot, "dear": prefers_b})
    assert [request.model for request in asked] == ["cheap", "cheap", "dear", "dear"]
    assert (doubtful.status, doubtful.probability, doubtful.judge) == ("ok", 0.0, "dear")
    assert [(vote.step, vote.status) for vote in doubtful.votes] == [(0, "inconsistent"), (1, "ok")]
    assert {one.model for one in deciding(doubtful)} == {"dear"}
    assert len(doubtful.judgements) == 4


def test_three_steps_stop_where_one_is_sure() -> None:
    steps = [Step((judge("a"),)), Step((judge("b"),), WHEN), Step((judge("c"),), WHEN)]
    row, asked = made(steps, {"a": first_slot, "b": prefers_b, "c": prefers_a})
    assert {request.model for request in asked} == {"a", "b"}
    assert row.judge == "b"


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ("flips > 1", "'flips' .* is no figure"),
        ("margin +", "is no expression"),
        ("margin", "wanted comparisons"),
    ],
)
def test_a_condition_is_read_before_anybody_is_asked(when: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        require_steps([Step((judge("x"),)), Step((judge("y"),), when)])


def test_nobody_judges_twice() -> None:
    with pytest.raises(PairsError, match="x judges twice"):
        require_steps([Step((judge("x"),)), Step((judge("x"),), WHEN)])


def test_votes_that_are_one_stand_as_they_are() -> None:
    vote = Vote(judge="x", step=0, status="inconsistent", probability=0.6)
    assert combined([vote], "mean")[:2] == ("inconsistent", 0.6)


def test_together_keeps_each_dialogues_own_rounds() -> None:
    """A dialogue of three rounds beside one of none and one of one."""

    def rounds(n: int):  # type: ignore[no-untyped-def]
        got = []
        for number in range(n):
            outcomes = yield tuple(
                Request(model=f"{n}", messages=pair().prompt.messages, max_tokens=5, sample=number)
                for _ in range(number + 1)
            )
            got.append([outcome.text for outcome in outcomes])
        return got

    rows, asked = drive(together([rounds(3), rounds(0), rounds(1)]), lambda r: says(f"{r.model}:{r.sample}"))
    assert rows == ([["3:0"], ["3:1", "3:1"], ["3:2", "3:2", "3:2"]], [], [["1:0"]])
    assert len(asked) == 7


@STEADY
@given(st.floats(0.02, 0.98), st.floats(0.02, 0.98), st.floats(0.5, 1.0))
def test_no_second_order_lifts_a_label_beyond_what_is_reachable(
    original: float, swapped: float, keep_from: float
) -> None:
    """And the label is the plain one wherever the second order is asked."""
    shown = {"original": original, "swapped": 1 - swapped}

    def says_so(request: Request) -> Completion:
        order = "original" if first_shown(request) == pair().response_a else "swapped"
        p_first = shown[order]
        letter = "a" if p_first > 0.5 else "b"
        return says(request.menu[letter], probabilities={"a": p_first, "b": 1 - p_first})

    judge = (Judge(Absent(), load("compare")),)
    plain, both = drive(label_by_steps(pair(), BOTH, (Step(judge),), LabelSettings(), "mean"), says_so)
    made, asked = drive(
        label_by_steps(pair(), BOTH, (Step(judge, keep_from=keep_from),), LabelSettings(), "mean"), says_so
    )
    assert (len(both), len(asked)) in ((2, 1), (2, 2))
    if len(asked) == 1:
        assert (confidence(plain) or 0.0) < keep_from
        assert (confidence(made) or 0.0) < keep_from
    else:
        assert (made.status, made.probability) == (plain.status, plain.probability)
        assert confidence(made) == confidence(plain)


def test_a_step_of_one_order_asks_in_one() -> None:
    step = Step((Judge(Absent(), load("compare")),), one_order=True)
    made, asked = drive(
        label_by_steps(pair(), BOTH, (step,), LabelSettings(), "mean"),
        lambda request: says(request.menu["a"]),
    )
    assert len(asked) == len(made.judgements) == 1
    assert made.status == "ok"
