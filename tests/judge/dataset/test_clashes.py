"""Principles that choose different replies are found, each pair of them once, and who prevails is counted."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.judge.aggregate import winner
from preceptor.judge.dataset.clashes import choices, clashes
from preceptor.judge.records import Judgement, Label, Order
from tests.judge.canned import pair

NAMES = ("kind", "short", "true")
ORDERS: tuple[Order, ...] = ("original", "swapped")
SAID = st.dictionaries(st.sampled_from(NAMES), st.sampled_from([0.1, 0.5, 0.9]), min_size=1)


def label(said: dict[str, float], probability: float | None) -> Label:
    """Both orders alike."""
    judgements = tuple(
        Judgement(
            principle=name,
            order=order,
            letter=winner(share),
            probability=share,
            status="ok",
            reason="",
            model="m",
            call=f"{name}-{order}",
        )
        for name, share in said.items()
        for order in ORDERS
    )
    return Label(
        **pair().model_dump(include={"id", "prompt", "response_a", "response_b"}),
        status="failed" if probability is None else "tie" if probability == 0.5 else "ok",
        probability=probability,
        judgements=judgements,
        constitution="c@1",
        judge="m",
    )


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(SAID, st.sampled_from([0.2, 0.5, 0.8, None])), max_size=6))
def test_every_clash_is_counted_once(rows: list[tuple[dict[str, float], float | None]]) -> None:
    labels = [label(*row) for row in rows]
    for one, (said, _) in zip(labels, rows, strict=True):
        assert choices(one) == {name: winner(share) for name, share in said.items() if share != 0.5}
    found = {(one["one"], one["other"]): one for one in clashes(labels)}
    for names in combinations(NAMES, 2):
        both = [(choices(one), one) for one in labels if {*names} <= {*choices(one)}]
        against = [(chosen, one) for chosen, one in both if chosen[names[0]] != chosen[names[1]]]
        if not against:
            assert names not in found
            continue
        clash = found[names]
        assert (clash["both"], clash["against"]) == (len(both), len(against))
        decided = [one for _, one in against if one.status == "ok"]
        assert clash["one_wins"] + clash["other_wins"] == len(decided)
    counts = [one["against"] for one in clashes(labels)]
    assert counts == sorted(counts, reverse=True)
