"""`preceptor rubric convert` and `preceptor score --rubric`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command_line import Preceptor
from tests.servers.llm import LLMServer

RUBRIC = """\
name: mine
criteria:
  - {name: answers, text: It answers., weight: 3}
  - {name: short, text: It is short., check: {max_words: 2}}
"""


def test_replies_are_scored_by_a_rubric_in_any_form(
    preceptor: Preceptor,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    start_server: Callable[..., LLMServer],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(RUBRIC)
    pairs = {"prompt": "q", "chosen": "one two", "rejected": "one two three"}
    Path("pairs.jsonl").write_text(json.dumps(pairs) + "\n")
    server = start_server(verdict="Score: 10")
    words = (
        "score",
        "pairs.jsonl",
        "--judge",
        "openai/x",
        "--base-url",
        server.url,
        "--reasoning",
        "--out",
        "scores.jsonl",
    )
    made = preceptor(*words, "--rubric", "mine.yaml", "--json")
    assert made.code == 0, made.err
    rows = [json.loads(line) for line in Path("scores.jsonl").read_text().splitlines()]
    made_of = {row["text"]: (row["met"], row["score"]) for row in rows}
    assert made_of == {
        "one two": ({"answers": 1.0, "short": 1.0}, 1.0),
        "one two three": ({"answers": 1.0, "short": 0.0}, 0.75),
    }
    assert json.loads(made.out)["mean_score"] == 0.875

    refused = preceptor("rubric", "convert", "mine.yaml", "mine.toml", "--to", "verifiers")
    assert refused.code == 2
    assert "no place for check of the criterion short" in refused.err
    Path("mine.yaml").write_text(RUBRIC.replace(", check: {max_words: 2}", ""))
    assert preceptor("rubric", "convert", "mine.yaml", "mine.toml", "--to", "verifiers").code == 0
    assert "[[criteria]]" in Path("mine.toml").read_text()
    for flags, word in (
        (("--rubric", "mine.yaml", "-c", "style"), "in the place of --constitution"),
        (("--rubric", "nowhere.yaml"), "nowhere.yaml"),
        ((), "--rubric"),
    ):
        wrong = preceptor(*words, *flags)
        assert wrong.code == 2
        assert word in wrong.err
    assert preceptor("rubric", "convert", "mine.yaml", "x", "--to", "word").code == 2
