"""Probes in the tiny model's world: planted faults are seen, and replies as good as before are not accused."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import cache

import pytest

from preceptor.train.embedded.probes import probe_set
from preceptor.train.embedded.world import applicable, draw_reply
from preceptor.train.evaluation.paired import BeforeAfter
from preceptor.train.evaluation.probes import ProbeFigure, ProbeReplies, measure

SIZE = 24
CHOSEN = probe_set(SIZE)
COIN = 0.7
"""How probable each virtue is where nothing is planted."""


@cache
def replies(seed: str, faults: tuple[str, ...] = ()) -> tuple[tuple[str, ...], ...]:
    """Two replies to each probe, with each virtue drawn, but for the faults, which all have."""
    rng = random.Random(seed)
    rows = []
    for probe in CHOSEN.probes:
        prompt = probe.prompt.model_dump(mode="json")
        texts = []
        for _ in range(2):
            virtues = {name: rng.random() < COIN for name in applicable(prompt)}
            texts.append(draw_reply(rng, prompt, virtues | dict.fromkeys(set(faults) & set(virtues), False)))
        rows.append(tuple(texts))
    return tuple(rows)


def measured(
    before: tuple[tuple[str, ...], ...], after: tuple[tuple[str, ...], ...]
) -> Mapping[str, ProbeFigure]:
    rows = [ProbeReplies(*row) for row in zip(CHOSEN.probes, before, after, strict=True)]
    return {figure.name: figure for figure in measure(rows, CHOSEN.read, None)}


@pytest.mark.parametrize(
    ("fault", "worse"),
    [
        # the world has few phrases of padding, so that replies with it are alike too
        ("concise", {"words_per_reply", "filler_per_100_words", "distinct_1", "distinct_2", "self_bleu"}),
        ("steadfast", {"false_claim_agreed", "answers_turned"}),
        ("format", {"format_kept"}),
    ],
)
def test_a_planted_fault_is_seen_where_it_is(fault: str, worse: set[str]) -> None:
    found = measured(replies("before"), replies("after", (fault,)))
    assert {name for name, figure in found.items() if figure.worse} == worse


def test_agreement_turns_right_answers() -> None:
    found = measured(replies("before"), replies("after", ("steadfast",)))["answers_turned"].change
    assert found.after.value == 1
    assert found.after.n < SIZE


def test_one_reply_to_everything_is_a_collapse() -> None:
    one = tuple((replies("x")[0][0],) * 2 for _ in CHOSEN.probes)
    found = measured(replies("before"), one)
    collapsed = {name for name, figure in found.items() if figure.mode == "mode collapse" and figure.worse}
    assert collapsed == {
        "distinct_1",
        "distinct_2",
        "self_bleu",
        "same_across_prompts",
        "same_within_prompt",
    }
    assert found["same_opening"].worse
    assert found["same_closing"].worse


def test_refusing_everything_and_refusing_nothing_are_both_worse() -> None:
    refusal = tuple(("Details of other guests stay private.",) * 2 for _ in CHOSEN.probes)
    found = measured(replies("before"), refusal)
    assert found["safe_refused"].worse
    assert found["unsafe_refused"].change.after.value == 1
    found = measured(replies("before"), tuple(("The pool opens at 9 am.",) * 2 for _ in CHOSEN.probes))
    assert found["unsafe_refused"].worse
    assert not found["safe_refused"].worse


def test_a_policy_no_worse_is_not_accused() -> None:
    """17 figures of 12 policies each: at 99 % two or so are marked by chance, half of them worse."""
    accused = [
        name
        for seed in range(12)
        for name, figure in measured(replies("before"), replies(f"after {seed}")).items()
        if figure.worse
    ]
    assert len(accused) <= 4, accused


def test_swapping_policy_and_baseline_mirrors_every_figure() -> None:
    one = measured(replies("before"), replies("after", ("steadfast", "concise")))
    other = measured(replies("after", ("steadfast", "concise")), replies("before"))
    for name, figure in one.items():
        change: BeforeAfter = other[name].change
        assert (figure.worse, figure.better) == (other[name].better, other[name].worse)
        assert (figure.change.before, figure.change.after) == (change.after, change.before)
        assert (figure.change.by, figure.change.low) == pytest.approx((-change.by, -change.high))


def test_the_set_is_always_the_same_and_no_prompt_stands_in_two_kinds() -> None:
    probe_set.cache_clear()
    again = probe_set(SIZE)
    assert (again.probes, again.passages) == (CHOSEN.probes, CHOSEN.passages)
    own = [probe.prompt.messages for probe in CHOSEN.probes if probe.kind != "asked"]
    assert len(set(own)) == len(own) == 5 * SIZE
    pairs = {probe.pair for probe in CHOSEN.probes if probe.kind == "asked"}
    assert pairs == {probe.pair for probe in CHOSEN.probes if probe.kind == "claimed"}


def test_a_garbled_reply_takes_no_side() -> None:
    claimed = next(probe for probe in CHOSEN.probes if probe.kind == "claimed")
    assert CHOSEN.read(claimed, "You are quite right right right.").says == "unclear"
    assert CHOSEN.read(claimed, "You are quite right.").says == "wrong"
