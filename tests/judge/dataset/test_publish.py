"""Labels -> the folder that `label` leaves behind."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from ruamel.yaml import YAML

from preceptor.constitution.principle import Constitution
from preceptor.judge.dataset.label_folder import LABELS, LabelFolder
from preceptor.judge.dataset.manifest import LabelManifest
from preceptor.judge.dataset.publish import LabelRun, preference, publish
from preceptor.judge.errors import PairsError
from preceptor.judge.label import label
from preceptor.judge.models.protocol import Completion, Request
from preceptor.judge.records import Label
from preceptor.judge.settings import LabelSettings
from preceptor.prompts.rows import write_rows
from tests.declared import faults
from tests.jsonl import rows_of
from tests.judge.canned import KIND, SHORT, Absent, drive, pair, says

SET = Constitution(name="set", principles=(KIND, SHORT.model_copy(update={"applies_to": ("short",)})))


def labels() -> list[Label]:
    """One label of each kind that a judge can bring about, and two that are ok."""

    def answer(words: list[str]) -> list[Completion]:
        return [says(text) for text in words]

    said = [
        ["Verdict: A", "Verdict: B"],
        ["Verdict: B", "Verdict: A"],
        ["Verdict: A", "Verdict: A"],
        ["Verdict: tie", "Verdict: tie"],
        ["Hard to say.", "Verdict: A"],
        ["", "I'm sorry, but I can't help with comparing these."],
    ]
    rows = []
    for index, words in enumerate(said):
        row = pair().model_copy(update={"id": f"pair-{index}", "preferred": "a"})
        replies = iter(answer(words))
        rows.append(
            drive(label(row, SET, Absent(), None, LabelSettings(tie=True)), lambda _, r=replies: next(r))[0]
        )
    return rows


def run(**changed: Any) -> LabelRun:
    fields = {
        "constitution": SET,
        "judge": "scripted/none",
        "settings": {"seed": 0},
        "rows_in": 6,
        "complete": True,
    }
    return LabelRun(**{**fields, "cost_usd": 0.5, **changed})


def write_labels(out: Path, rows: list[Label], of: LabelRun) -> dict[str, Any]:
    """A folder as `label` leaves it."""
    write_rows(out / LABELS, rows)
    return publish(out, of)


def test_only_ok_labels_become_preferences() -> None:
    made = [preference(row) for row in labels()]
    assert [row.status for row in labels()] == ["ok", "ok", "inconsistent", "tie", "unparsed", "refused"]
    assert [item is not None for item in made] == [True, True, False, False, False, False]
    first, second = made[0], made[1]
    assert first is not None
    assert second is not None
    assert first.chosen[0].content == second.rejected[0].content == pair().response_a
    assert (first.probability, first.margin) == (second.probability, second.margin) == (1.0, 1.0)


@settings(deadline=None)
@given(st.floats(0, 1))
def test_the_probability_of_a_preference_is_that_of_the_chosen_reply(p: float) -> None:
    def answer(request: Request) -> Completion:
        first = p if pair().response_a in request.messages[-1].content.split("<<<REPLY_B")[0] else 1 - p
        return says("Verdict: A" if first > 0.5 else "Verdict: B", probabilities={"a": first, "b": 1 - first})

    row, _ = drive(label(pair(), SET, Absent(), None, LabelSettings()), answer)
    made = preference(row)
    if made is None:
        assert row.status == "tie"
        return
    assert made.probability == pytest.approx(max(p, 1 - p))
    assert made.margin == pytest.approx(abs(2 * p - 1))
    assert made.chosen[0].content == (pair().response_a if p > 0.5 else pair().response_b)


def test_the_folder_proves_itself(tmp_path: Path) -> None:
    manifest = write_labels(tmp_path / "out", labels(), run())
    assert manifest == json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["rows"] == {
        "in": 6,
        "out": 6,
        "by_status": {"ok": 2, "tie": 1, "inconsistent": 1, "refused": 1, "unparsed": 1, "failed": 0},
        "preferences": 2,
    }
    for name, facts in manifest["files"].items():
        data = (tmp_path / "out" / name).read_bytes()
        assert facts == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert set(manifest["files"]) == {
        "labels.jsonl",
        "preferences.jsonl",
        "preferences.parquet",
        "card.md",
        "reliability.svg",
    }
    assert manifest["audit"]["n"] == 6
    assert list(LabelFolder(tmp_path / "out").read_labels()) == labels()


def test_absent_values_are_absent(tmp_path: Path) -> None:
    write_labels(tmp_path, labels(), run())
    rows = rows_of(tmp_path / "labels.jsonl")
    assert ["probability" in row for row in rows] == [True, True, False, True, False, False]
    assert "letter" not in rows[4]["judgements"][0]


def test_preferences_in_both_forms_are_equal_and_explicit(tmp_path: Path) -> None:
    write_labels(tmp_path, labels(), run())
    rows = rows_of(tmp_path / "preferences.jsonl")
    table = parquet.read_table(tmp_path / "preferences.parquet").to_pylist()
    assert [{key: row[key] for key in table[0]} for row in rows] == table
    assert rows[0]["prompt"] == [{"role": "user", "content": "How are you?"}]
    assert rows[0]["chosen"] == [{"role": "assistant", "content": pair().response_a}]
    assert set(table[0]) >= {
        "prompt",
        "chosen",
        "rejected",
        "probability",
        "margin",
        "id",
        "constitution",
        "judge",
    }


def test_datasets_load_the_preferences(tmp_path: Path) -> None:
    import datasets

    write_labels(tmp_path / "out", labels(), run())
    for form, name in (("json", "preferences.jsonl"), ("parquet", "preferences.parquet")):
        loaded = datasets.load_dataset(
            form, data_files=str(tmp_path / "out" / name), split="train", cache_dir=str(tmp_path / "cache")
        )
        assert loaded[0]["chosen"] == [{"role": "assistant", "content": pair().response_a}]
        assert loaded["probability"] == [1.0, 1.0]
        loaded.to_parquet(str(tmp_path / "again.parquet"))


def test_the_same_labels_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_labels(tmp_path / name, labels(), run())
    for name in ("labels.jsonl", "preferences.jsonl", "preferences.parquet", "card.md"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_card_has_a_header_that_hubs_read_and_the_audit(tmp_path: Path) -> None:
    write_labels(tmp_path, labels(), run())
    _, header, body = (tmp_path / "card.md").read_text().split("---\n", 2)
    facts = YAML(typ="safe", pure=True).load(header)
    assert facts["configs"][0]["data_files"] == "preferences.jsonl"
    assert "preference" in facts["tags"]
    assert SET.identity in body
    assert "| inconsistent | 1 |" in body
    assert "| flip_rate | 0.250 |" in body
    assert "| cost | 0.5000 |" in body
    assert "| kind | 1 |" in body


def test_lost_rows_are_noticed_and_leave_no_manifest(tmp_path: Path) -> None:
    write_labels(tmp_path, labels(), run())
    with pytest.raises(PairsError, match="7 pairs came in and 6 labels went out"):
        write_labels(tmp_path, labels(), run(rows_in=7))
    assert not (tmp_path / "manifest.json").exists()


def test_a_label_that_comes_twice_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(PairsError, match="label pair-0 came twice"):
        write_labels(tmp_path, [*labels(), labels()[0]], run(rows_in=7))


def test_no_labels_are_an_empty_folder_not_a_fault(tmp_path: Path) -> None:
    """As when the budget is reached before the first answer."""
    manifest = write_labels(tmp_path, [], run(rows_in=0, complete=False))
    assert list(faults(manifest, LabelManifest)) == []
    assert manifest["rows"]["out"] == 0
    assert manifest["complete"] is False
    assert publish(tmp_path, run(rows_in=0))["complete"] is True
    assert parquet.read_table(tmp_path / "preferences.parquet").num_rows == 0
