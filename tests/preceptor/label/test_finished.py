"""What is known of an input file: its hash is written down only where nobody changed it while it was read."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from preceptor.label.finished import InputFile, finished, input_facts, stamp


@pytest.fixture
def source(tmp_path: Path) -> InputFile:
    (tmp_path / "pairs.jsonl").write_text("{}\n")
    return InputFile(str(tmp_path / "pairs.jsonl"), "rows", 5)


def test_a_file_that_stays_is_known_by_its_hash(source: InputFile) -> None:
    assert input_facts(source, stamp(source)) == {
        "path": source.path,
        "format": "rows",
        "limit": 5,
        "sha256": hashlib.sha256(b"{}\n").hexdigest(),
    }


@pytest.mark.parametrize("change", ["longer", "as long and later", "gone"])
def test_a_file_that_changed_while_it_was_read_has_no_hash(source: InputFile, change: str) -> None:
    before, path = stamp(source), Path(source.path)
    if change == "gone":
        path.unlink()
    else:
        path.write_text("{}{}\n" if change == "longer" else "[]\n")
        os.utime(path, ns=(1, 1))
    assert "sha256" not in input_facts(source, before)


def test_how_it_was_read_is_told_where_it_is_not_the_plain_way(source: InputFile) -> None:
    other = source._replace(columns=(("prompt", "question"),), truncated="drop")
    facts = input_facts(other, None)
    assert (facts.get("map"), facts.get("truncated")) == ({"prompt": "question"}, "drop")
    assert "sha256" not in facts


def test_what_is_no_plain_file_is_stamped_by_nothing(tmp_path: Path) -> None:
    assert stamp(None) is None
    assert stamp(InputFile(str(tmp_path), "rows", None)) is None
    assert input_facts(None, None) == {}


def test_a_folder_without_a_manifest_is_not_finished(tmp_path: Path, source: InputFile) -> None:
    assert finished(tmp_path / "labels", {}, source) is None
