"""Pair -> Label: what is asked, and what the judgements add up to."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from preceptor.constitution.files import load as load_constitution
from preceptor.constitution.principle import Constitution, Principle
from preceptor.judge.audit.audit import audit
from preceptor.judge.errors import PairsError
from preceptor.judge.label import label, template_for
from preceptor.judge.models.protocol import Completion, Failure, Outcome, Request
from preceptor.judge.records import Label, Pair
from preceptor.judge.settings import LabelSettings
from preceptor.prompts.errors import TemplateError
from preceptor.prompts.records import Message, Prompt
from tests.judge.canned import BOTH, KIND, SHORT, TRUE, WITH_CHECK, Absent, drive, first_shown, pair, says

DATA = Path(__file__).parent.parent / "data" / "llmbar"
ONE = Constitution(name="one", principles=(KIND,))
EACH = LabelSettings(principles="each")


def labelled(
    row: Pair, constitution: Constitution, answer: Callable[[Request], Outcome], **fields: Any
) -> tuple[Label, list[Request]]:
    return drive(label(row, constitution, Absent(), None, LabelSettings(**fields)), answer)


def prefers(text: str) -> Callable[[Request], Completion]:
    """A judge that knows which reply is the better, wherever it stands."""
    return lambda request: says("Verdict: A" if first_shown(request) == text else "Verdict: B")


def test_both_orders_of_all_principles_go_out_at_once() -> None:
    dialogue = label(pair(), BOTH, Absent(), None, EACH)
    assert [request.principle for request in next(dialogue)] == ["kind", "kind", "true", "true"]
    _, asked = labelled(pair(), BOTH, lambda _: says("Verdict: A"))
    assert [request.principle for request in asked] == ["joint", "joint"]
    assert len(labelled(pair(), BOTH, lambda _: says("Verdict: A"), orders="original")[1]) == 1


def test_a_steady_judge_decides() -> None:
    row, _ = labelled(pair(), BOTH, prefers(pair().response_a))
    assert (row.status, row.probability, row.unjudged) == ("ok", 1.0, ())
    assert (row.id, row.prompt, row.constitution, row.judge) == (
        pair().id,
        pair().prompt,
        BOTH.identity,
        "scripted/none",
    )
    assert [(item.order, item.letter) for item in row.judgements] == [("original", "a"), ("swapped", "a")]


def test_a_judge_that_always_says_a_is_inconsistent_without_a_probability() -> None:
    row, _ = labelled(pair(), ONE, lambda _: says("Verdict: A"))
    assert (row.status, row.probability) == ("inconsistent", None)


def test_token_probabilities_survive_an_inconsistency() -> None:
    """P(first) = 0.9 in the original and 0.6 in the swapped order: a has 0.9 and 0.4."""
    shares = iter([0.9, 0.6])

    def answer(_: Request) -> Completion:
        first = next(shares)
        return says("Verdict: A", probabilities={"a": first, "b": 1 - first})

    row, _ = labelled(pair(), ONE, answer)
    assert row.status == "inconsistent"
    assert row.probability == pytest.approx(0.65)


def test_principles_add_up_by_weight() -> None:
    """kind (weight 1) says a, true (weight 2) says b, short (weight 4, a check) says a."""

    def answer(request: Request) -> Completion:
        wanted = pair().response_a if request.principle == "kind" else pair().response_b
        return prefers(wanted)(request)

    row, _ = labelled(pair(), BOTH, answer, principles="each")
    assert (row.status, row.probability) == ("ok", pytest.approx(1 / 3))
    row, asked = labelled(pair(), WITH_CHECK, answer, principles="each")
    assert (row.status, row.probability) == ("ok", pytest.approx(5 / 7))
    assert {request.principle for request in asked} == {"kind", "true"}


def test_joint_weighs_what_its_principles_weigh_together() -> None:
    """joint (1 + 2) says b, short (4) says a."""
    row, asked = labelled(pair(), WITH_CHECK, prefers(pair().response_b))
    assert row.probability == pytest.approx(4 / 7)
    assert "Choose the short reply." not in asked[0].messages[0].content


def test_a_check_that_cannot_tell_abstains() -> None:
    row, _ = labelled(pair("a b", "c d"), WITH_CHECK, prefers("c d"))
    assert (row.status, row.probability) == ("ok", 0.0)
    assert [item.status for item in row.judgements] == ["tie", "ok", "ok"]


def test_a_models_tie_counts_as_even() -> None:
    """kind (1) is a tie, true (2) says a."""
    row, _ = labelled(
        pair(),
        BOTH,
        lambda request: (
            says("Verdict: tie") if request.principle == "kind" else prefers(pair().response_a)(request)
        ),
        principles="each",
        tie=True,
    )
    assert (row.status, row.probability) == ("ok", pytest.approx((0.5 + 2) / 3))


def test_nothing_but_ties_is_a_tie() -> None:
    assert labelled(pair(), ONE, lambda _: says("Verdict: tie"), tie=True)[0].status == "tie"
    even = Constitution(name="even", principles=(KIND, TRUE.model_copy(update={"weight": 1})))
    row, _ = labelled(
        pair(),
        even,
        lambda request: prefers(pair().response_a if request.principle == "kind" else pair().response_b)(
            request
        ),
        principles="each",
    )
    assert (row.status, row.probability) == ("tie", 0.5)


def test_equal_replies_are_a_tie_that_nobody_is_asked_about() -> None:
    row, asked = labelled(pair("same", "same"), WITH_CHECK, lambda _: says("Verdict: A"))
    assert asked == []
    assert (row.status, row.judgements) == ("tie", ())


def test_a_principle_without_a_complete_verdict_has_no_part() -> None:
    """kind is unreadable in one order: true alone decides, and kind is listed."""

    def answer(request: Request) -> Completion:
        if request.principle == "kind" and first_shown(request) == pair().response_b:
            return says("Hard to say.")
        return prefers(pair().response_a if request.principle == "kind" else pair().response_b)(request)

    row, _ = labelled(pair(), BOTH, answer, principles="each")
    assert (row.status, row.probability, row.unjudged) == ("ok", 0.0, ("kind",))


def test_an_unreadable_joint_verdict_leaves_all_its_principles_unjudged() -> None:
    row, _ = labelled(pair(), WITH_CHECK, lambda _: says("Hard to say."))
    assert (row.status, row.probability, row.unjudged) == ("ok", 1.0, ("kind", "true"))


BROKEN: list[tuple[list[Outcome], str]] = [
    ([says("?"), says("Verdict: A")], "unparsed"),
    ([says("Verdict: A"), says("", finish_reason="refused")], "refused"),
    ([says("?"), says("", finish_reason="refused")], "refused"),
    ([Failure(kind="failed", problem="x"), says("", finish_reason="refused")], "failed"),
    ([says("?"), Failure(kind="failed", problem="x")], "failed"),
]


@pytest.mark.parametrize(("outcomes", "status"), BROKEN)
def test_without_any_complete_verdict_the_gravest_status_stands(outcomes: list[Outcome], status: str) -> None:
    replies = iter(outcomes)
    row, _ = labelled(pair("a b", "c d"), ONE, lambda _: next(replies))
    assert (row.status, row.probability, row.unjudged) == (status, None, ("kind",))


def test_an_outage_is_no_tie_although_a_check_abstains() -> None:
    row, _ = labelled(pair("a b", "c d"), WITH_CHECK, lambda _: Failure(kind="failed", problem="x"))
    assert (row.status, row.probability) == ("failed", None)


def test_only_principles_that_apply_are_judged() -> None:
    narrow = Constitution(
        name="narrow", principles=(KIND, TRUE.model_copy(update={"applies_to": ("facts",)}))
    )
    judged = [
        {
            item.principle
            for item in labelled(row, narrow, prefers(row.response_a), principles="each")[0].judgements
        }
        for row in (pair(), pair("one", "two", "facts"))
    ]
    assert judged == [{"kind"}, {"kind", "true"}]
    none = Constitution(name="none", principles=(TRUE.model_copy(update={"applies_to": ("facts",)}),))
    row, asked = labelled(pair(), none, lambda _: says("Verdict: A"))
    assert (row.status, row.probability, asked) == ("failed", None, [])


def test_one_principle_is_drawn_for_each_pair() -> None:
    """By seed and id alone, each about equally often; those that were not drawn are not `unjudged`."""
    many = Constitution(
        name="many", principles=tuple(KIND.model_copy(update={"id": f"p{i}"}) for i in range(4))
    )

    def draw(index: int, seed: int) -> str:
        row = pair().model_copy(update={"id": f"pair-{index}"})
        made, asked = labelled(row, many, prefers(row.response_a), principles="sample", seed=seed)
        assert made.unjudged == ()
        assert len({request.principle for request in asked}) == 1
        return asked[0].principle

    drawn = Counter(draw(index, 0) for index in range(200))
    assert len(drawn) == 4
    assert min(drawn.values()) > 25
    assert [draw(index, 0) for index in range(9)] == [draw(index, 0) for index in range(9)]
    assert [draw(index, 0) for index in range(20)] != [draw(index, 1) for index in range(20)]


def test_checks_alone_judge_without_asking() -> None:
    made, asked = drive(label(pair(), WITH_CHECK, None, None, LabelSettings()), lambda _: says("Verdict: B"))
    assert asked == []
    assert (made.status, made.probability, made.judge) == ("ok", 1.0, "checks")
    assert made.unjudged == ("kind", "true")
    tie, _ = drive(
        label(pair("a", "b"), WITH_CHECK, None, None, LabelSettings()), lambda _: says("Verdict: B")
    )
    assert tie.status == "tie"


def test_checks_alone_need_a_check() -> None:
    with pytest.raises(
        PairsError, match="has no machine checks; the judge `checks` needs some, or name a model"
    ):
        next(label(pair(), BOTH, None, None, LabelSettings()))


def test_a_template_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text(
        '---\nkind: compare\nverdict: {a: "Output (a)", b: "Output (b)"}\n---\n'
        "# Output (a):\n{{ response_a }}\n\n# Output (b):\n{{ response_b }}\n"
    )
    mine = LabelSettings(template=str(path))
    template = template_for(Absent(), mine)
    made, asked = drive(label(pair(), ONE, Absent(), template, mine), lambda _: says("Output (a)"))
    assert made.status == "inconsistent"
    assert asked[0].menu == {"a": "Output (a)", "b": "Output (b)"}
    with pytest.raises(TemplateError, match="offer no tie"):
        template_for(Absent(), LabelSettings(template=str(path), tie=True))


WORDS = st.lists(st.sampled_from(["fine", "bad", "x", "long"]), min_size=1, max_size=5).map(" ".join)


def scripted(seed: str) -> Callable[[Request], Outcome]:
    """A judge whose every answer is a pure function of principle and replies in the order shown, of every
    kind.
    """

    def answer(request: Request) -> Outcome:
        text = request.messages[-1].content.split("<<<REPLY_A", 1)[1]
        a, b = (
            part.split(">>>\n", 1)[1].split("\n<<<")[0] for part in (text, text.split("<<<REPLY_B", 1)[1])
        )
        kinds = ("letter", "letter", "tie", "tokens", "tokens", "unparsed", "refused", "failed")
        kind = kinds[hash_of(seed, request.principle, *sorted((a, b))) % len(kinds)]
        first = hash_of(seed, request.principle, a, b) % 101 / 100
        words = "Verdict: A" if first >= 0.5 else "Verdict: B"
        return {
            "letter": says(words),
            "tie": says("Verdict: tie"),
            "tokens": says(words, probabilities={"a": first, "b": 1 - first}),
            "unparsed": says("Hard to say."),
            "refused": says("", finish_reason="refused"),
            "failed": Failure(kind="failed", problem="x"),
        }[kind]

    return answer


def hash_of(*parts: str) -> int:
    import hashlib

    return int(hashlib.sha256("|".join(parts).encode()).hexdigest()[:8], 16)


@settings(deadline=None)
@given(
    a=WORDS, b=WORDS, seed=st.text("xyz", max_size=4), principles=st.sampled_from(["joint", "each", "sample"])
)
def test_swapping_the_replies_mirrors_the_label(a: str, b: str, seed: str, principles: str) -> None:
    """The same judge on the same two texts: p becomes 1 - p, letters change places, statuses stay."""
    assume(a != b)
    mirror = {"a": "b", "b": "a", "tie": "tie", None: None}
    one, _ = labelled(pair(a, b), WITH_CHECK, scripted(seed), principles=principles, tie=True)
    two, _ = labelled(pair(b, a), WITH_CHECK, scripted(seed), principles=principles, tie=True)
    assert one.status == two.status
    assert one.unjudged == two.unjudged
    assert (one.probability is None) == (two.probability is None)
    if one.probability is not None and two.probability is not None:
        assert one.probability == pytest.approx(1 - two.probability)
    letters = Counter((item.principle, mirror[item.letter]) for item in one.judgements)
    assert letters == Counter((item.principle, item.letter) for item in two.judgements)


@settings(deadline=None)
@given(a=WORDS, b=WORDS, seed=st.text("xyz", max_size=4), orders=st.sampled_from(["both", "original"]))
def test_no_probability_stands_beside_a_status_that_has_none(a: str, b: str, seed: str, orders: str) -> None:
    row, _ = labelled(pair(a, b), WITH_CHECK, scripted(seed), principles="each", tie=True, orders=orders)
    if row.status in ("refused", "unparsed", "failed"):
        assert row.probability is None
    if row.status == "ok":
        assert row.probability is not None
        assert row.probability != 0.5
    for item in row.judgements:
        assert (item.probability is None) == (item.letter is None) == (item.status not in ("ok", "tie"))
    assert set(row.unjudged) <= {"kind", "true", "short"}


def llmbar(subset: str, strategy: str) -> list[Label]:
    """Recorded verdicts of GPT-4 on real pairs, sent through the dialogue in LLMBar's own words."""
    with gzip.open(DATA / f"dataset_{subset}.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = {row["index"]: row for row in map(json.loads, lines)}
    with gzip.open(DATA / f"recorded_{subset}.jsonl.gz", "rt", encoding="utf-8") as lines:
        records = [record for record in map(json.loads, lines) if record["strategy"] == strategy]
    labels = []
    for record in records:
        row, results = rows[record["index"]], record["results"][-1]
        item = Pair(
            id=f"{subset}-{record['index']}",
            prompt=Prompt(
                id=f"{subset}-{record['index']}", messages=(Message(role="user", content=row["input"]),)
            ),
            response_a=row["output_1"],
            response_b=row["output_2"],
            preferred="a" if row["label"] == 1 else "b",
        )
        replies = iter([results["swap = False"]["completion"][0], results["swap = True"]["completion"][0]])
        template = template_for(Absent(), LabelSettings())
        outputs = {"a": "Output (a)", "b": "Output (b)"}
        own = type(template)(**{**vars(template), "menu": outputs})
        dialogue = label(item, ONE, Absent(), own, LabelSettings(reasoning=True))
        labels.append(drive(dialogue, lambda _, replies=replies: says(next(replies)))[0])
    return labels


@pytest.mark.parametrize(
    ("subset", "original", "swapped", "both", "agree", "n"),
    [("Natural", 94, 95, 90, 91, 100), ("Neighbor", 101, 100, 94, 121, 134)],
)
def test_recorded_gpt4_gives_the_published_counts(
    subset: str, original: int, swapped: int, both: int, agree: int, n: int
) -> None:
    """LLMBar (Zeng et al. 2024), GPT-4 with the CoT prompt."""
    figures = audit(llmbar(subset, "CoT"), ONE)
    assert figures["n"] == n
    assert (figures["correct_original"], figures["correct_swapped"]) == (original, swapped)
    assert (figures["correct_both"], figures["orders_agree"]) == (both, agree)
    assert figures["accuracy"] == pytest.approx((original + swapped) / (2 * n))
    assert figures["flip_rate"] == pytest.approx(1 - agree / n)
    assert figures["unparsed"] == figures["refused"] == figures["failed"] == 0


def test_principle_order_in_the_file_does_not_change_a_label() -> None:
    backwards = Constitution(name="with-check", principles=(SHORT, TRUE, KIND))
    one, _ = labelled(pair(), WITH_CHECK, scripted("x"), principles="each", tie=True)
    two, _ = labelled(pair(), backwards, scripted("x"), principles="each", tie=True)
    assert (one.status, one.probability) == (two.status, two.probability)


def test_principles_are_frozen_into_the_identity() -> None:
    """A row names the very constitution that made it: another weight is another constitution."""
    heavier = Constitution(name="one", principles=(Principle(id="kind", text=KIND.text, weight=2),))
    row, _ = labelled(pair(), ONE, prefers(pair().response_a))
    assert row.constitution == ONE.identity != heavier.identity


def test_worked_examples_are_the_same_for_every_pair_and_name_the_better_reply() -> None:
    rules = load_constitution("helpful-harmless")
    some = rules.model_copy(update={"principles": rules.principles[:2]})
    wanted = LabelSettings(shots=1)
    asked = [
        request
        for row in (pair(), pair("x", "y"))
        for request in drive(label(row, some, Absent(), None, wanted), lambda _: says("Verdict: A"))[1]
    ]
    systems = {request.messages[0].content for request in asked}
    assert len(systems) == 1  # so that a provider's prompt cache holds them
    (text,) = systems
    for principle in some.principles:
        example = principle.examples[0]
        letter = "A" if text.index(example.better) < text.index(example.worse) else "B"
        after = text[text.index(example.worse if letter == "A" else example.better) :]
        assert f"Verdict: {letter}" in after[:400]
    assert len({request.key for request in asked}) == len(asked)


def test_after_reasoning_a_probability_is_clamped_and_its_winner_is_not() -> None:
    def answer(request: Request) -> Completion:
        share = 0.99 if first_shown(request) == pair().response_a else 0.01
        return says(f"So: Verdict: {'A' if share > 0.5 else 'B'}", probabilities={"a": share, "b": 1 - share})

    wanted = LabelSettings(reasoning=True, clamp=(0.4, 0.6))
    made, _ = drive(label(pair(), BOTH, Absent(), None, wanted), answer)
    assert (made.status, made.probability) == ("ok", pytest.approx(0.6))
    assert {one.letter for one in made.judgements} == {"a"}


@pytest.mark.parametrize("draws", [1, 2, 5])
def test_draws_are_different_principles_and_hardly_change_with_the_constitution(draws: int) -> None:
    rules = load_constitution("helpful-harmless")
    rules = rules.model_copy(update={"principles": tuple(p for p in rules.principles if not p.check)[:8]})
    fewer = rules.model_copy(update={"principles": rules.principles[:7]})
    wanted, changed = LabelSettings(principles="sample", draws=draws), 0
    for number in range(40):
        row = pair().model_copy(update={"id": f"pair-{number}"})
        chosen = [
            {
                request.principle
                for request in drive(label(row, own, Absent(), None, wanted), lambda _: says("?"))[1]
            }
            for own in (rules, fewer)
        ]
        assert len(chosen[0]) == draws
        changed += chosen[0] != chosen[1]
    assert changed <= 40 * draws / 8 * 2


def test_asking_again_is_another_call() -> None:
    def keys(sample: int) -> set[str]:
        settings = LabelSettings(sample=sample)
        asked = drive(label(pair(), BOTH, Absent(), None, settings), lambda _: says("?"))[1]
        return {request.key for request in asked}

    assert not keys(0) & keys(739_000)
