"""A disagreement is laid at the door of the principle that caused it, and what is proposed is what people said."""

from __future__ import annotations

import pytest

from preceptor.constitution.errors import UserError
from preceptor.judge.aggregate import deciding, sum_up, weights
from preceptor.judge.records import Judgement, Label, Letter
from preceptor.prompts.records import Message, Prompt
from preceptor.serve.pages.opinion_store import HumanVerdict
from preceptor.serve.pages.proposals import MOST_EXAMPLES, examples_of, mended, proposals
from preceptor.serve.versions import constitution_in

TEXT = """name: own
principles:
  # of length
  - id: short
    text: Choose the reply that is shorter.
    weight: 3
  - {id: polite, text: Choose the reply that is politer.}
  - id: kind
    text: Choose the reply that is kinder.
"""
RULES = constitution_in(TEXT, "own")


def label(number: int, **said: float) -> Label:
    """principle -> its probability of a, the same in both orders."""
    judgements = tuple(
        Judgement(
            principle=name,
            order=order,
            letter="a" if p > 0.5 else "b",
            probability=p,
            status="ok",
            reason=f"{name} says so",
            model="m",
            call="c",
        )
        for name, p in said.items()
        for order in ("original", "swapped")
    )
    came = sum_up(judgements, weights(RULES.principles))
    return Label(
        id=f"l{number}",
        status=came.status,
        probability=came.probability,
        prompt=Prompt(id="p", messages=(Message(role="user", content=f"Hi {number}: # you"),)),
        response_a=f"a {number}",
        response_b=f"b {number}",
        judgements=judgements,
        constitution=RULES.identity,
        judge="m",
    )


def people(*letters: Letter | None, reason: str = "") -> list[HumanVerdict]:
    return [
        HumanVerdict(place, "c", place, "Ada", letter, reason, 0.0, None)
        for place, letter in enumerate(letters, start=1)
    ]


def test_the_principle_without_which_the_judge_had_not_said_so() -> None:
    alone = label(1, short=0.9, polite=0.2, kind=0.6)
    assert len(deciding(alone)) == 6
    [found] = proposals([alone], people("b", reason="too curt"), RULES)
    assert found.principle == "short"
    [evidence] = found.evidence
    assert (evidence.people, evidence.judge, evidence.said) == ("b", "a", "short says so")
    assert evidence.reasons == ("too curt",)


def test_where_none_is_alone_all_that_say_so_are_named() -> None:
    both = label(1, short=0.9, polite=0.9, kind=0.2)
    assert [one.principle for one in proposals([both], people("b"), None)] == ["short", "polite"]
    other = RULES.model_copy(update={"version": "2.0.0"})
    assert [one.principle for one in proposals([both], people("b"), other)] == ["short", "polite"]
    assert all(one.principle != "kind" for one in proposals([both], people("b"), RULES))


def test_agreement_skips_and_labels_without_a_verdict_propose_nothing() -> None:
    items = [
        label(1, short=0.9),
        label(2, short=0.9),
        label(3, short=0.5).model_copy(update={"probability": None}),
    ]
    assert proposals(items, people("a", None, "b"), RULES) == []


def test_the_principle_with_the_most_evidence_comes_first() -> None:
    items = [label(1, polite=0.9), label(2, short=0.9), label(3, short=0.9)]
    found = proposals(items, people("b", "b", "b"), RULES)
    assert [(one.principle, len(one.evidence)) for one in found] == [("short", 2), ("polite", 1)]


@pytest.mark.parametrize("principle", ["short", "polite", "kind"])
def test_the_mended_text_differs_by_the_examples_alone(principle: str) -> None:
    items = [label(number, **{principle: 0.9}) for number in range(5)]
    [found] = proposals(items, people("b", "tie", "b", "b", "b", reason="it's: curt"), RULES)
    text = mended(TEXT, found)
    after = constitution_in(text, "own")
    for before, now in zip(RULES.principles, after.principles, strict=True):
        assert now == before.model_copy(update={"examples": now.examples})
        assert bool(now.examples) == (now.id == principle)
    examples = examples_of(found)
    assert [one.examples for one in after.principles if one.examples] == [tuple(examples)]
    assert len(examples) == MOST_EXAMPLES
    assert all(one.better.startswith("b") and one.worse.startswith("a") for one in examples)
    assert {one.because for one in examples} == {"it's: curt"}
    assert "  # of length\n" in text
    if principle != "polite":  # which is written on one line
        assert set(TEXT.splitlines()) <= set(text.splitlines())


def test_what_cannot_be_mended() -> None:
    [ties] = proposals([label(1, short=0.9)], people("tie"), RULES)
    assert mended(TEXT, ties) == TEXT
    [found] = proposals([label(1, short=0.9)], people("b"), RULES)
    with pytest.raises(UserError, match="no principle 'short'"):
        mended(TEXT.replace("id: short", "id: long"), found)
