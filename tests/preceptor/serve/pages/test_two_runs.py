"""Two runs beside each other: only what both have is compared, and by a test for pairs."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from preceptor.judge.records import Label
from preceptor.judge.statistics import newcombe, phi, wilson
from preceptor.prompts.records import Message, Prompt
from preceptor.records import HeldOut
from preceptor.serve.pages.two_runs import ALL, JUDGE, compared, sign_test


def row(number: int, after: str, p: float | None, **satisfied: bool) -> HeldOut:
    prompt = Prompt(id=f"p{number}", messages=(Message(role="user", content=f"Hi {number}"),))
    label = Label(
        id=f"l{number}",
        status="unparsed" if p is None else "ok",
        probability=p,
        prompt=prompt,
        response_a=after,
        response_b="before",
        judgements=(),
        constitution="c@1#x",
        judge="m",
    )
    return HeldOut(
        id=f"h{number}",
        prompt=prompt,
        before="before",
        after=after,
        label=label,
        satisfied_before={},
        satisfied_after=satisfied,
    )


def run(folder: Path, rows: list[HeldOut], **settings: Any) -> Path:
    folder.mkdir()
    (folder / "8-heldout.jsonl").write_text("".join(f"{one.line()}\n" for one in rows))
    if settings:
        (folder / "manifest.json").write_text(json.dumps({"settings": settings, "constitution": "c@1#x"}))
    return folder


def test_shares_are_paired_over_the_prompts_that_both_have(tmp_path: Path) -> None:
    draw = random.Random(1)
    wins = [(draw.random() < 0.5, draw.random() < 0.7) for _ in range(40)]
    one = [row(at, f"x{at}", 0.9 if won else 0.1, short=won) for at, (won, _) in enumerate(wins)]
    other = [row(at, f"y{at}", 0.9 if won else 0.1, short=won) for at, (_, won) in enumerate(wins)]
    draw.shuffle(other)  # a run's order is no matter
    found = compared(
        run(tmp_path / "a", [*one, row(98, "z", None)]), run(tmp_path / "b", [row(99, "z", 0.9), *other])
    )
    assert (found.both, found.only_one, found.only_other) == (40, 1, 1)
    shares = {each.name: each for each in found.shares}
    assert list(shares) == ["short", ALL, JUDGE]
    firsts, seconds = [a for a, _ in wins], [b for _, b in wins]
    sides = wilson(sum(firsts), 40), wilson(sum(seconds), 40)
    for each in shares.values():
        assert (each.one, each.other) == sides
        assert each.difference == newcombe(*sides, phi(firsts, seconds))
        assert each.only_one == sum(a and not b for a, b in wins)
        assert each.only_other == sum(b and not a for a, b in wins)
        assert each.p == sign_test(each.only_one, each.only_other)
    # a run beside itself differs in nothing
    same = compared(tmp_path / "a", tmp_path / "a")
    assert all(each.p is None and each.difference and each.difference.by == 0 for each in same.shares)
    assert (same.changed, same.settings) == ([], [])


def test_what_is_not_known_of_both_is_not_counted(tmp_path: Path) -> None:
    one = run(tmp_path / "a", [row(1, "x", None, short=True), row(2, "x", 0.9, polite=True)])
    other = run(tmp_path / "b", [row(1, "x", 0.9, short=False), row(2, "y", 0.9)])
    shares = {each.name: each.one.n for each in compared(one, other).shares}
    assert shares == {"polite": 0, "short": 1, ALL: 1, JUDGE: 1}


def test_samples_that_changed_come_with_what_turned_first(tmp_path: Path) -> None:
    one = run(tmp_path / "a", [row(1, "x", 0.9, short=True), row(2, "x", 0.9), row(3, "same", 0.9)])
    rows = [row(1, "y", 0.9, short=False), row(2, "y", 0.9), row(3, "same", 0.9)]
    found = compared(one, run(tmp_path / "b", rows[::-1]))
    assert [(each.one.after, each.other.after, each.turned) for each in found.changed] == [
        ("x", "y", ("short",)),
        ("x", "y", ()),
    ]


def test_settings_that_differ_by_their_whole_name(tmp_path: Path) -> None:
    one = run(tmp_path / "a", [], seed=1, dpo={"beta": 0.1, "epochs": 2}, model="m")
    other = run(tmp_path / "b", [], seed=1, dpo={"beta": 0.5, "epochs": 2}, judge=["x"])
    found = compared(one, other)
    assert found.known_settings
    assert found.settings == [("dpo.beta", "0.1", "0.5"), ("judge", "–", "['x']"), ("model", "m", "–")]
    assert not compared(one, run(tmp_path / "c", [])).known_settings


@pytest.mark.parametrize("text", ["", "{", '{"id": 1}\n', "[]\n"])
def test_a_run_that_cannot_be_read_is_compared_in_nothing(tmp_path: Path, text: str) -> None:
    one = run(tmp_path / "a", [row(1, "x", 0.9)])
    (tmp_path / "b").mkdir()
    for name in ("8-heldout.jsonl", "manifest.json"):
        (tmp_path / "b" / name).write_text(text)
    found = compared(one, tmp_path / "b")
    assert (found.both, found.only_one, found.known_settings) == (0, 1, False)


def test_the_sign_test_by_hand() -> None:
    assert sign_test(0, 0) is None
    assert sign_test(0, 5) == pytest.approx(2 / 2**5)
    assert sign_test(1, 5) == pytest.approx(2 * (1 + 6) / 2**6)
    assert sign_test(3, 3) == 1.0
