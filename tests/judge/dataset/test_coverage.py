"""Tags by principles, counted by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor.constitution.errors import UserError
from preceptor.constitution.principle import Constitution, Principle
from preceptor.judge.aggregate import sum_up, weights
from preceptor.judge.compare import JOINT
from preceptor.judge.dataset.coverage import ALL, UNTAGGED, CoverageCell, CoverageFigures, coverage
from preceptor.judge.records import Judgement, Label, Letter
from preceptor.prompts.records import Message, Prompt

KIND = Principle(id="kind", text="Choose the kind reply.")
TRUE = Principle(id="true", text="Choose the true reply.", weight=2)
SAFE = Principle(id="safe", text="Choose the safe reply.", applies_to=("risky",))
RULES = Constitution(name="rules", principles=(KIND, TRUE, SAFE))
SHARE = {"a": 1.0, "b": 0.0, "tie": 0.5}
DECLINES = "I'm sorry, but I can't help with that."


def prompt(*tags: str) -> Prompt:
    return Prompt(id="p", messages=(Message(role="user", content="How?"),), tags=tags)


def label(
    *tags: str, a: str = "So.", b: str = "Not so.", constitution: str = "", **said: tuple[Letter, Letter]
) -> Label:
    """said: principle -> its verdicts in both orders."""
    judgements = [
        Judgement(
            principle=name,
            order="swapped" if swapped else "original",
            letter=letter,
            probability=SHARE[letter],
            status="tie" if letter == "tie" else "ok",
            reason="",
            model="m",
            call=f"{name}-{swapped}",
            sampled=True,
        )
        for name, letters in said.items()
        for swapped, letter in enumerate(letters)
    ]
    made = sum_up(judgements, weights(RULES.principles))
    return Label(
        id="pair",
        status=made.status,
        probability=made.probability,
        prompt=prompt(*tags),
        response_a=a,
        response_b=b,
        judgements=tuple(judgements),
        unjudged=made.incomplete,
        constitution=constitution or RULES.identity,
        judge="m",
    )


def cell(found: CoverageFigures, tag: str, principle: str) -> CoverageCell:
    (only,) = (one for one in found["cells"] if (one["tag"], one["principle"]) == (tag, principle))
    return only


def counts(found: CoverageFigures, tag: str, principle: str) -> tuple[int | None, int | None, int | None]:
    one = cell(found, tag, principle)
    return one["judged"], one["told_apart"], one["decided"]


def test_prompts_are_counted_where_a_principle_applies() -> None:
    found = coverage(RULES, [prompt("risky", "short"), prompt("short"), prompt()])
    assert {(one["tag"], one["principle"]): one["prompts"] for one in found["cells"]} == {
        (ALL, "kind"): 3,
        (ALL, "true"): 3,
        (ALL, "safe"): 1,
        ("risky", "kind"): 1,
        ("risky", "true"): 1,
        ("risky", "safe"): 1,
        ("short", "kind"): 2,
        ("short", "true"): 2,
        ("short", "safe"): 1,
        (UNTAGGED, "kind"): 1,
        (UNTAGGED, "true"): 1,
    }
    assert (found["prompts"], found["labels"], found["empty"], found["all_tie"]) == (3, None, [], [])
    assert counts(found, ALL, "kind") == (None, None, None)  # without labels nothing is known of pairs


def test_a_principle_that_no_prompt_reaches_is_empty() -> None:
    found = coverage(RULES, [prompt("short")])
    assert found["empty"] == [
        [ALL, "safe"],
        ["risky", "kind"],
        ["risky", "true"],
        ["risky", "safe"],
    ]


def test_the_principle_decides_without_which_the_label_would_be_another() -> None:
    against = label("x", kind=("a", "a"), true=("b", "b"))  # true weighs more
    found = coverage(RULES, [prompt("x")], [against])
    assert against.probability is not None
    assert against.probability < 0.5
    assert counts(found, "x", "kind") == (1, 1, 0)
    assert counts(found, "x", "true") == (1, 1, 1)
    agreed = coverage(RULES, [prompt("x")], [label("x", kind=("a", "a"), true=("a", "a"))])
    assert counts(agreed, "x", "kind") == counts(agreed, "x", "true") == (1, 1, 0)  # each would do alone
    alone = coverage(RULES, [prompt("x")], [label("x", kind=("a", "a"), true=("tie", "tie"))])
    assert counts(alone, "x", "kind") == (1, 1, 1)
    assert counts(alone, "x", "true") == (1, 0, 0)
    assert alone["all_tie"] == [[ALL, "true"], ["x", "true"]]


def test_orders_that_disagree_tell_nothing_apart() -> None:
    found = coverage(RULES, [prompt()], [label(kind=("a", "b"), true=("a", "a"))])
    assert counts(found, ALL, "kind") == (1, 0, 0)


def test_a_principle_asked_with_others_is_not_known_alone() -> None:
    found = coverage(RULES, [prompt("x")], [label("x", **{JOINT: ("a", "a")})])
    assert counts(found, "x", "kind") == (None, None, None)
    assert found["all_tie"] == []
    never = coverage(RULES, [prompt("x")], [label("x", kind=("a", "a"))])
    assert counts(never, "x", "true") == (0, 0, 0)  # it was not asked about at all


def test_rejected_refusals_are_counted_by_the_label() -> None:
    lost = label("x", a=DECLINES, kind=("b", "b"))
    won = label("x", a=DECLINES, kind=("a", "a"))
    tied = label("x", a=DECLINES, kind=("tie", "tie"))
    found = coverage(RULES, [prompt("x")], [lost, won, tied])
    assert cell(found, "x", "kind")["rejected_refusals"] == 1


def test_labels_of_another_constitution_are_left_out_and_told() -> None:
    foreign = label(kind=("a", "a"), constitution="other@1.0.0#000000000000")
    found = coverage(RULES, [prompt()], [foreign, label(kind=("a", "a"))])
    assert (found["foreign"], found["labels"], counts(found, ALL, "kind")) == (1, 1, (1, 1, 1))
    with pytest.raises(UserError, match="none of the 1 labels was made under rules@"):
        coverage(RULES, [prompt()], [foreign])


LETTERS = st.tuples(*[st.sampled_from(["a", "b", "tie"])] * 2)


@given(st.lists(st.tuples(LETTERS, LETTERS, st.lists(st.sampled_from("xy"), max_size=2, unique=True))))
def test_fewer_are_decided_than_told_apart_than_judged(
    rows: list[tuple[tuple[Letter, Letter], tuple[Letter, Letter], list[str]]],
) -> None:
    labels = [label(*tags, kind=kind, true=true) for kind, true, tags in rows]
    found = coverage(RULES, [one.prompt for one in labels], labels)
    for one in found["cells"]:
        assert one["judged"] is not None
        assert one["told_apart"] is not None
        assert one["decided"] is not None
        assert one["decided"] <= one["told_apart"] <= one["judged"] <= one["prompts"]
    winners = [{*true} - {"tie"} for _, true, _ in rows]
    assert counts(found, ALL, "true")[:2] == (len(rows), sum(len(some) == 1 for some in winners))
