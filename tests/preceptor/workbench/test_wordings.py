"""Wordings of a principle: the winner is chosen on some pairs, and told what it is worth on others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from preceptor.judge.records import Letter, Pair
from preceptor.prompts.records import Message, Prompt
from preceptor.workbench.induction import SplitPairs
from preceptor.workbench.wordings import Wording, best, compared
from tests.command_line import Preceptor

RULES = """\
name: mine
principles:
  - id: sources
    text: Choose the well founded one.
  - {id: brief, text: Choose the brief one., check: {max_words: 3}}
"""
BETTER = "Choose the reply that names its sources."


def pairs(count: int, start: int = 0) -> tuple[Pair, ...]:
    prompt = Prompt(id="q", messages=(Message(role="user", content="q"),))
    return tuple(
        Pair(id=f"p{n}", prompt=prompt, response_a="x", response_b="y", preferred="a")
        for n in range(start, start + count)
    )


def test_held_out_pairs_have_no_say_in_the_choice() -> None:
    split = SplitPairs(pairs(4), pairs(4, 4))
    right: dict[str, Letter | None] = {f"p{n}": "a" for n in range(4)}
    later: dict[str, Letter | None] = {f"p{n}": "a" for n in range(4, 8)}
    found = compared(
        split, [Wording("old", {}, 0.0), Wording("learned", right, 0.1), Wording("lucky", later, 0.2)]
    )
    assert best(found)["text"] == "learned"
    assert [one["held_out"]["right"] for one in found] == [0, 0, 4]
    assert [one["flips"] for one in found] == [0, 0, 4]
    same = compared(split, [Wording("old", right, 0.0), Wording("new", right, 0.0)])
    assert best(same)["text"] == "old"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(RULES)
    rows = [
        {
            "id": f"p{n}",
            "prompt": f"question {n}",
            "response_a": "source: book" if n % 2 else "just so",
            "response_b": "just so" if n % 2 else "source: book",
            "preferred": "a" if n % 2 else "b",
        }
        for n in range(12)
    ]
    Path("gold.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    rules = [
        ("other wordings", json.dumps({"principle": BETTER})),
        ("well founded", "Verdict: tie"),
        (r"<<<REPLY_A[^>]*>>>\nsource: book", "Verdict: A"),
        (".", "Verdict: B"),
    ]
    Path("model.jsonl").write_text(
        "".join(json.dumps({"match": one, "text": text}) + "\n" for one, text in rules)
    )
    return tmp_path


@pytest.mark.usefixtures("place")
def test_the_best_wording_is_proposed_and_the_file_stays(preceptor: Preceptor) -> None:
    words = ("constitution", "tune", "mine.yaml", "sources", "gold.jsonl", "--judge", "scripted/model.jsonl")
    by_model = (*words, "--model", "scripted/model.jsonl")
    plan = preceptor(*by_model, "--plan", "--json")
    assert plan.code == 0, plan.err
    ended = preceptor(*by_model, "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert found["best"] == BETTER
    assert [one["held_out"]["share"] for one in found["wordings"]] == [0.0, 1.0]
    assert f"+    text: {BETTER}" in found["diff"]
    shown = preceptor(*words, "--wording", BETTER)
    assert f"+    text: {BETTER}" in shown.out
    assert "0 calls asked" in shown.err
    worse = preceptor(*words, "--wording", "Choose the well founded reply.")
    assert (worse.code, worse.out) == (0, "")
    assert "no wording agrees better" in worse.err
    assert Path("mine.yaml").read_text() == RULES


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("sources", (), "bring others with --wording"),
        ("nine", ("--wording", "x"), "no principle 'nine'"),
        ("brief", ("--wording", "x"), "a machine check decides"),
    ],
)
def test_what_cannot_be_tuned(preceptor: Preceptor, name: str, more: tuple[str, ...], said: str) -> None:
    ended = preceptor(
        "constitution", "tune", "mine.yaml", name, "gold.jsonl", "--judge", "scripted/model.jsonl", *more
    )
    assert (ended.code, said in ended.err) == (2, True), ended.err
