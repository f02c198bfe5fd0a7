"""Groups: which replies meet, and what the comparisons say of all of them."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.judge.label import label
from preceptor.judge.models.protocol import Completion, Request
from preceptor.judge.records import Group
from preceptor.judge.settings import LabelSettings
from preceptor.judge.voting.ranking import SMOOTHING, preferences_of, rank, static, strengths
from preceptor.prompts.template import load
from tests.judge.canned import BOTH, Absent, drive, first_shown, prompt, says

TEMPLATE = load("compare")


def group(n: int) -> Group:
    texts = tuple(f"reply {number}" for number in range(n))
    return Group(id="group", prompt=prompt(), responses=texts, sources=tuple(f"s{i}" for i in range(n)))


def by_number(request: Request) -> Completion:
    """A judge to whom the reply with the higher number is the better."""
    user = request.messages[-1].content
    other = user.split("<<<REPLY_B")[1].split(">>>\n", 1)[1].split("\n<<<END_REPLY_B")[0]
    first, second = (int(text.split()[-1]) for text in (first_shown(request), other))
    return says("Verdict: A" if first > second else "Verdict: B")


def ranked(n: int, schedule: str, answer: object = by_number) -> object:
    by_label = LabelSettings()
    return drive(
        rank(group(n), lambda pair: label(pair, BOTH, Absent(), TEMPLATE, by_label), schedule),  # type: ignore[arg-type]
        answer,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("schedule", ["all", "circular", "swiss"])
@pytest.mark.parametrize("n", [2, 3, 4, 5, 8])
def test_a_steady_judge_ranks_the_best_first(n: int, schedule: str) -> None:
    made, asked = ranked(n, schedule)  # type: ignore[misc]
    scores = made.ranking.scores
    assert max(scores) == scores[-1]
    assert scores[0] == min(scores) or schedule == "swiss"  # which sorts out the best with few comparisons
    assert sum(scores) == pytest.approx(0, abs=1e-6)
    assert len(asked) == 2 * len(made.labels)
    assert len({item.id for item in made.labels}) == len(made.labels)
    (best,) = preferences_of(made.ranking, "best-worst")
    assert best.chosen[0].content == f"reply {n - 1}"
    assert best.rejected[0].content == "reply 0" or schedule == "swiss"
    assert 0.5 < best.probability < 1


@pytest.mark.parametrize(
    ("n", "schedule", "size"), [(6, "all", 15), (6, "circular", 6), (2, "circular", 1), (8, "swiss", 12)]
)
def test_how_many_comparisons_a_schedule_takes(n: int, schedule: str, size: int) -> None:
    made, _ = ranked(n, schedule)  # type: ignore[misc]
    assert len(made.labels) == size


def test_every_reply_of_a_circle_is_compared_twice() -> None:
    pairs = static(5, "circular")
    assert all(sum(i in pair for pair in pairs) == 2 for i in range(5))


def test_all_pairs_are_ranked_wholly() -> None:
    made, _ = ranked(5, "all")  # type: ignore[misc]
    assert list(made.ranking.scores) == sorted(made.ranking.scores)
    assert len(list(preferences_of(made.ranking, "all"))) == 10
    assert [p.chosen[0].content for p in preferences_of(made.ranking, "adjacent")] == [
        f"reply {number}" for number in (4, 3, 2, 1)
    ]


@given(st.lists(st.floats(-1.5, 1.5), min_size=3, max_size=5))
def test_strengths_keep_the_order_that_made_the_shares(true: list[float]) -> None:
    """Bradley-Terry shares of all pairs give the strengths back, drawn together a little by the smoothing."""
    shares = {(i, j): 1 / (1 + math.exp(true[j] - true[i])) for i, j in combinations(range(len(true)), 2)}
    found = strengths(len(true), shares)
    for i, j in shares:
        gap, was = found[i] - found[j], true[i] - true[j]
        assert abs(gap) <= abs(was) + 1e-6
        assert gap == pytest.approx(was, abs=0.1 + 0.25 * abs(was))


@given(st.floats(0, 1))
def test_two_replies_have_the_odds_of_their_comparison(share: float) -> None:
    one, other = strengths(2, {(0, 1): share})
    assert one - other == pytest.approx(math.log((share + SMOOTHING) / (1 - share + SMOOTHING)), abs=1e-6)


def test_a_reply_that_nobody_could_compare_is_in_no_preference() -> None:
    """A failed comparison is never half a win."""

    def answer(request: Request) -> Completion:
        return says("no idea") if "reply 1" in request.messages[-1].content else by_number(request)

    made, _ = ranked(3, "all", answer)  # type: ignore[misc]
    assert made.ranking.scores[1] is None
    (only,) = preferences_of(made.ranking, "all")
    assert (only.chosen[0].content, only.rejected[0].content) == ("reply 2", "reply 0")


def test_a_judge_that_always_says_a_ranks_nobody() -> None:
    """Orders that disagree have named the slot: no reply has a score, and least of all an even one."""
    for n in (2, 3):
        made, _ = ranked(n, "all", lambda _: says("Verdict: A"))  # type: ignore[misc]
        assert {item.status for item in made.labels} == {"inconsistent"}
        assert made.ranking.scores == (None,) * n
        assert not list(preferences_of(made.ranking, "all"))


def test_orders_that_disagree_count_for_nothing_beside_those_that_agree() -> None:
    """Reply 1 and 2 cannot be told apart by letters; both have been compared with reply 0."""

    def answer(request: Request) -> Completion:
        return says("Verdict: A") if "reply 0" not in request.messages[-1].content else by_number(request)

    made, _ = ranked(3, "all", answer)  # type: ignore[misc]
    assert sorted(item.status for item in made.labels) == ["inconsistent", "ok", "ok"]
    low, one, two = made.ranking.scores
    assert low < one == pytest.approx(two)


def test_a_tie_is_a_verdict_and_even() -> None:
    settings = LabelSettings(tie=True)
    made, _ = drive(
        rank(group(2), lambda pair: label(pair, BOTH, Absent(), TEMPLATE, settings), "all"),
        lambda _: says("Verdict: tie"),
    )
    assert made.labels[0].status == "tie"
    assert made.ranking.scores == pytest.approx((0.0, 0.0))


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 24), st.randoms(use_true_random=False), st.integers(0, 9))
def test_in_a_swiss_group_everybody_is_compared_and_nobody_rests_twice(
    n: int, drawn: random.Random, steadiness: int
) -> None:
    """Of every size and for a judge of any steadiness: no two meet twice, every round is as full as it can be, and of
    an odd number a reply rests at most once."""

    def answer(request: Request) -> Completion:
        return (
            by_number(request) if drawn.random() < steadiness / 9 else says(f"Verdict: {drawn.choice('AB')}")
        )

    made, _ = ranked(n, "swiss", answer)  # type: ignore[misc]
    rounds = math.ceil(math.log2(n))
    assert len(made.labels) == rounds * (n // 2)
    assert len({item.id for item in made.labels}) == len(made.labels)
    compared = Counter(source for item in made.labels for source in item.sources)
    assert set(compared) == {f"s{i}" for i in range(n)}
    assert all(rounds - compared[source] <= n % 2 for source in compared)


@pytest.mark.parametrize("name", range(12))
@pytest.mark.parametrize("n", [3, 5, 9])
def test_the_best_of_an_odd_swiss_group_is_found(n: int, name: int) -> None:
    """Whatever the draw: the one that rests first has been the best in some, and was never compared."""
    drawn = group(n).model_copy(update={"id": f"group {name}"})
    by_label = LabelSettings()
    made, _ = drive(
        rank(drawn, lambda pair: label(pair, BOTH, Absent(), TEMPLATE, by_label), "swiss"), by_number
    )
    scores = [score for score in made.ranking.scores if score is not None]
    assert len(scores) == n
    assert scores[-1] == max(scores)
