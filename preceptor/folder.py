"""The run folder: a stage's output is written whole or not at all, and the manifest last.

What lies in one stands in `preceptor.run.files`, and which stage writes it in docs/stages.md.

A stage whose fingerprint (settings and input files) equals that of its last record, and whose outputs are still the
ones that it wrote, is not run again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from preceptor.constitution.errors import UserError
from preceptor.constitution.foreign import json_in
from preceptor.prompts.manifest import file_hash, write_text
from preceptor.prompts.pool import pool_path, shipped_pools
from preceptor.prompts.records import canonical_json
from preceptor.records import StageRecord

STAGES = Path("metrics", "stages.jsonl")


def digest(path: Path, hash_of: Callable[[Path], str] = file_hash) -> str:
    """SHA-256 of a file, or of a folder's `manifest.json`, which itself holds the hashes of what lies beside it."""
    return hash_of(path / "manifest.json" if path.is_dir() else path)


def content_of(source: str) -> str:
    """What a source of prompts holds, a shipped pool's name or a file: its hash, or the name of what is no file."""
    path = pool_path(source) if source in shipped_pools() else Path(source)
    return digest(path) if path.is_file() else source


def fingerprint(settings: Any, inputs: Mapping[str, Path]) -> str:
    """Hash of what a stage's output depends on: its settings and the content of its inputs."""
    parts = {"settings": settings, "inputs": {name: digest(path) for name, path in inputs.items()}}
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def stage_records(folder: Path) -> list[StageRecord]:
    """The last record of each stage, in the order in which the stages ran first."""
    path = folder / STAGES
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    last: dict[str, StageRecord] = {}
    for line in lines:
        try:
            record = StageRecord.model_validate_json(line)
        except ValueError:
            continue  # the torn last line of a killed run: that stage simply runs again
        last[record.stage] = record
    return list(last.values())


def finished(folder: Path, stage: str, wanted: str) -> StageRecord | None:
    """The stage's record if it need not run again, else None."""
    for record in stage_records(folder):
        if record.stage == stage and record.fingerprint == wanted:
            outputs = [(folder / name, sha) for name, sha in record.outputs.items()]
            if all(path.exists() and digest(path) == sha for path, sha in outputs):
                return record
    return None


def begin_stage(folder: Path, stage: str, wanted: str, outputs: Sequence[str]) -> None:
    """Note what the stage begins with, and clear away what it made of other settings or inputs.

    A training that was stopped goes on from its checkpoint only where nothing that it depends on has changed.
    """
    note = folder / "metrics" / f"{stage}.begun"
    if note.exists() and note.read_text(encoding="utf-8") != wanted:
        for name in outputs:
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
    write_text(note, wanted)


def record_stage(folder: Path, record: StageRecord) -> None:
    """Append what a stage did, durably: the line is on disk when this returns."""
    path = folder / STAGES
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(record.line() + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def copy_folder(source: Path, target: Path) -> None:
    """Put a copy of a folder in the place of whatever is at `target`: there is a whole one or none at all."""
    partial = target.with_name(f".{target.name}.part")
    for old in (partial, target):
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(source, partial)
    partial.replace(target)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that a run has written.

    Raises UserError where the file is missing or is no JSON object.
    """
    try:
        value = json_in(path)
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing; wanted the folder of a finished run: see `preceptor run --help`"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not JSON ({error}); run the command that made it again") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object; run the command that made it again")
    return value
