"""`panel choose` on recorded votes."""

from __future__ import annotations

import json
from pathlib import Path

from preceptor.judge.records import Label, Letter
from preceptor.judge.voting.choice import recordings_of
from preceptor.prompts.rows import write_rows
from tests.command_line import Preceptor
from tests.judge.canned import pair
from tests.judge.voting.test_panel import vote


def label(number: int, gold: Letter, shares: dict[str, float | None]) -> Label:
    base = pair()
    votes = tuple(vote(name, share) for name, share in shares.items())
    return Label(
        id=f"pair-{number}",
        status="ok",
        probability=1.0,
        prompt=base.prompt,
        response_a=base.response_a,
        response_b=base.response_b,
        preferred=gold,
        judgements=(),
        votes=votes,
        constitution="c@1#0",
        judge="x + y",
    )


def test_the_command_says_one_judge(tmp_path: Path, preceptor: Preceptor) -> None:
    rows = [label(n, "a", {"x": 0.9, "y": 0.1 if n % 2 else 0.9}) for n in range(60)]
    rows += [label(60, "tie", {"x": 0.9, "y": 0.9}), label(61, "b", {"x": 0.1, "y": None})]
    assert recordings_of(rows).said.shape == (61, 2)
    write_rows(tmp_path / "labels.jsonl", rows)
    ended = preceptor("panel", "choose", tmp_path, "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["chosen"] == ["x"]
    assert "one judge: x" in preceptor("panel", "choose", tmp_path).err
    write_rows(tmp_path / "labels.jsonl", [])
    assert preceptor("panel", "choose", tmp_path).code == 2
    assert preceptor("panel", "choose", tmp_path / "none").code == 2
