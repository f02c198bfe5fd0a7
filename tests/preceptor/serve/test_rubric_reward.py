"""A rubric behind the doors of the service: the command's numbers, and none where nobody could say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command_line import Preceptor
from tests.jsonl import rows_of
from tests.preceptor.serve.running import running, write_script

RUBRIC = """
name: desk
criteria:
  - {name: good, text: The reply is as it should be., weight: 3, veto: true}
  - {name: short, text: The reply is short., check: {max_words: 3}}
"""
CONFIG = """
models:
  judge: {model: scripted/judge.jsonl}
rewards:
  desk: {judge: judge, rubric: rubric.yaml}
doors:
  score: [desk]
"""
TEXTS = ("GOOD", "GOOD and also rather too long", "BAD", "MUMBLE")


def test_rewards_are_the_commands(
    tmp_path: Path, preceptor: Preceptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_script(tmp_path)
    (tmp_path / "rubric.yaml").write_text(RUBRIC)
    rows = [{"prompt": "Hello?", "response": text} for text in TEXTS]
    Path("rows.jsonl").write_text(json.dumps({"prompt": "Hello?", "responses": TEXTS}) + "\n")
    with running(tmp_path, CONFIG) as server:
        answer = server.post("/v1/reward", {"items": rows, "reward": "desk"})
    assert answer.status_code == 200, answer.text
    served = [one["reward"] for one in answer.json()["items"]]
    assert served == [pytest.approx(5 / 6), pytest.approx(1 / 3), -1.0, None], "a veto, and no word about one"
    words = ("score", "rows.jsonl", "--rubric", "rubric.yaml", "--judge", "scripted/judge.jsonl")
    made = preceptor(*words, "--out", "scores.jsonl")
    assert made.code == 0, made.err
    by_text = {row["text"]: row.get("reward") for row in rows_of(Path("scores.jsonl"))}
    assert [by_text[text] for text in TEXTS] == served


def test_a_broken_rubric_is_told_before_anything_is_served(tmp_path: Path, preceptor: Preceptor) -> None:
    (tmp_path / "rubric.yaml").write_text("name: x\n")
    both = CONFIG.replace("rubric: rubric.yaml", "rubric: rubric.yaml, constitution: front-desk")
    for config, word in ((CONFIG, "rewards.desk.rubric"), (both, "in the place of constitution")):
        (tmp_path / "serve.yaml").write_text(config)
        ended = preceptor("serve", "--config", tmp_path / "serve.yaml", "--port", "0")
        assert ended.code == 2
        assert word in ended.err
