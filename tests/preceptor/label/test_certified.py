"""Which steps of an escalation gold vouches for, and which pairs go on."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from preceptor.constitution.errors import UserError
from preceptor.constitution.files import load
from preceptor.judge.audit.certificate import certificate, evidence, faults, settled
from preceptor.judge.records import Judgement, Label, Pair, Vote
from preceptor.judge.settings import LabelSettings
from preceptor.judge.voting.confidence import confidence
from preceptor.label.certified import AskGold, below, calibrate, require_steps
from preceptor.label.run import Job
from preceptor.prompts.records import Message, Prompt

GOLD = [
    Pair(
        id=f"{number:03}",
        prompt=Prompt(id=f"{number}", messages=(Message(role="user", content="?"),)),
        response_a="one",
        response_b="two",
        preferred="a" if number % 3 else "b",
    )
    for number in range(200)
]
JOB = Job(
    constitution=load("style"),
    panels=[(["openai/cheap"], ""), (["openai/dear"], 'status != "ok"'), (["human"], 'status != "ok"')],
    settings=LabelSettings(),
)


def made(pair: Pair, judge: str, right: bool, sure: float) -> Label:
    """A label of this winner and probability, both orders alike."""
    a = (pair.preferred == "a") == right
    share = sure if a else 1 - sure
    judgements = tuple(
        Judgement(
            principle="joint",
            order=order,
            letter="a" if a else "b",
            probability=share,
            status="ok",
            reason="",
            model=judge,
            call=f"{judge}-{pair.id}-{order}",
        )
        for order in ("original", "swapped")
    )
    fields = pair.model_dump(include=set(Pair.model_fields))
    return Label(
        **fields, status="ok", probability=share, judgements=judgements, constitution="c@1", judge=judge
    )


def asking(log: list[tuple[str, int]], cheap_sure: int, cheap_right_after: bool) -> AskGold:
    """A cheap judge who is right where it is sure, on the first rows, and a dear one who always is."""

    def ask(rows: Sequence[Pair], job: Job) -> list[Label]:
        name = job.panels[0][0][0]
        log.append((name, len(rows)))
        if name == "openai/dear":
            return [made(row, name, True, 0.9) for row in rows]
        return [
            made(row, name, int(row.id) < cheap_sure or (cheap_right_after and int(row.id) % 2 == 0), 0.99)
            if int(row.id) < cheap_sure
            else made(row, name, cheap_right_after and int(row.id) % 2 == 0, 0.6)
            for row in rows
        ]

    return ask


def test_what_the_first_judge_does_not_keep_goes_to_the_next() -> None:
    log: list[tuple[str, int]] = []
    found = calibrate(GOLD, JOB, 0.9, asking(log, 100, True))
    cheap, dear = found.steps
    assert log == [("openai/cheap", 200), ("openai/dear", 100)]
    assert (cheap.n, cheap.right, cheap.threshold) == (100, 100, 0.99)
    assert (dear.seen, dear.n, dear.right) == (100, 100, 100)
    assert found.job.panels == [
        (["openai/cheap"], ""),
        (["openai/dear"], below(cheap.threshold)),
        (["human"], below(dear.threshold)),
    ]
    assert found.job.certified == (cheap.threshold, dear.threshold)


def test_a_judge_at_chance_is_left_out_and_the_next_sees_every_row() -> None:
    log: list[tuple[str, int]] = []
    found = calibrate(GOLD, JOB, 0.9, asking(log, 0, True))
    assert [one.judge for one in found.refused] == ["openai/cheap"]
    assert log[1] == ("openai/dear", 200)
    assert found.job.panels == [(["openai/dear"], ""), (["human"], below(0.9))]


def test_each_of_several_steps_is_tested_at_its_part_of_the_level() -> None:
    found = calibrate(GOLD[:32], JOB, 0.9, asking([], 32, True))
    assert not found.steps, "32 rows are enough for one judge at 0.05, and not for two at 0.025"
    with pytest.raises(UserError, match="36"):
        require_steps(found, 0.9)
    alone = JOB._replace(panels=JOB.panels[:1])
    assert calibrate(GOLD[:32], alone, 0.9, asking([], 32, True)).steps


def test_a_label_below_its_step_s_threshold_abstains_and_people_s_stand() -> None:
    label = made(GOLD[0], "x", True, 0.8)
    assert settled(label, (0.8,)) == label
    below_it = settled(label, (0.81,))
    assert (below_it.status, below_it.probability) == ("abstained", label.probability)
    votes = tuple(Vote(judge=name, step=step, status="ok", probability=0.8) for step, name in enumerate("yx"))
    assert settled(label.model_copy(update={"votes": votes}), (0.81,)).status == "ok"


def test_confidence_falls_with_every_verdict_that_says_otherwise() -> None:
    label = made(GOLD[1], "x", True, 0.8)
    assert confidence(label) == pytest.approx(0.8)
    torn = label.judgements[1].model_copy(update={"letter": "b", "probability": 0.4})
    assert confidence(label.model_copy(update={"judgements": (label.judgements[0], torn)})) == pytest.approx(
        0.4
    )
    assert confidence(label.model_copy(update={"status": "inconsistent"})) is None
    votes = tuple(
        Vote(judge=name, step=0, status="ok" if name == "x" else "failed", probability=share)
        for name, share in (("x", 0.8), ("y", None))
    )
    alone = confidence(label.model_copy(update={"votes": votes}))
    assert alone is not None
    assert 0.5 < alone < 0.8


def test_a_certificate_follows_from_its_rows_and_from_no_others() -> None:
    gold = [made(pair, "openai/cheap", True, 0.9) for pair in GOLD[:60]]
    rows = [made(pair, "openai/cheap", True, 0.9) for pair in GOLD[60:160]]
    found = calibrate(
        GOLD[:60], JOB._replace(panels=JOB.panels[:1]), 0.9, lambda pairs, _: gold[: len(pairs)]
    )
    said = certificate(
        0.9,
        found.steps,
        found.refused,
        evidence(gold),
        evidence(rows),
        constitution="c@1",
        judge="x",
        date="2026-01-01",
    )
    assert (said.granted, said.kept, said.labels) == (True, 100, 100)
    assert said.agreement_naive == pytest.approx(0.9)
    assert said.agreement == pytest.approx(1.0)
    assert list(faults(said, gold, rows)) == []
    wrong = [made(GOLD[0], "openai/cheap", False, 0.9), *gold[1:]]
    assert any("of 60 gold rows agree" in fault for fault in faults(said, wrong, rows))
    assert list(faults(said, gold, rows[1:]))
    tampered = said.model_copy(update={"steps": (said.steps[0].model_copy(update={"low": 0.99}),)})
    assert any("bound" in fault for fault in faults(tampered, gold, rows))


@pytest.mark.parametrize(("alone", "single"), [(200, (0,)), (120, ())])
def test_one_order_is_enough_where_it_keeps_as_much(alone: int, single: tuple[int, ...]) -> None:
    """A judge that is sure of `alone` rows by one order and of 150 by both."""

    def ask(rows: Sequence[Pair], job: Job) -> list[Label]:
        sure = alone if job.single else 150
        return [
            made(row, "x", int(row.id) < sure or int(row.id) % 2 == 0, 0.99 if int(row.id) < sure else 0.6)
            for row in rows
        ]

    job = JOB._replace(panels=JOB.panels[:1], adaptive=True)
    found = calibrate(GOLD, job, 0.9, ask)
    assert found.job.single == single
    assert found.steps[0].n == max(alone, 150)
    assert found.steps[0].low == pytest.approx(0.025 ** (1 / max(alone, 150))), (
        "each way has half of the level"
    )
