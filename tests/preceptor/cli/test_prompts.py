"""`prompts dedupe`, `coverage` and `split` as commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from preceptor.prompts.pool import read_prompts
from tests.command_line import Preceptor

POOL = "Where is the swimming pool of the hotel?"
NEAR = "Where is the swimming pool of this hotel?"
LUNCH = "What is there for lunch on a Sunday?"
TAXI = "Could somebody order me a taxi to the airport?"
RULES = "name: ok\nprinciples:\n  - {id: brief, text: Choose., check: {max_words: 5}}\n"


def write(path: Path, *texts: str, **columns: Any) -> Path:
    path.write_text("".join(f"{json.dumps({'prompt': text, **columns})}\n" for text in texts))
    return path


def texts(path: Path) -> list[str]:
    return [row.messages[-1].content for row in read_prompts(path)]


def test_near_duplicates_are_dropped_across_files_and_told(tmp_path: Path, preceptor: Preceptor) -> None:
    one, other = write(tmp_path / "one.jsonl", POOL, LUNCH), write(tmp_path / "other.jsonl", NEAR, TAXI)
    out, dropped = tmp_path / "out.jsonl", tmp_path / "dropped.jsonl"
    ended = preceptor("prompts", "dedupe", one, other, "--out", out, "--dropped", dropped, "--json")
    assert ended.code == 0, ended.err
    assert texts(out) == [POOL, LUNCH, TAXI]
    found = json.loads(ended.out)
    assert (found["prompts"], found["kept"], found["duplicates"], found["leaks"]) == (4, 3, 1, 0)
    assert [file["kept"] for file in found["files"]] == [2, 1]
    (row,) = map(json.loads, dropped.read_text().splitlines())
    assert (row["file"], row["of_file"], row["leak"]) == (str(other), str(one), False)
    assert f"{other}: {row['id']} is near {row['of']} of {one}" in ended.err


@pytest.mark.parametrize(
    ("leakage", "code", "left"), [("refuse", 1, None), ("drop", 0, [LUNCH]), ("keep", 0, [POOL, LUNCH])]
)
def test_leakage_is_refused_unless_it_is_allowed(
    leakage: str, code: int, left: list[str] | None, tmp_path: Path, preceptor: Preceptor
) -> None:
    train, held = write(tmp_path / "train.jsonl", POOL, LUNCH), write(tmp_path / "held.jsonl", NEAR, TAXI)
    before, out = held.read_bytes(), tmp_path / "out.jsonl"
    words = ("--held-out", held, "--leakage", leakage, "--dropped", tmp_path / "dropped.jsonl", "--json")
    ended = preceptor("prompts", "dedupe", train, "--out", out, *words)
    assert ended.code == code, ended.err
    assert (texts(out) if out.exists() else None) == left
    assert "1 of 2 held-out prompts leaked (50.0%)" in ended.err
    found = json.loads(ended.out)
    assert (found["leaks"], found["held_out"], found["held_out_leaked"]) == (1, 2, 1)
    assert (found["out"] is None) == (leakage == "refuse")
    assert json.loads((tmp_path / "dropped.jsonl").read_text())["kept"] == (leakage == "keep")
    assert held.read_bytes() == before


def test_coverage_of_labels(tmp_path: Path, preceptor: Preceptor) -> None:
    (tmp_path / "ok.yaml").write_text(RULES)
    pairs = [
        {
            "prompt": POOL,
            "response_a": "There.",
            "response_b": "It is where it has always been.",
            "tags": ["where"],
        },
        {"prompt": LUNCH, "response_a": "Soup.", "response_b": "Fish.", "tags": ["what"]},
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs))
    rules, labels = tmp_path / "ok.yaml", tmp_path / "labels"
    made = preceptor(
        "label", tmp_path / "pairs.jsonl", "-c", rules, "--judge", "checks", "--out", labels,
        "--ledger", tmp_path / "ledger.db",
    )  # fmt: skip
    assert made.code == 0, made.err
    (tmp_path / "prompts.jsonl").write_text(
        "".join(f"{json.dumps({'prompt': pair['prompt'], 'tags': pair['tags']})}\n" for pair in pairs)
    )
    ended = preceptor(
        "prompts", "coverage", tmp_path / "prompts.jsonl", "-c", rules, "--labels", labels, "--json"
    )
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert [(one["tag"], one["judged"], one["told_apart"], one["decided"]) for one in found["cells"]] == [
        ("*", 2, 1, 1),
        ("what", 1, 0, 0),
        ("where", 1, 1, 1),
    ]
    assert "ties alone: brief with what" in ended.err
    plain = preceptor("prompts", "coverage", tmp_path / "prompts.jsonl", "-c", rules, "--json")
    assert json.loads(plain.out)["cells"][0]["judged"] is None


def test_split_gives_every_row_to_one_side(tmp_path: Path, preceptor: Preceptor) -> None:
    source = write(tmp_path / "prompts.jsonl", POOL, LUNCH, NEAR, TAXI, tags=["hotel"])
    words = ("prompts", "split", source, "--held-out", "0.5", "--out", tmp_path / "sides", "--json")
    ended = preceptor(*words)
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert (found["train"] + found["held_out"], found["groups"], found["largest"]) == (4, 3, 2)
    learn, kept = (texts(tmp_path / "sides" / f"{name}.jsonl") for name in ("train", "held-out"))
    assert sorted([*learn, *kept]) == sorted([POOL, LUNCH, NEAR, TAXI])
    assert (POOL in learn) == (NEAR in learn)
    clean = preceptor(
        "prompts", "dedupe", tmp_path / "sides" / "train.jsonl", "--held-out", tmp_path / "sides" / "held-out.jsonl",
        "--out", tmp_path / "clean.jsonl",
    )  # fmt: skip
    assert clean.code == 0, clean.err
