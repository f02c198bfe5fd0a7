"""How judgements are held against an oracle."""

from __future__ import annotations

from preceptor.evaluation.oracles import agreement
from preceptor.judge.records import Judgement, Label
from preceptor.prompts.records import Message, Prompt


def label(letter: str, response_a: str, response_b: str) -> Label:
    return Label(
        id="one",
        status="ok",
        probability=0.5,
        prompt=Prompt(id="p", messages=[Message(role="user", content="say yes")]),
        response_a=response_a,
        response_b=response_b,
        judgements=[
            Judgement(principle="agrees", order="original", letter=letter, status="ok", reason="", model="m")
        ],
        constitution="c",
        judge="j",
    )


def by_word(_: Prompt, reply: str) -> dict[str, bool]:
    return {"agrees": reply == "yes"}


def test_a_judgement_is_right_wrong_or_half_right_where_the_oracle_tells_the_replies_apart() -> None:
    for letter, share in (("a", 1.0), ("b", 0.0), ("tie", 0.5)):
        assert agreement([label(letter, "yes", "no")], by_word) == {"agrees": share}
    assert agreement([label("a", "no", "yes"), label("b", "no", "yes")], by_word) == {"agrees": 0.5}


def test_replies_that_are_alike_to_the_oracle_say_nothing() -> None:
    assert agreement([label("a", "yes", "yes"), label("b", "no", "no")], by_word) == {}
