"""A principle that decides silences those that it outranks, in every sum; and where principles clash is counted."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.constitution.principle import Constitution, Principle, outranking
from preceptor.judge.aggregate import silenced, sum_up, weights, winner
from preceptor.judge.compare import check
from preceptor.judge.dataset.clashes import choices, clashes
from preceptor.judge.label import summed
from preceptor.judge.records import Judgement, Label, Letter
from tests.judge.canned import pair

CHOICES: tuple[tuple[Letter, Letter], ...] = tuple(product(("a", "b", "tie"), repeat=2))
NAMES = ("first", "second", "third")


def of(over: dict[str, tuple[str, ...]], **weight: float) -> tuple[Principle, ...]:
    return tuple(Principle(id=n, text="x", over=over.get(n, ()), weight=weight.get(n, 1.0)) for n in NAMES)


def said(name: str, letters: tuple[Letter, Letter]) -> list[Judgement]:
    share = {"a": 1.0, "b": 0.0, "tie": 0.5}
    return [
        Judgement(
            principle=name, order=order, letter=letter, probability=share[letter], status="ok", reason="",
            model="m", call="c", sampled=True,
        )
        for order, letter in zip(("original", "swapped"), letters, strict=True)
    ]  # fmt: skip


def label_of(judgements: list[Judgement], principles: tuple[Principle, ...]) -> Label:
    rules = Constitution(name="rules", principles=principles)
    added = summed(pair(), judgements, rules)
    return Label(
        **pair().model_dump(include={"id", "prompt", "response_a", "response_b"}),
        status=added.status, probability=added.probability, judgements=tuple(judgements),
        constitution=rules.identity, judge="m",
    )  # fmt: skip


@settings(deadline=None)
@given(
    st.tuples(*[st.sampled_from(CHOICES)] * 3),
    st.sampled_from(
        [{}, {"first": ("second",)}, {"first": ("second",), "second": ("third",)}, {"third": ("first",)}]
    ),
    st.floats(0.1, 5),
)
def test_a_sum_is_that_of_the_principles_that_are_heard(
    letters: tuple[tuple[Letter, Letter], ...], over: dict[str, tuple[str, ...]], weight: float
) -> None:
    principles = of(over, first=weight)
    every = {name: said(name, one) for name, one in zip(NAMES, letters, strict=True)}
    decides = {name for name, one in zip(NAMES, letters, strict=True) if len({*one} - {"tie"}) == 1}
    above = {
        "second": {"first"} if "first" in over else set(),
        "first": {"third"} if "third" in over else set(),
    }
    above["third"] = {"first", "second"} if "second" in over else set()
    silent = {name for name in NAMES if above[name] & decides}
    judgements = [one for name in NAMES for one in every[name]]
    assert silenced(judgements, weights(principles)) == silent
    alone = [one for name in NAMES if name not in silent for one in every[name]]
    plain = {name: weight if name == "first" else 1.0 for name in NAMES}
    assert sum_up(judgements, weights(principles)) == sum_up(alone, plain)


def test_one_that_decides_outweighs_any_weight_below_it() -> None:
    judgements = [*said("first", ("a", "a")), *said("second", ("b", "b"))]
    heavy = {"second": 100.0}
    assert winner(sum_up(judgements, weights(of({}, **heavy))).probability or 0) == "b"
    assert sum_up(judgements, weights(of({"first": ("second",)}, **heavy))).probability == 1.0
    torn = [*said("first", ("a", "b")), *said("second", ("b", "b"))]
    assert winner(sum_up(torn, weights(of({"first": ("second",)}, **heavy))).probability or 0) == "b"
    tied = [*said("first", ("tie", "tie")), *said("second", ("b", "b"))]
    assert winner(sum_up(tied, weights(of({"first": ("second",)}))).probability or 0) == "b"


def test_a_check_outranks_like_any_other() -> None:
    rules = Constitution(
        name="rules",
        principles=(
            Principle(id="brief", text="x", check={"max_words": 3}, over=("long",)),
            Principle(id="long", text="x", check={"min_words": 4}, weight=9),
        ),
    )
    asked = pair("one two", "one two three four five")
    found = [check(asked, one) for one in rules.principles]
    assert winner(summed(asked, found, rules, by_checks=True).probability or 0) == "a"
    bare = rules.model_copy(
        update={"principles": tuple(one.model_copy(update={"over": ()}) for one in rules.principles)}
    )
    assert winner(summed(asked, found, bare, by_checks=True).probability or 0) == "b"


def test_ranks_are_transitive_and_unknown_ids_count_for_nothing() -> None:
    principles = of({"first": ("second", "gone"), "second": ("third",)})
    assert outranking(principles) == {"second": {"first"}, "third": {"first", "second"}}
    less = Constitution(name="rules", principles=principles).without(("second",))
    assert [one.over for one in less.principles] == [("gone",), ()]


def test_a_constitution_without_priorities_keeps_its_identity() -> None:
    bare = Constitution(name="rules", principles=of({}))
    assert bare.identity == "rules@1.0.0#b1acb2c53ae6"
    assert Constitution(name="rules", principles=of({"first": ("second",)})).identity != bare.identity


@pytest.mark.parametrize(
    ("second", "against"), [(("b", "b"), 1), (("a", "a"), 0), (("a", "b"), 0), (("tie", "tie"), 0)]
)
def test_clashes_are_counted_where_both_decide(second: tuple[Letter, Letter], against: int) -> None:
    principles = of({"first": ("second",)})
    label = label_of([*said("first", ("a", "a")), *said("second", second)], principles)
    found = clashes([label, label])
    assert [one["against"] for one in found] == [2] * against
    if found:
        assert (found[0]["one"], found[0]["one_wins"], found[0]["other_wins"], found[0]["both"]) == (
            "first",
            2,
            0,
            2,
        )
    assert choices(label)["first"] == "a"
