"""Prompt -> Responses."""

from __future__ import annotations

from preceptor.judge.models.protocol import Completion, Failure, Outcome, Request
from preceptor.judge.respond import respond
from preceptor.judge.settings import RespondSettings
from preceptor.prompts.records import Message, Prompt
from tests.judge.canned import Absent, drive, prompt, says


def test_every_sample_is_its_own_request_and_comes_back_in_order() -> None:
    responses, asked = drive(
        respond(
            prompt("x"),
            Absent(),
            RespondSettings(samples=3, temperature=0.5, top_p=0.9, seed=5, max_tokens=9),
        ),
        lambda request: says(f"reply {request.sample}"),
    )
    assert [response.text for response in responses] == ["reply 0", "reply 1", "reply 2"]
    assert [response.call for response in responses] == [request.key for request in asked]
    assert len({response.id for response in responses}) == len({request.key for request in asked}) == 3
    assert {(r.temperature, r.top_p, r.seed, r.max_tokens, r.stage) for r in asked} == {
        (0.5, 0.9, 5, 9, "respond")
    }
    assert responses[0].prompt == prompt("x")


def test_a_sample_that_fails_keeps_its_place_and_says_why() -> None:
    outcomes: list[Outcome] = [
        says("  fine \n"),
        says("cut o", finish_reason="length"),
        says("", finish_reason="refused"),
        says(" \n"),
        Failure(kind="failed", problem="overloaded"),
        Failure(kind="refused", problem="filtered"),
    ]
    responses, _ = drive(
        respond(prompt(), Absent(), RespondSettings(samples=6)), lambda request: outcomes[request.sample]
    )
    assert [response.status for response in responses] == [
        "ok",
        "truncated",
        "refused",
        "empty",
        "failed",
        "refused",
    ]
    assert [response.text for response in responses] == ["fine", "cut o", "", "", "", ""]
    assert [bool(response.problem) for response in responses] == [False, True, True, True, True, True]
    assert responses[4].problem == "overloaded"


def test_a_reply_that_declines_in_words_is_a_reply() -> None:
    """For a harmful prompt it may be the right one, and that is for the judge to say."""
    (response,), _ = drive(
        respond(prompt(), Absent(), RespondSettings(samples=1)),
        lambda _: says("I'm sorry, but I can't help with that."),
    )
    assert response.status == "ok"


def test_the_system_message_is_for_prompts_that_bring_none() -> None:
    def asked_with(messages: tuple[Message, ...]) -> tuple[Message, ...]:
        settings = RespondSettings(samples=1, system="Be brief.")
        row = Prompt(id="p", messages=messages)
        return drive(respond(row, Absent(), settings), lambda _: says("x"))[1][0].messages

    user, own = Message(role="user", content="Hi"), Message(role="system", content="Be long.")
    assert asked_with((user,)) == (Message(role="system", content="Be brief."), user)
    assert asked_with((own, user)) == (own, user)


def test_what_was_asked_identifies_the_response() -> None:
    """The same prompt with another seed, and another prompt with the same seed, are other responses."""

    def identity(row: Prompt, seed: int) -> str:
        def answer(_: Request) -> Completion:
            return says("x")

        return drive(respond(row, Absent(), RespondSettings(samples=1, seed=seed)), answer)[0][0].id

    assert identity(prompt(), 0) == identity(prompt(), 0)
    assert len({identity(prompt(), 0), identity(prompt(), 1), identity(prompt(text="Other?"), 0)}) == 3
