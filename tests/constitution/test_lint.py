"""Lint: each kind of remark is made where it should be, and nowhere in what ships."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor.constitution.contradiction import contradictions
from preceptor.constitution.files import load, load_text, shipped
from preceptor.constitution.lint import NEAR, Remark, likeness, lint, wording
from preceptor.constitution.principle import Constitution, Example, Principle
from preceptor.constitution.starter import starter


def of(*principles: Principle) -> Constitution:
    return Constitution(name="mine", principles=principles)


def rule(id: str = "a", text: str = "Choose the reply that is kind to the asker.", **rest: Any) -> Principle:  # noqa: A002
    return Principle(id=id, text=text, **rest)


OTHER = "Choose the reply that gives sources for its figures."


@pytest.mark.parametrize("name", shipped())
def test_nothing_is_wrong_with_what_ships(name: str) -> None:
    assert lint(load(name), revising=True) == ()


def test_nothing_is_wrong_with_the_starter() -> None:
    assert lint(load_text(starter("mine"), Path("mine.yaml")), revising=True) == ()


def test_shipped_principles_stay_well_below_the_threshold() -> None:
    """Also across files, since they are made to be joined by `extends`."""
    principles = [one for name in shipped() for one in load(name).principles]
    assert max(likeness(one.text, other.text) for one, other in combinations(principles, 2)) < NEAR - 10


@pytest.mark.parametrize(
    ("text", "severity", "what"),
    [
        ("choose the reply that is  kind to the asker", "error", "says the same as 'a'"),
        ("Choose the response that is kind to the asker.", "error", "says the same as 'a'"),
        ("Choose the reply that is kind to an asker.", "warning", "says nearly the same as 'a' (likeness"),
        (
            "Choose the reply that to the asker is kind.",
            "warning",
            "says nearly the same as 'a' (likeness 100",
        ),
    ],
)
def test_duplicates_and_near_duplicates(text: str, severity: str, what: str) -> None:
    (remark,) = lint(of(rule(), rule("b", text)))
    assert (remark.severity, remark.principle) == (severity, "b")
    assert remark.what.startswith(what)


def test_opposites_are_no_duplicates() -> None:
    helpful, harmful = "Choose the reply that is helpful.", "Choose the reply that is harmful."
    assert lint(of(rule(text=helpful), rule("b", harmful))) == ()


def test_an_unknown_prompt_tag_is_a_warning_where_the_tags_are_known() -> None:
    constitution = of(rule(applies_to=("jsn",)))
    assert lint(constitution) == ()
    assert lint(constitution, known_tags=["jsn"]) == ()
    (remark,) = lint(constitution, known_tags=["json", "list"])
    assert remark == Remark(
        "warning", "a", "applies to prompts tagged 'jsn', and there are none", "use one of json, list"
    )


def test_a_tag_that_is_a_slip_of_another_is_a_warning() -> None:
    one, two, slip = (rule(text=OTHER, tags=("honesty",)), rule("b", tags=("honesty",)), "honestly")
    constitution = of(one, two, rule("c", "Choose the reply with fewer words.", tags=(slip,)))
    (remark,) = lint(constitution)
    assert (remark.severity, remark.principle) == ("warning", "c")
    assert "'honestly' is nearly 'honesty'" in remark.what


def test_wording_for_revision() -> None:
    none, half, other_half = (
        rule(),
        rule("b", OTHER, critique="x"),
        rule("c", "Choose the shorter reply.", revision="x"),
    )
    remarks = {remark.principle: remark.what for remark in lint(of(none, half, other_half), revising=True)}
    assert remarks == {
        "a": "no critique wording, so that no revision is made by it",
        "b": "critique without revision",
        "c": "revision without critique",
    }
    assert [remark.principle for remark in lint(of(none, half, other_half))] == ["b", "c"]


def test_a_constitution_that_cannot_revise_at_all_is_an_error_when_revising() -> None:
    assert [remark.severity for remark in lint(of(rule()), revising=True)] == ["warning", "error"]


def test_a_vague_text_is_a_warning() -> None:
    (remark,) = lint(of(rule(text="Be nice.")))
    assert (remark.severity, remark.what) == ("warning", "the text is vague: 'Be nice.'")


PAIRS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"min_words": 9}, {"max_words": 8}, "min_words 9 is above max_words 8"),
    ({"min_sentences": 3}, {"max_sentences": 2}, "min_sentences 3 is above max_sentences 2"),
    ({"min_sentences": 3}, {"max_words": 2}, "min_sentences 3 is above max_words 2"),
    ({"refusal": "present"}, {"refusal": "absent"}, "refusal"),
    ({"language": "en"}, {"language": "de"}, "language"),
    ({"format": "json"}, {"format": "markdown-list"}, "format"),
    ({"format": "json-object"}, {"format": "json-array"}, "format"),
    ({"format": "one-line"}, {"format": "table"}, "format"),
    ({"pii": "present"}, {"pii": "absent"}, "pii"),
    ({"require": ["a", "b"]}, {"forbid": ["b"]}, "the pattern 'b' is required and forbidden"),
]


@pytest.mark.parametrize(("one", "other", "words"), PAIRS)
def test_contradictory_checks(one: dict[str, Any], other: dict[str, Any], words: str) -> None:
    """Across principles in either order, and within one where the names differ."""
    first, second = rule(check=one), rule("b", OTHER, check=other)
    for constitution in (of(first, second), of(second, first)):
        (remark,) = lint(constitution)
        assert remark.severity == "error"
        assert remark.what.startswith(words)
        assert remark.principle == constitution.principles[1].id
    if one.keys() != other.keys():
        (remark,) = lint(of(rule(check={**one, **other})))
        assert remark.what == f"{words}: no reply passes both"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"min_words": 8}, {"max_words": 8}),
        ({"format": "json"}, {"format": "json-object"}),
        ({"format": "json"}, {"format": "one-line"}),
        ({"format": "markdown-list"}, {"format": "numbered-list"}),
        ({"pii": "present"}, {"pii": ["card"]}),
        ({"refusal": "absent"}, {"refusal": "absent"}),
    ],
)
def test_checks_that_one_reply_can_pass_are_no_contradiction(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    assert list(contradictions(one, other)) == []


@pytest.mark.parametrize(
    ("one", "other", "errors"), [((), (), 1), (("x",), (), 1), (("x",), ("x", "y"), 1), (("x",), ("y",), 0)]
)
def test_only_principles_that_meet_on_a_prompt_contradict(
    one: tuple[str, ...], other: tuple[str, ...], errors: int
) -> None:
    refuse = rule(check={"refusal": "present"}, applies_to=one)
    answer = rule("b", OTHER, check={"refusal": "absent"}, applies_to=other)
    assert len(lint(of(refuse, answer))) == errors


@given(st.integers(0, 20), st.integers(0, 20))
def test_word_limits_contradict_exactly_where_no_count_lies_between(least: int, most: int) -> None:
    found = list(contradictions({"min_words": least}, {"max_words": most}))
    assert bool(found) == (not range(least, most + 1))


def test_examples_that_fail_their_own_check() -> None:
    def remarks(better: str, worse: str) -> list[str]:
        example = Example(prompt="p", better=better, worse=worse)
        found = lint(of(rule(check={"max_words": 2}, examples=(example,))))
        assert all(remark.severity == "error" for remark in found)
        return [remark.what for remark in found]

    assert remarks("one two", "one two three") == []
    assert remarks("one two three", "a b c d") == ["example 1: better fails max_words (3 words; at most 2)"]
    assert remarks("one two", "one") == ["example 1: worse passes the check max_words"]
    assert remarks("one", "one") == [
        "example 1: better and worse are the same text",
        "example 1: worse passes the check max_words",
    ]


def test_an_example_is_checked_against_its_own_prompt() -> None:
    example = Example(prompt="Is it 7?", better="Yes, 7.", worse="No, 8.")
    assert lint(of(rule(check={"numbers_from": "user"}, examples=(example,)))) == ()


def test_wordings_are_remarked_on_when_asked() -> None:
    found = wording(
        of(
            rule("a", "Choose the reply that does not lecture."),
            rule("b", "Choose the more helpful reply."),
            rule("c", "Choose the reply that gives the steps in the order in which one takes them."),
        )
    )
    assert [(one.principle, one.what.split(",")[0]) for one in found] == [
        ("a", "the text is negative"),
        ("b", "the text names a trait"),
    ]
