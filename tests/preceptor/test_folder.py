"""A stage is run again exactly where its settings, its inputs or its outputs are not what they were."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.constitution.errors import UserError
from preceptor.folder import (
    STAGES,
    begin_stage,
    copy_folder,
    digest,
    fingerprint,
    finished,
    read_json,
    record_stage,
    stage_records,
)
from preceptor.records import StageRecord


def record(folder: Path, stage: str, wanted: str, *outputs: str, **fields: object) -> StageRecord:
    hashes = {name: digest(folder / name) for name in outputs}
    values = {"stage": stage, "fingerprint": wanted, "outputs": hashes, "rows_in": 1, "rows_out": 1}
    values |= {"wall_s": 1.0, "cost_usd": 0.0, **fields}
    return StageRecord.model_validate(values)


SETTINGS = st.dictionaries(st.sampled_from("abc"), st.integers(0, 3), max_size=3)


@settings(deadline=None, max_examples=40)
@given(SETTINGS, SETTINGS, st.binary(max_size=4), st.binary(max_size=4))
def test_fingerprints_are_equal_where_settings_and_inputs_are(
    tmp_path_factory: pytest.TempPathFactory,
    one: dict[str, int],
    other: dict[str, int],
    first: bytes,
    second: bytes,
) -> None:
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "one").write_bytes(first)
    (folder / "other").write_bytes(second)
    marks = (fingerprint(one, {"x": folder / "one"}), fingerprint(other, {"x": folder / "other"}))
    assert (marks[0] == marks[1]) is ((one, first) == (other, second))
    assert fingerprint(dict(reversed(one.items())), {"x": folder / "one"}) == marks[0]


def test_a_stage_is_finished_until_anything_of_it_changes(tmp_path: Path) -> None:
    (tmp_path / "rows").write_text("one")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "manifest.json").write_text("{}")
    made = record(tmp_path, "label", "mark", "rows", "model")
    assert finished(tmp_path, "label", "mark") is None
    record_stage(tmp_path, made)
    assert finished(tmp_path, "label", "mark") == made
    assert finished(tmp_path, "label", "other") is None
    assert finished(tmp_path, "respond", "mark") is None
    for path, text in (("rows", "two"), ("model/manifest.json", "[]")):
        before = (tmp_path / path).read_text()
        (tmp_path / path).write_text(text)
        assert finished(tmp_path, "label", "mark") is None
        (tmp_path / path).write_text(before)
        assert finished(tmp_path, "label", "mark") == made
    (tmp_path / "rows").unlink()
    assert finished(tmp_path, "label", "mark") is None


def test_the_last_record_of_a_stage_counts_and_a_torn_line_does_not(tmp_path: Path) -> None:
    for stage, wall_s in (("respond", 1.0), ("label", 2.0), ("respond", 3.0)):
        record_stage(tmp_path, record(tmp_path, stage, "mark", wall_s=wall_s))
    with (tmp_path / STAGES).open("a") as stream:
        stream.write('{"stage": "label", "finger')
    assert [(one.stage, one.wall_s) for one in stage_records(tmp_path)] == [("respond", 3.0), ("label", 2.0)]


@pytest.mark.parametrize(("again", "stays"), [("mark", True), ("other", False)])
def test_a_stage_that_begins_anew_keeps_what_it_made_of_the_same_alone(
    tmp_path: Path, again: str, stays: bool
) -> None:
    begin_stage(tmp_path, "dpo", "mark", ["policy"])
    (tmp_path / "policy").mkdir()
    (tmp_path / "rows").write_text("a file stays: it is written whole or not at all")
    begin_stage(tmp_path, "dpo", again, ["policy", "rows"])
    assert (tmp_path / "policy").exists() is stays
    assert (tmp_path / "rows").exists()


def test_a_copy_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    place = tmp_path / "place"
    for name, inside in (("new", "fresh"), ("old", "stale"), (".old.part", "left by a kill")):
        (place / name).mkdir(parents=True)
        (place / name / inside).write_text(inside)
    copy_folder(place / "new", place / "old")
    assert sorted(path.name for path in place.rglob("*")) == ["fresh", "fresh", "new", "old"]


@pytest.mark.parametrize(
    ("text", "said"), [(None, "is missing"), ("{", "is not JSON"), ("[]", "no JSON object")]
)
def test_what_a_run_has_not_written_is_told(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "manifest.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=said):
        read_json(path)
