"""The hash of a model's weights: every byte counts, and a large file is read once."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preceptor.judge.models.local import weights_hash as module
from preceptor.judge.models.local.loading import identity_of
from preceptor.judge.models.local.weights_hash import file_hash, weights_hash

MIB = 2**20
LONG_AGO = 1_700_000_000 * 10**9


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that counts as large, written long ago."""
    monkeypatch.setattr(module, "KEPT_FROM", 1000)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(2000))
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    return path


def cached() -> list[Path]:
    return list((Path.home() / ".cache/preceptor/weights").glob("*"))


@pytest.mark.parametrize("at", [0, MIB - 1, MIB, 2 * MIB, 4 * MIB - 1])
def test_checkpoints_that_differ_in_one_byte_anywhere_are_told_apart(at: int, tmp_path: Path) -> None:
    """In the middle too, where two merges of one base may be all that differs."""
    data = bytearray(4 * MIB)
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(data)
        data[at] = 1
    assert weights_hash(tmp_path / "one") != weights_hash(tmp_path / "other")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(
    files=st.dictionaries(st.sampled_from("abc"), st.binary(max_size=20), min_size=1),
    others=st.dictionaries(st.sampled_from("abc"), st.binary(max_size=20), min_size=1),
)
def test_the_hash_is_equal_where_names_and_bytes_are(
    files: dict[str, bytes], others: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Wherever the folder lies."""
    hashes = []
    for named in (files, others):
        folder = tmp_path_factory.mktemp("folder")
        for name, data in named.items():
            (folder / f"{name}.safetensors").write_bytes(data)
        hashes.append(weights_hash(folder))
    assert (hashes[0] == hashes[1]) == (files == others)


FILES = {
    "config.json": {"hidden_size": 8},
    "generation_config.json": {"eos_token_id": 1},
    "tokenizer.json": {"model": {}},
    "tokenizer_config.json": {"chat_template": "a"},
    "special_tokens_map.json": {"eos_token": "</s>"},
    "adapter_config.json": {"lora_alpha": 16, "base_model_name_or_path": "some/model"},
    "chat_template.jinja": "{{ messages }}",
    "additional_chat_templates/tools.jinja": "{{ tools }}",
    "spiece.model": "pieces",
}


def model_folder(folder: Path) -> Path:
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.mark.parametrize("name", [*FILES, "model.safetensors"])
def test_a_model_is_all_that_its_answers_depend_on(tmp_path: Path, name: str) -> None:
    """Another template, tokenizer, configuration or scale of an adapter under the same weights is another model."""
    first, other = model_folder(tmp_path / "a"), model_folder(tmp_path / "b")
    assert identity_of(str(first)) == identity_of(str(other)) != ""
    content = FILES.get(name)
    changed = {**content, "more": 1} if isinstance(content, dict) else None
    (other / name).write_text("other" if changed is None else json.dumps(changed))
    assert identity_of(str(first)) != identity_of(str(other))
    assert (weights_hash(first) == weights_hash(other)) == (name != "model.safetensors")


def test_an_adapter_is_its_base_too(tmp_path: Path) -> None:
    made = []
    for name in ("one", "other"):
        base = model_folder(tmp_path / f"base-{name}")
        (base / "adapter_config.json").unlink()
        (base / "model.safetensors").write_text(name)
        adapter = model_folder(tmp_path / name)
        (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
        made.append(identity_of(str(adapter)))
    assert made[0] != made[1]


def test_where_a_model_lies_and_what_wrote_it_is_not_in_it(tmp_path: Path) -> None:
    first, other = model_folder(tmp_path / "a"), model_folder(tmp_path / "b")
    told = {"_name_or_path": "/elsewhere", "transformers_version": "9"}
    (other / "config.json").write_text(json.dumps({**told, "hidden_size": 8}, indent=4))
    (other / "README.md").write_text("words")
    assert identity_of(str(first)) == identity_of(str(other))


def test_what_is_no_folder_of_weights_has_none(tmp_path: Path) -> None:
    assert weights_hash("someone/model") == weights_hash(tmp_path) == ""


def test_a_large_file_is_read_once_and_again_when_it_has_changed(large: Path) -> None:
    first = file_hash(large)
    assert first == hashlib.sha256(bytes(2000)).hexdigest()
    (note,) = cached()
    # what is kept is what is answered
    note.write_text(note.read_text().replace(first, "0" * 64))
    assert file_hash(large) == "0" * 64
    # another time, another size, another place: each is read
    os.utime(large, ns=(LONG_AGO + 1, LONG_AGO + 1))
    assert file_hash(large) == first
    large.write_bytes(bytes(2001))
    os.utime(large, ns=(LONG_AGO + 1, LONG_AGO + 1))
    assert file_hash(large) == hashlib.sha256(bytes(2001)).hexdigest()
    moved = large.rename(large.with_name("moved.safetensors"))
    assert file_hash(moved) == hashlib.sha256(bytes(2001)).hexdigest()


def test_a_file_that_was_just_written_is_not_kept(large: Path) -> None:
    """It may be written once more within one tick of the clock."""
    os.utime(large)
    file_hash(large)
    assert cached() == []


@pytest.mark.parametrize("found", ["", "[1]", "{}", "not json"])
def test_a_broken_cache_is_made_anew(found: str, large: Path) -> None:
    first = file_hash(large)
    (note,) = cached()
    note.write_text(found)
    assert file_hash(large) == first
    assert first in note.read_text()


def test_without_a_cache_folder_the_file_is_read(large: Path) -> None:
    (Path.home() / ".cache").write_text("in the way")
    assert file_hash(large) == hashlib.sha256(bytes(2000)).hexdigest()
