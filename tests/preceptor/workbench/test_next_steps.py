"""`preceptor next`: every step has a reason in the folder, a command that exists, and a price that is known or none."""

from __future__ import annotations

import json
import os
import shlex
import time
from pathlib import Path
from typing import Any

import pytest

from preceptor.constitution.errors import UserError
from preceptor.workbench.next_steps import NextStep, next_steps
from tests.command_line import Preceptor
from tests.test_docs import fault_of

RULES = """\
name: mine
principles:
  - {id: brief, text: Choose the reply of few words., check: {max_words: 3}}
  - {id: calm, text: Choose the reply without a shout., check: {forbid: ['!']}}
"""


@pytest.fixture
def labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preceptor: Preceptor) -> Path:
    """A project whose labels hold a tie, in which `calm` never told two replies apart."""
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(RULES)
    rows = [
        {
            "id": "p1",
            "prompt": "q 1",
            "response_a": "so it is",
            "response_b": "it is so indeed",
            "tags": ["x"],
        },
        {"id": "p2", "prompt": "q 2", "response_a": "yes", "response_b": "no", "tags": ["y"]},
    ]
    Path("pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    made = preceptor("label", "pairs.jsonl", "-c", "mine.yaml", "--judge", "checks", "--out", "labels")
    assert made.code == 0, made.err
    return Path("labels")


def with_manifest(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, **changes}))


def about(steps: list[NextStep], words: str) -> NextStep | None:
    return next((step for step in steps if words in step["why"]), None)


def commands_exist(steps: list[NextStep]) -> None:
    assert [fault_of(shlex.split(step["command"])) for step in steps] == [""] * len(steps)


def test_what_labels_leave_open(labelled: Path, preceptor: Preceptor) -> None:
    ended = preceptor("next", "--json")
    assert ended.code == 0, ended.err
    steps: list[NextStep] = json.loads(ended.out)["steps"]
    commands_exist(steps)
    unsure, unknown, idle = (
        about(steps, words) for words in ("no winner", "agrees with people", "calm decided none")
    )
    assert unsure is not None
    assert unsure["people"] == 1
    assert unsure["command"].startswith("preceptor label pairs.jsonl -c mine.yaml --judge checks --human")
    assert unknown is not None
    assert unknown["people"] == 2
    assert idle is not None
    assert idle["cost_usd"] == 0.0
    assert preceptor(*shlex.split(idle["command"])[1:]).code == 0
    tied = about(steps, "no pair was told apart")
    assert tied is not None
    assert tied["cost_usd"] is None
    assert about(steps, "still say the same") is None  # checks do not drift
    shown = preceptor("next").out
    assert "1 question to a person" in shown
    assert labelled.is_dir()


def test_a_price_is_that_of_before_or_not_known(labelled: Path) -> None:
    settings = json.loads((labelled / "manifest.json").read_text())["settings"] | {
        "panels": [[["openai/x"], ""]]
    }
    with_manifest(labelled, settings=settings, cost_usd=4.0, judge="openai/x")
    later = time.time() + 40 * 86400 + 3600
    known = about(next_steps(Path(), later), "made 40 days ago")
    assert known is not None
    assert known["cost_usd"] == 2.0
    assert about(next_steps(Path()), "days ago") is None
    with_manifest(labelled, cost_usd=0.0)  # out of the ledger: that is no price
    unknown = about(next_steps(Path(), later), "made 40 days ago")
    assert unknown is not None
    assert unknown["cost_usd"] is None
    with_manifest(labelled, complete=False)
    stopped = about(next_steps(Path(), later), "stopped before its end")
    assert stopped is not None
    commands_exist(next_steps(Path(), later))
    Path("mine.yaml").write_text(RULES.replace("few words", "some words"))
    assert (
        about(next_steps(Path(), later), "stopped before its end") is None
    )  # nobody knows by what it was labelled


def test_constitutions_runs_and_empty_folders(tmp_path: Path, preceptor: Preceptor) -> None:
    assert [step["command"] for step in next_steps(tmp_path)] == [
        "preceptor constitution new my-constitution"
    ]
    started = tmp_path / "started"
    assert preceptor("init", started).code == 0
    steps = next_steps(started)
    assert about(steps, "was never run") is not None
    commands_exist(steps)
    (started / "broken.yaml").write_text("name: broken\nprinciples: 3\n")
    (started / "twice.yaml").write_text(RULES.replace("without a shout", "of few words"))
    steps = next_steps(started)
    assert about(steps, "does not load") is not None
    assert about(steps, "1 error") is not None
    commands_exist(steps)
    run = started / "run"
    run.mkdir()
    (run / "manifest.json").write_text(
        json.dumps({"kind": "run", "settings": {"prompts": {"file": "prompts.jsonl"}}})
    )
    (run / "summary.json").write_text(json.dumps({"after": {"kind": 0.4, "brief": 0.9, "overall": 0.3}}))
    weak = about(next_steps(started), "kind holds in 40%")
    assert weak is not None
    assert "--fill" in weak["command"]
    assert about(next_steps(started), "was never run") is None
    with pytest.raises(UserError, match="is no folder"):
        next_steps(tmp_path / "none")
    os.symlink(tmp_path, started / "loop")
    assert next_steps(started)
