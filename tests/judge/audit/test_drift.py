"""Looks past the ledger: no false alarm however long one looks, an alarm where judges change, by principle."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from preceptor.judge.asking.prices import floating
from preceptor.judge.audit.drift import OutcomeCount, at_least, compared, evidence, verdict
from preceptor.judge.records import DriftLook, Judgement, Label
from tests.judge.canned import pair

STEADY = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
"""For a machine that is busy."""

RATE = 0.1


def looks_at(share: float, looks: int, rows: int, rng: np.random.Generator) -> list[OutcomeCount]:
    return [OutcomeCount(rows, int(rng.binomial(rows, share))) for _ in range(looks)]


@STEADY
@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(0, 30)), min_size=1, max_size=4),
    st.sampled_from([0.02, 0.1, 0.4]),
)
def test_evidence_is_the_mixture_that_the_page_says(counts: list[tuple[int, int]], r: float) -> None:
    looks = [OutcomeCount(n, min(n, k)) for n, k in counts]

    def bet(n: int, k: int) -> float:
        def grown(t: float) -> float:
            return (t / r) ** k * ((1 - t) / (1 - r)) ** (n - k)

        return quad(grown, r, 1, epsabs=0, epsrel=1e-10, limit=200)[0] / (1 - r)

    wanted = 1 / (len(looks) + 1)
    for j in range(1, len(looks) + 1):
        rest = looks[j - 1 :]
        wanted += bet(sum(one.n for one in rest), sum(one.changed for one in rest)) / (j * (j + 1))
    assert evidence(looks, r) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("share", [RATE, RATE / 2])
def test_one_more_look_expects_no_more_evidence_where_nothing_changed(share: float) -> None:
    """The definition of the supermartingale that Ville's inequality is about, by exact expectation."""
    from scipy.stats import binom

    for before in ([], [OutcomeCount(20, 2)], [OutcomeCount(20, 7), OutcomeCount(5, 0)]):
        expected = sum(
            binom.pmf(k, 12, share) * evidence([*before, OutcomeCount(12, k)], RATE) for k in range(13)
        )
        assert expected <= evidence(before, RATE) * (1 + 1e-9)


def test_an_alarm_is_rare_over_a_hundred_looks_and_comes_soon_after_a_change() -> None:
    rng = np.random.default_rng(0)
    false = sum(
        max(evidence(looks[:t], RATE) for t in range(1, 41)) >= 20
        for looks in (looks_at(RATE, 40, 25, rng) for _ in range(150))
    )
    assert false / 150 <= 0.05
    soon = 0
    for _ in range(50):
        looks = looks_at(RATE, 30, 25, rng) + looks_at(0.4, 3, 25, rng)
        soon += evidence(looks, RATE) >= 20
    assert soon >= 45, "found within three looks after thirty quiet ones"


def test_what_is_surely_changed_is_what_a_tolerance_would_be_an_alarm_at() -> None:
    looks = [OutcomeCount(100, 40)]
    low = at_least(looks, 20)
    assert 0.2 < low < 0.4
    assert evidence(looks, low * 0.999) >= 20 > evidence(looks, low * 1.001)
    assert at_least([], 20) == 0.0
    assert at_least([OutcomeCount(50, 0)], 20) < 1e-6


def said(name: str, *by: tuple[str, float | None]) -> Label:
    judgements = tuple(
        Judgement(
            principle=principle,
            order="original",
            probability=p,
            letter=None if p is None else "a" if p > 0.5 else "b",
            status="refused" if p is None else "ok",
            reason="",
            model="m",
            call="c",
        )
        for principle, p in by
    )
    known = [p for _, p in by if p is not None]
    whole = pair().model_dump(include={"prompt", "response_a", "response_b"})
    return Label(
        **whole,
        id=name,
        status="ok" if known else "refused",
        probability=sum(known) / len(known) if known else None,
        judgements=judgements,
        constitution="c@1",
        judge="m",
    )


def test_outcomes_are_compared_by_label_and_by_principle() -> None:
    first = [said("1", ("x", 0.9), ("y", 0.9)), said("2", ("x", 0.9), ("y", 0.8)), said("3", ("x", 0.9))]
    again = [said("1", ("x", 0.9), ("y", 0.2)), said("2", ("x", None), ("y", None)), said("4", ("x", 0.1))]
    whole, principles = compared(first, again)
    assert whole == (2, 1), (
        "a judge that now refuses has changed, and a row that was not asked proves nothing"
    )
    assert principles == {"x": (2, 1), "y": (2, 2)}
    lost = again[0].model_copy(update={"status": "failed", "probability": None, "judgements": ()})
    assert compared(first, [lost])[0] == (0, 0)
    assert compared([first[2]], [first[2]])[1] == {}, "one principle is the whole label"


def test_an_alarm_stays_and_is_shared_among_principles() -> None:
    def look(day: int, x: int, y: int) -> DriftLook:
        return DriftLook(
            date=f"2026-12-{day:02}",
            look=day,
            tolerance=RATE,
            n=50,
            changed=max(x, y),
            principles={"x": (50, x), "y": (50, y)},
        )

    quiet = [look(1, 4, 5), look(2, 3, 2)]
    found = verdict(quiet)
    assert (found["since"], found["threshold"], found["looks"]) == (None, 60.0, 2)
    loud = [*quiet, look(3, 30, 4)]
    found = verdict(loud)
    assert found["since"] == "2026-12-03"
    assert found["by_principle"]["x"]["alarm"] == 3
    assert found["by_principle"]["y"]["alarm"] is None
    later = verdict([*loud, *(look(day, 0, 0) for day in range(4, 20))])
    assert later["since"] == "2026-12-03"
    assert math.isfinite(verdict([look(1, 50, 50)] * 30)["evidence"])


def test_names_without_a_date_float() -> None:
    names = ["openai/gpt-6-luna", "openai/gpt-4o-2024-05-13", "anthropic/claude-x-20260101", "hf/some/model"]
    assert floating([*names, "openai/gpt-5-chat-latest", "checks"]) == [names[0], "openai/gpt-5-chat-latest"]
