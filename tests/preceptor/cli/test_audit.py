"""`preceptor audit`: asked in another form."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command_line import Preceptor
from tests.preceptor.test_certify import pair, write
from tests.servers.llm import LLMServer


def test_verdicts_are_held_against_another_form(
    preceptor: Preceptor,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    start_server: Callable[..., LLMServer],
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "gold.jsonl", [pair(number) for number in range(5)])
    server = start_server()
    words = ("audit", "gold.jsonl", "-c", "helpful-harmless", "--judge", "openai/x", "--base-url", server.url)
    forms = ("--perturb", "options", "--perturb", "principles")
    plan = preceptor(*words, *forms, "--plan", "--json")
    assert json.loads(plan.out)["models"][0]["to_ask"] == 3 * 10
    made = preceptor(*words, *forms, "--json", "--fail-if", "options_flip_rate > 0")
    assert made.code == 0, made.err
    found = json.loads(made.out)["perturbed"]
    assert set(found) == {"options", "principles"}
    assert all((one["n"], one["flip_rate"], one["accuracy"]) == (5, 0.0, 1.0) for one in found.values())
    assert server.stats()["requests"] == 30, "every form is another ask"
    write(tmp_path / "more.jsonl", [pair(number) for number in range(20, 26)])
    corrected = json.loads(preceptor(*words, "--rows", "more.jsonl", "--json").out)["corrected"]
    assert (corrected["rows"], corrected["gold"], corrected["unlike"]) == (6, 5, "")
    assert corrected["naive"] < corrected["agreement"] == 1.0, "it is surer than it says"
    table = preceptor(*words, *forms)
    assert "asked in another form" in table.out + table.err
    gate = preceptor(*words, "--fail-if", "words_flip_rate > 0")
    assert gate.code == 2
    assert "--perturb words" in gate.err
    wrong = preceptor(*words, "--perturb", "colour")
    assert wrong.code == 2
    assert "options" in wrong.err
