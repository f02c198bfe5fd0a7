"""How judgements are held against an oracle."""

from __future__ import annotations

from preceptor.constitution.principle import Constitution, Principle
from preceptor.evaluation.oracles import agreement, by_checks
from preceptor.judge import compare
from preceptor.judge.records import Judgement, Label, Pair
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


def test_a_check_decides_the_same_as_a_label_and_as_the_oracle() -> None:
    """However the texts of two system messages meet: "7" and "pm" are a time of day on one line, and none apart."""
    rule = Principle(id="sourced", text="Take numbers from the notes.", check={"numbers_from": "system"})
    told = ("The pool opens at 7", "pm is when it shuts.")
    messages = [
        *(Message(role="system", content=text) for text in told),
        Message(role="user", content="When?"),
    ]
    prompt = Prompt(id="p", messages=messages)
    for reply in ("It opens at 7 am.", "It opens at 7 pm.", "It opens at 8."):
        # beside a reply that passes, the check's letter is a tie if and only if this one passes
        pair = Pair(id="one", prompt=prompt, response_a=reply, response_b="It opens.")
        passed = by_checks(Constitution(name="c", principles=(rule,)), prompt, reply)["sourced"]
        assert (compare.check(pair, rule).letter == "tie") is passed, reply
