"""`preceptor convert`, and layouts in the other commands: what was recognised is one line, a fault is one message."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.preceptor.conftest import Preceptor

PKU = {"prompt": "2 + 2?", "response_0": "5", "response_1": "4", "better_response_id": 1}


def file_of(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_file_is_converted_and_what_was_recognised_is_said(tmp_path: Path, preceptor: Preceptor) -> None:
    source = file_of(tmp_path / "pku.jsonl", PKU, {**PKU, "better_response_id": -1})
    ended = preceptor("convert", source, tmp_path / "out.jsonl", "--to", "hh", "--json")
    assert ended.code == 0, ended.err
    assert "read as pku-saferlhf: PKU-SafeRLHF" in ended.err
    assert "1 set aside: a tie" in ended.err
    assert json.loads(ended.out)["written"] == 1
    (row,) = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert row["chosen"] == "\n\nHuman: 2 + 2?\n\nAssistant: 4"


def test_layouts_and_mappings_are_labelled(
    tmp_path: Path, preceptor: Preceptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    principle = "{id: short, text: Choose the short reply., check: {max_words: 2}}"
    (tmp_path / "short.yaml").write_text(f"name: short\nversion: 1.0.0\nprinciples: [{principle}]\n")
    file_of(tmp_path / "pku.jsonl", {**PKU, "response_0": "It is five, I think."})
    known = preceptor("label", "pku.jsonl", "-c", "short.yaml", "--judge", "checks", "--out", "a")
    assert known.code == 0, known.err
    assert known.err.count("read as pku-saferlhf") == 1
    file_of(tmp_path / "own.jsonl", {"ask": "2 + 2?", "yes": "4", "no": "It is five, I think."})
    mapped = [f"--map={pair}" for pair in ("prompt=ask", "chosen=yes", "rejected=no")]
    named = preceptor("label", "own.jsonl", "-c", "short.yaml", "--judge", "checks", "--out", "b", *mapped)
    assert named.code == 0, named.err
    for folder in ("a", "b"):
        (row,) = map(json.loads, (tmp_path / folder / "preferences.jsonl").read_text().splitlines())
        assert row["chosen"][0]["content"] == "4"
    again = preceptor("label", "own.jsonl", "-c", "short.yaml", "--judge", "checks", "--out", "b")
    assert again.code == 2
    assert "no layout of pairs that is known (ask, no, yes)" in again.err
    assert "Traceback" not in again.err


def test_a_csv_file_gives_a_spreadsheet_no_formula_and_loses_no_word(preceptor: Preceptor) -> None:
    row = {"prompt": "=HYPERLINK(1)", "chosen": "@SUM(1)|cmd", "rejected": "- a\n- b"}
    Path("in.jsonl").write_text(json.dumps(row) + "\n")
    assert preceptor("convert", "in.jsonl", "out.csv", "--to", "trl-text").code == 0
    assert "'=HYPERLINK" in Path("out.csv").read_text()
    assert preceptor("convert", "out.csv", "back.jsonl", "--to", "trl-text").code == 0
    assert row.items() <= json.loads(Path("back.jsonl").read_text()).items()
