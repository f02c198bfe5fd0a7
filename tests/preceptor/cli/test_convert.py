"""`preceptor convert`, and layouts in the other commands: what was recognised is one line, a fault is one message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from tests.command_line import Preceptor

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


def parquet_of(path: Path, *rows: dict[str, Any]) -> Path:
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    return path


def test_images_and_sounds_go_along_with_their_rows_from_parquet_into_parquet(preceptor: Preceptor) -> None:
    """Byte by byte beside the right row, whatever was set aside and however many rows are read at a time; into any
    other kind of file they are named and left out."""
    held = [
        {"bytes": number.to_bytes(2, "big"), "path": None if number % 3 else f"{number}.png"}
        for number in range(2500)
    ]
    rows = [
        {**PKU, "prompt": f"{number}?", "better_response_id": -1 if number % 7 == 0 else 1, "image": image}
        | {"sounds": [image] * (number % 3), "raw": b"x" * (number % 5)}
        for number, image in enumerate(held)
    ]
    parquet_of(Path("in.parquet"), *rows)
    ended = preceptor("convert", "in.parquet", "out.parquet", "--to", "trl")
    assert ended.code == 0, ended.err
    assert "carried along: image, sounds, raw" in ended.err
    assert "left out" not in ended.err
    kept = [row for number, row in enumerate(rows) if number % 7]
    came = parquet.read_table("out.parquet").to_pylist()
    assert [row["prompt"][0]["content"] for row in came] == [row["prompt"] for row in kept]
    for name in ("image", "sounds", "raw"):
        assert [row[name] for row in came] == [row[name] for row in kept]
    ended = preceptor("convert", "in.parquet", "out.jsonl", "--to", "trl")
    assert ended.code == 0, ended.err
    assert "left out because JSON cannot hold it: image, sounds, raw" in ended.err
    assert "carried along" not in ended.err


def test_columns_that_not_every_row_has_are_written_to_parquet(preceptor: Preceptor) -> None:
    rows = [
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"prompt": "d", "chosen": "e", "rejected": "f", "tags": ["t"]},
    ]
    file_of(Path("in.jsonl"), *rows)
    assert preceptor("convert", "in.jsonl", "out.parquet", "--to", "trl").code == 0
    assert [row["tags"] for row in parquet.read_table("out.parquet").to_pylist()] == [None, ["t"]]


def test_bytes_under_a_name_of_the_layouts_are_refused_and_nothing_is_written(preceptor: Preceptor) -> None:
    parquet_of(Path("in.parquet"), {**PKU, "chosen": b"x"})
    ended = preceptor("convert", "in.parquet", "out.parquet", "--to", "trl")
    assert ended.code == 2
    assert "chosen holds bytes, and the layout has a column of that name; rename it" in ended.err
    assert not Path("out.parquet").exists()
