"""Several judges: how far they agree, whom to believe, and what each step was worth."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from preceptor.judge.records import Label, Letter, Vote
from preceptor.judge.voting.panel import (
    Ballot,
    accuracy_by_step,
    agreement,
    ballots,
    dawid_skene,
    recombine,
    saved_calls,
)
from preceptor.prompts.rows import read_records, write_rows
from tests.judge.canned import pair


def vote(judge: str, share: float | None, step: int = 0) -> Vote:
    status = "unparsed" if share is None else "tie" if share == 0.5 else "ok"
    return Vote(judge=judge, step=step, status=status, probability=share)


def row(number: int, votes: list[Vote], gold: Letter | None = None) -> Label:
    base = pair()
    return Label(
        id=f"pair-{number}",
        status="ok",
        probability=votes[-1].probability if votes else 1.0,
        prompt=base.prompt,
        response_a=base.response_a,
        response_b=base.response_b,
        preferred=gold,
        judgements=(),
        votes=tuple(votes) if len(votes) > 1 else (),
        constitution="c@1#0",
        judge="x",
    )


def test_alpha_by_hand() -> None:
    """Two judges, four pairs, one disagreement: D_o = 2/8, D_e = (5*3*2)/(8*7), alpha = 1 - D_o/D_e."""
    said: dict[str, tuple[Letter, ...]] = {"x": ("a", "a", "a", "b"), "y": ("a", "a", "b", "b")}
    cast = [Ballot(f"{i}", judge, one) for judge, letters in said.items() for i, one in enumerate(letters)]
    found = agreement(cast)
    assert found["alpha"] == pytest.approx(1 - (2 / 8) / (30 / 56))
    assert found["matrix"]["x"]["y"] == {"share": 0.75, "n": 4}


def test_a_judge_that_was_not_there_disagrees_with_nobody() -> None:
    cast = [Ballot("1", "x", "a"), Ballot("2", "x", "b"), Ballot("1", "y", "a"), Ballot("3", "z", "b")]
    found = agreement(cast)
    assert found["matrix"]["x"]["z"] == {"share": None, "n": 0}
    assert found["matrix"]["x"]["y"] == {"share": 1.0, "n": 1}
    assert found["alpha"] is None


def test_whoever_has_no_verdict_has_no_ballot() -> None:
    torn = Vote(judge="z", step=0, status="inconsistent", probability=0.6)
    assert ballots([row(1, [vote("x", 0.9), vote("y", None), torn])]) == [Ballot("pair-1", "x", "a")]


def test_dawid_and_skene_believe_the_judge_who_is_right() -> None:
    """One judge right 95 % of the time against two right 55 %: better than their majority."""
    drawn = random.Random(0)
    truth: dict[str, Letter] = {f"pair-{i}": drawn.choice(("a", "b")) for i in range(400)}
    skill = {"good": 0.95, "poor": 0.6, "other": 0.6, "fair": 0.75}
    flip: dict[Letter, Letter] = {"a": "b", "b": "a"}
    cast = [
        Ballot(name, judge, right if drawn.random() < share else flip[right])
        for name, right in truth.items()
        for judge, share in skill.items()
    ]
    found = dawid_skene(cast)
    correct = sum((found[name] > 0.5) == (right == "a") for name, right in truth.items())
    majority = 0
    for name, right in truth.items():
        votes = sum(ballot.letter == "a" for ballot in cast if ballot.pair == name)
        majority += (votes > 2) == (right == "a") if votes != 2 else 0.5
    assert correct > majority
    assert correct / 400 > 0.9


def test_recombining_touches_only_what_a_panel_made(tmp_path: Path) -> None:
    """A label that one judge made alone, or an escalation's last judge, stands as it is."""
    rows = [row(i, [vote("x", float(i % 2)), vote("y", float(i % 2)), vote("z", 1.0)]) for i in range(20)]
    rows += [row(20, [vote("x", 0.7)]), row(21, [vote("x", 0.5), vote("w", 0.8, step=1)])]
    write_rows(tmp_path / "labels.jsonl", rows)
    recombine(tmp_path / "labels.jsonl")
    again = list(read_records(tmp_path / "labels.jsonl", Label))
    assert again[20:] == rows[20:]
    assert [one.probability for one in again[:20]] == pytest.approx([0.0, 1.0] * 10, abs=0.1)
    assert [one.votes for one in again] == [one.votes for one in rows]


def test_what_each_step_was_worth() -> None:
    """The cheap judge alone is right once in three; two go on, and the dear one mends one of them."""
    rows = [
        row(1, [vote("cheap", 0.9)], "a"),
        row(2, [vote("cheap", 0.6), vote("dear", 0.0, step=1)], "b"),
        row(3, [vote("cheap", None), vote("dear", 1.0, step=1)], "b"),
        row(4, [vote("cheap", 0.8)]),
    ]
    rows[0] = rows[0].model_copy(update={"probability": 0.9})
    assert accuracy_by_step(rows) == [
        {"step": 0, "pairs": 4, "right": 1, "accuracy": pytest.approx(1 / 3)},
        {"step": 1, "pairs": 2, "right": 2, "accuracy": pytest.approx(2 / 3)},
    ]


def test_what_the_first_step_decides_saves_the_next_ones_calls() -> None:
    alone = row(1, [vote("cheap", 0.9)])
    further = row(2, [vote("cheap", 0.6), vote("dear", 0.9, step=1)])
    panel = row(3, [vote("cheap", 0.6), vote("other", 0.9)])
    found = saved_calls([further, alone, panel, further])
    assert (found["share"], found["over_time"]) == (0.5, [0.0, 1.0, 1.0, 0.0])
    many = saved_calls([alone] * 25 + [further] * 5)
    assert len(many["over_time"]) == 10
    assert (many["over_time"][0], many["over_time"][-1]) == (1.0, 0.0)
    assert saved_calls([]) == {"share": None, "over_time": []}
