"""Files from elsewhere: a cell is a text, a bomb is an error in words, one row's fault is that row's."""

from __future__ import annotations

import csv
import gzip
import json
import os
from pathlib import Path

import pytest

from preceptor.constitution.errors import FileFault
from preceptor.prompts import rows
from preceptor.prompts.errors import RowsError
from preceptor.prompts.rows import DEEPEST, RawRow, _is_binary, read_rows


def cells(path: Path, header: list[str], *lines: list[str]) -> list[RawRow | FileFault]:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *lines])
    return list(read_rows(path))


@pytest.mark.parametrize(
    "text", ['["red", "blue"]', "[1, 2, 3]", "[]", "[[A]]", "[" * 2000, '["\\ud83d"]', "[]]"]
)
def test_a_cell_that_looks_like_json_is_a_text(tmp_path: Path, text: str) -> None:
    (row,) = cells(tmp_path / "p.csv", ["prompt", "response_a", "note"], [f"{text}x", text, text])
    assert isinstance(row, RawRow)
    assert row.fields == {"prompt": f"{text}x", "response_a": text, "note": text}


def test_a_reply_column_is_a_list_only_of_messages(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "Hi"}]
    (row,) = cells(
        tmp_path / "p.csv", ["prompt", "chosen", "tags"], [json.dumps(talk), '["red", "blue"]', '["a", "b"]']
    )
    assert isinstance(row, RawRow)
    assert row.fields == {"prompt": talk, "chosen": '["red", "blue"]', "tags": ["a", "b"]}


def test_a_cell_may_be_of_any_length(tmp_path: Path) -> None:
    (row,) = cells(tmp_path / "p.csv", ["prompt"], ["x" * 400_000])
    assert isinstance(row, RawRow)
    assert len(row.fields["prompt"]) == 400_000


@pytest.mark.parametrize(
    ("cell", "came"), [('["\\ud83d"]', "half a character"), (f"{'[' * 150}{']' * 150}", "nested more than")]
)
def test_a_list_cell_that_cannot_be_used_is_its_rows_fault(tmp_path: Path, cell: str, came: str) -> None:
    good, bad, other = cells(tmp_path / "p.csv", ["responses"], ['["a", "b"]'], [cell], ['["c", "d"]'])
    assert isinstance(good, RawRow)
    assert isinstance(other, RawRow)
    assert isinstance(bad, FileFault)
    assert came in bad.came


@pytest.mark.parametrize(
    ("value", "came"),
    [
        (f"{'[' * (DEEPEST + 1)}{']' * (DEEPEST + 1)}", f"nested more than {DEEPEST} deep"),
        (f"{'[' * 200_000}{']' * 200_000}", "JSON that cannot be read"),
        ("1e999", "1e999 is too large a number"),
        ("NaN", "NaN is no JSON number"),
        ('"\\ud83d"', "half a character"),
    ],
)
def test_a_value_that_nobody_could_write_again_is_its_rows_fault(
    tmp_path: Path, value: str, came: str
) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(f'{{"prompt": "a"}}\n{{"prompt": "b", "x": {value}}}\n{{"prompt": "c"}}\n')
    first, bad, last = read_rows(path)
    assert isinstance(first, RawRow)
    assert isinstance(last, RawRow)
    assert isinstance(bad, FileFault)
    assert bad.line == 2
    assert came in bad.came


def test_a_gzip_bomb_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the limit's length only, so that the test is small; the limit itself is 256 MiB."""
    assert rows.LONGEST_LINE == 2**28
    monkeypatch.setattr(rows, "LONGEST_LINE", 2**20)
    path = tmp_path / "p.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"prompt": "' + b"x" * 2**24))
    with pytest.raises(RowsError, match=r"p\.jsonl\.gz:1: a line of more than 1 MiB; wanted a row"):
        list(read_rows(path))
    path = tmp_path / "p.json.gz"
    path.write_bytes(gzip.compress(b'{"prompt": 1},\n' * 2**18))
    with pytest.raises(RowsError, match="more than 1 MiB of JSON; write it as JSON Lines"):
        list(read_rows(path))


@pytest.mark.parametrize(
    "text",
    [
        '[{"a": 1}, {"a": 2}]',
        '{"comparisons": [{"a": 1}, {"a": 2}], "metadata": {}}',
        '[\n{"a": 1},\n{"a": 2}\n]',
    ],
)
def test_a_json_file_is_a_list_of_rows(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(text)
    assert [row.fields for row in read_rows(path) if isinstance(row, RawRow)] == [{"a": 1}, {"a": 2}]


def test_a_json_file_that_is_no_list_says_so(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text('[{"a": 1}, 5]')
    assert str(list(read_rows(path))[1]).endswith("p.json:2: a number; wanted an object in the list of rows")
    path.write_text("7")
    assert [fault.came for fault in read_rows(path) if isinstance(fault, FileFault)] == ["a number"]
    path.write_text('[{"a": 1')
    assert all(isinstance(fault, FileFault) for fault in read_rows(path))


def test_bytes_are_left_out_of_a_parquet_file_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import pyarrow
    from pyarrow import parquet

    caplog.set_level("INFO")

    path = tmp_path / "p.parquet"
    picture = {"bytes": b"\xff", "path": "x"}
    table = pyarrow.Table.from_pylist(
        [{"prompt": "a", "image": picture, "sounds": [picture], "raw": b"x", "n": 1}]
    )
    parquet.write_table(table, path)
    (row,) = read_rows(path)
    assert isinstance(row, RawRow)
    assert row.fields == {"prompt": "a", "n": 1}
    list(read_rows(path))
    assert caplog.messages == [f"{path}: left out because JSON cannot hold it: image, sounds, raw"], "once"


def test_bytes_are_known_in_every_form_that_columns_have() -> None:
    import pyarrow

    class Picture(pyarrow.ExtensionType):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(pyarrow.binary(), "test.picture")

        def __arrow_ext_serialize__(self) -> bytes:
            return b""

        @classmethod
        def __arrow_ext_deserialize__(cls, storage_type: object, serialized: bytes) -> Picture:
            return cls()

    text, raw = pyarrow.string(), pyarrow.binary()
    forms = [raw, pyarrow.large_binary(), pyarrow.binary_view(), pyarrow.binary(4), Picture()]
    for kind, found in [*((form, True) for form in forms), (text, False), (pyarrow.float32(), False)]:
        for nested in (kind, pyarrow.list_(kind), pyarrow.struct([("n", pyarrow.int8()), ("v", kind)])):
            assert _is_binary(nested) == found, nested
        assert _is_binary(pyarrow.map_(text, kind)) == found
    assert _is_binary(pyarrow.dictionary(pyarrow.int32(), raw))
    assert not _is_binary(pyarrow.dictionary(pyarrow.int32(), text))
    assert _is_binary(pyarrow.run_end_encoded(pyarrow.int32(), raw))


def test_bytes_are_left_out_of_a_dataset_folder_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    datasets = pytest.importorskip("datasets")
    caplog.set_level("INFO")
    held = {"bytes": b"\xff", "path": "x"}  # as its Audio and Image features store them
    saved = datasets.Dataset.from_list([{"prompt": "a", "sound": held, "image": held}])
    saved.save_to_disk(tmp_path / "saved")
    (row,) = read_rows(tmp_path / "saved")
    assert isinstance(row, RawRow)
    assert row.fields == {"prompt": "a"}
    assert caplog.messages == [f"{tmp_path / 'saved'}: left out because JSON cannot hold it: sound, image"]


def test_a_key_that_says_two_things_is_a_fault(tmp_path: Path) -> None:
    """JSON takes the last of them without a word; one that says the same twice does no harm."""
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "a", "prompt": "a"}\n{"prompt": "a", "meta": {"x": 1, "x": 2}}\n')
    good, bad = read_rows(path)
    assert isinstance(good, RawRow)
    assert isinstance(bad, FileFault)
    assert "the key 'x' stands twice in one object and says two things" in str(bad)


def test_what_a_killed_process_had_begun_goes_with_the_next_whole_file(tmp_path: Path) -> None:
    """What others are writing stays, and so does what belongs to another file."""
    tmp_path = tmp_path / "place"
    tmp_path.mkdir()
    dead = next(pid for pid in range(2**22 - 2, 1, -1) if not Path(f"/proc/{pid}").exists())
    for name in (f".out.jsonl.{dead}.part", f".out.jsonl.{os.getppid()}.part", f".other.{dead}.part"):
        (tmp_path / name).write_text("half")
    rows.write_rows(tmp_path / "out.jsonl", [])
    assert {path.name for path in tmp_path.iterdir()} == {
        "out.jsonl",
        f".out.jsonl.{os.getppid()}.part",
        f".other.{dead}.part",
    }


def test_an_error_leaves_no_folder_that_was_not_there(tmp_path: Path) -> None:
    tmp_path = tmp_path / "place"
    (tmp_path / "there").mkdir(parents=True)
    for place in ("there", "new/one"):
        with pytest.raises(ZeroDivisionError), rows.replacing(tmp_path / place / "out.jsonl"):
            raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
