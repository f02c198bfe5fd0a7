"""Response -> Revision: n rounds of critique and rewrite."""

from __future__ import annotations

from collections import Counter

import pytest

from preceptor.asking.stages import pairs_to_label
from preceptor.constitution.principle import Constitution, Principle
from preceptor.judge.models.protocol import Completion, Failure, Outcome, Request
from preceptor.judge.records import ReplyStatus
from preceptor.judge.revise import drawn, revise
from preceptor.judge.settings import ReviseSettings
from preceptor.prompts.records import content_id
from tests.judge.canned import BOTH, KIND, TRUE, Absent, drive, response, says

BARE = Constitution(name="bare", principles=(Principle(id="plain", text="Choose the plain reply."),))
REFUSAL = "I'm sorry, but I can't help with that."


def by_stage(request: Request) -> Completion:
    return says(f"{request.stage} for {request.principle}")


def test_rounds_alternate_critique_and_revision_and_keep_every_step() -> None:
    revision, asked = drive(revise(response(), BOTH, Absent(), ReviseSettings(rounds=2)), by_stage)
    assert [request.stage for request in asked] == ["critique", "revise", "critique", "revise"]
    assert revision.status == "ok"
    assert revision.text == revision.drafts[-1]
    assert len(revision.critiques) == len(revision.drafts) == len(revision.calls) == 2
    assert list(revision.calls) == [asked[1].key, asked[3].key]
    assert [critique.call for critique in revision.critiques] == [asked[0].key, asked[2].key]
    assert {critique.principle for critique in revision.critiques} == {"kind", "true"}
    assert revision.constitution == BOTH.identity


def test_each_round_works_on_the_draft_before_it() -> None:
    replies = iter(["first critique", "first draft", "second critique", "second draft"])
    _, asked = drive(
        revise(response("the original"), BOTH, Absent(), ReviseSettings(rounds=2)),
        lambda _: says(next(replies)),
    )
    shown = [request.messages[-1].content for request in asked]
    assert "the original" in shown[0]
    assert "the original" in shown[1]
    assert "first critique" in shown[1]
    assert "first draft" in shown[2]
    assert "the original" not in shown[2]
    assert "second critique" in shown[3]


@pytest.mark.parametrize("stage", ["critique", "revise"])
@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Failure(kind="failed", problem="overloaded"), "failed"),
        (Failure(kind="refused", problem="filtered"), "refused"),
        (says("", finish_reason="refused"), "refused"),
        (says("  "), "empty"),
        (says("half a tho", finish_reason="length"), "truncated"),
    ],
)
def test_a_step_that_fails_leaves_the_former_draft(stage: str, outcome: Outcome, status: ReplyStatus) -> None:
    """The status is that of the first round that failed, and the rounds after it go on from the former draft."""
    row = response("the original")
    first = drawn(BOTH.principles, row.id, ReviseSettings())[0].id
    revision, _ = drive(
        revise(row, BOTH, Absent(), ReviseSettings(rounds=1)),
        lambda request: outcome if request.stage == stage else by_stage(request),
    )
    assert (revision.text, revision.drafts, revision.calls) == ("the original", (), ())
    assert revision.status == status
    assert revision.problem.startswith(
        f"round 1 ({first}): {'critique' if stage == 'critique' else 'revision'}: "
    )

    revision, _ = drive(
        revise(row, BOTH, Absent(), ReviseSettings(rounds=2)),
        lambda request: (
            outcome if (request.stage, request.principle) == (stage, first) else by_stage(request)
        ),
    )
    assert len(revision.drafts) == 1
    assert revision.text == revision.drafts[0]
    assert revision.status == status


def test_a_critique_that_declines_is_none_but_a_revision_may_decline() -> None:
    settings = ReviseSettings(rounds=1)
    declined, _ = drive(revise(response(), BOTH, Absent(), settings), lambda _: says(REFUSAL))
    assert declined.status == "refused"
    repaired, _ = drive(
        revise(response(), BOTH, Absent(), settings),
        lambda request: says(REFUSAL if request.stage == "revise" else "It helps with harm."),
    )
    assert (repaired.status, repaired.text) == ("ok", REFUSAL)


@pytest.mark.parametrize(
    ("status", "text"), [("refused", ""), ("empty", ""), ("failed", ""), ("truncated", "It is half a")]
)
def test_a_response_without_a_whole_reply_is_passed_on(status: ReplyStatus, text: str) -> None:
    """And one that was cut off with all of its text: its revision would be compared with half a reply."""
    revision, asked = drive(
        revise(response(text, status=status, problem="why"), BOTH, Absent(), ReviseSettings()), by_stage
    )
    assert asked == []
    assert (revision.status, revision.text) == (status, text)
    assert "why" in revision.problem


def test_without_critique_wording_nothing_is_asked() -> None:
    revision, asked = drive(revise(response("as it was"), BARE, Absent(), ReviseSettings()), by_stage)
    assert asked == []
    assert (revision.status, revision.text) == ("failed", "as it was")
    assert revision.problem == "no principle with critique wording applies to this prompt"


def test_the_draw_is_a_pure_function_that_reaches_every_principle() -> None:
    """No principle comes twice before each came once, and over many rows each comes about equally often."""
    principles = tuple(KIND.model_copy(update={"id": f"p{index}"}) for index in range(4))
    settings = ReviseSettings(rounds=6, seed=1)
    for index in range(50):
        draw = drawn(principles, f"r{index}", settings)
        assert draw == drawn(principles[::-1], f"r{index}", settings)
        assert len({principle.id for principle in draw[:4]}) == 4
        assert draw[4:] == draw[:2]
    first = Counter(drawn(principles, f"r{index}", settings)[0].id for index in range(800))
    assert min(first.values()) > 140
    assert [drawn(principles, f"r{i}", settings) for i in range(9)] != [
        drawn(principles, f"r{i}", ReviseSettings(rounds=6, seed=2)) for i in range(9)
    ]


def test_principles_without_critique_wording_are_never_drawn() -> None:
    assert drawn((*BARE.principles, TRUE), "r", ReviseSettings(rounds=3)) == (TRUE, TRUE, TRUE)


def test_no_revision_of_half_a_reply_is_compared_with_it() -> None:
    """Not even one that an older version made."""
    whole, half = response(), response("It is half a", id="response-2", status="truncated")
    made = [drive(revise(row, BOTH, Absent(), ReviseSettings()), by_stage)[0] for row in (whole, half)]
    older = made[0].model_copy(update={"id": "older", "response": half})
    assert [pair.sources for pair in pairs_to_label([], [older, *made])] == [
        tuple(sorted((whole.id, made[0].id), key=lambda one: content_id("slot", one)))
    ]
