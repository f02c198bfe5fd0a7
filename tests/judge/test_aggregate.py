"""What judgements add up to has no favourite: exchange the replies, and every label is its mirror image."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.judge.aggregate import GRAVITY, gravest, order_means, sum_up, weights, winner
from preceptor.judge.records import Judgement, Letter, Order, Status
from tests.judge.canned import BOTH, WITH_CHECK

MIRROR: dict[Letter, Letter] = {"a": "b", "b": "a", "tie": "tie"}
OTHER: dict[Order, Order] = {"original": "swapped", "swapped": "original"}
PROBABILITIES = st.integers(0, 8).map(lambda eighths: eighths / 8)


def judgement(
    principle: str, order: Order, probability: float | None, status: Status = "ok", *, asked: bool = True
) -> Judgement:
    return Judgement(
        principle=principle,
        order=order,
        letter=None if probability is None else winner(probability),
        probability=probability,
        status=status,
        reason="",
        model="m" if asked else "checks",
        call=f"{principle}-{order}" if asked else None,
    )


ASKED = st.one_of(
    PROBABILITIES.map(lambda p: (p, "ok")),
    st.sampled_from(["refused", "unparsed", "failed"]).map(lambda s: (None, s)),
)
ROWS = st.tuples(ASKED, ASKED, ASKED, ASKED, st.one_of(st.none(), st.sampled_from([0.0, 0.5, 1.0])))


def judgements_of(row: tuple) -> list[Judgement]:
    places = [(name, order) for name in ("kind", "true") for order in OTHER]
    made = [judgement(*place, *said) for place, said in zip(places, row[:4], strict=True)]
    if row[4] is not None:
        made.append(judgement("short", "original", row[4], asked=False))
    return made


def mirrored(one: Judgement) -> Judgement:
    """The same judge on the same replies with their letters exchanged."""
    order = OTHER[one.order] if one.call is not None else one.order
    if one.probability is None:
        return one.model_copy(update={"order": order})
    exchanged = {"probability": 1 - one.probability, "letter": MIRROR[one.letter or "tie"], "order": order}
    return one.model_copy(update=exchanged)


@settings(deadline=None, max_examples=150)
@given(ROWS)
def test_exchanged_replies_have_the_mirrored_sum(row: tuple) -> None:
    weight = weights(WITH_CHECK.principles)
    some = judgements_of(row)
    one, other = sum_up(some, weight), sum_up([mirrored(each) for each in some], weight)
    assert (one.status, set(one.incomplete)) == (other.status, set(other.incomplete))
    if one.probability is None:
        assert other.probability is None
    else:
        assert other.probability == pytest.approx(1 - one.probability)


@settings(deadline=None, max_examples=150)
@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_the_judgements_and_the_unit_of_the_weights_say_nothing(row: tuple, random) -> None:
    weight = weights(WITH_CHECK.principles)
    some = judgements_of(row)
    shuffled = random.sample(some, len(some))
    one, other = sum_up(some, weight), sum_up(shuffled, {name: 10 * each for name, each in weight.items()})
    assert one.status == other.status
    assert one.probability == pytest.approx(other.probability)


@settings(deadline=None, max_examples=150)
@given(ROWS)
def test_a_label_is_ok_where_no_order_disagrees_and_unjudged_subjects_have_no_part(row: tuple) -> None:
    weight = weights(WITH_CHECK.principles)
    some = judgements_of(row)
    found = sum_up(some, weight)
    for name in ("kind", "true"):
        whole = all(one.probability is not None for one in some if one.principle == name)
        assert (name not in found.incomplete) is whole
    counted = [one for one in some if one.principle not in found.incomplete]
    winners = {winner(mean) for mean in order_means(counted, weight).values()}
    if found.status == "ok":
        assert found.probability is not None
        assert winner(found.probability) in winners
        assert not {"a", "b"} <= winners
    elif found.status in ("failed", "refused", "unparsed"):
        assert found.probability is None
        assert winners == set()


def test_nothing_judged_is_failed_and_never_a_number() -> None:
    assert sum_up([], weights(BOTH.principles)) == ("failed", None, ())


@given(st.lists(st.sampled_from([*GRAVITY, "ok", "tie"]), max_size=5))
def test_the_gravest_status_counts(statuses: list[Status]) -> None:
    found = [status for status in GRAVITY if status in statuses]
    assert gravest(statuses) == (found[0] if found else "failed")
