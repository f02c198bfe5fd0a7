"""Whether a label folder already is what a command would write, told from its manifest and files alone.

A finished run of a million rows is not read, rendered and looked up again: its hashes say that nothing changed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from preceptor.judge.dataset.label_folder import LabelFolder
from preceptor.judge.dataset.manifest import InputFacts, LabelManifest, NoInput
from preceptor.judge.dataset.publish import LIBRARIES
from preceptor.prompts.manifest import file_hash, versions


class InputFile(NamedTuple):
    """The file that is labelled, and how it is read."""

    path: str
    form: str
    limit: int | None
    columns: tuple[tuple[str, str], ...] = ()
    """Columns of ours -> theirs, by --map."""
    truncated: Literal["keep", "drop"] = "keep"
    """Whether samples that were cut at their length are judged."""


def stamp(source: InputFile | None) -> tuple[int, int] | None:
    """Size and time of change of a plain file; None for whatever is none."""
    if source is None or not (path := Path(source.path)).is_file():
        return None
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def input_facts(source: InputFile | None, before: tuple[int, int] | None) -> InputFacts | NoInput:
    """What the manifest says of the input: its name, how it was read, and its hash. No hash where it is no plain file,
    or where it changed since the stamp was taken."""
    if source is None:
        return {}
    facts: InputFacts = {"path": source.path, "format": source.form, "limit": source.limit}
    if source.truncated != "keep":
        facts["truncated"] = source.truncated
    if source.columns:
        facts["map"] = dict(source.columns)
    if before is not None and stamp(source) == before:
        facts["sha256"] = file_hash(Path(source.path))
    return facts


def finished(out: Path, wanted: Mapping[str, Any], source: InputFile | None) -> LabelManifest | None:
    """The manifest in `out`, if the folder is whole, came of the same input and has `wanted` in it, and no call had
    failed, which another run would ask again. None where anything differs.
    """
    folder = LabelFolder(out)
    manifest = folder.read_manifest()
    if manifest is None:
        return None
    same = {
        **wanted,
        "complete": True,
        "calls_failed": 0,
        "versions": versions(*LIBRARIES),
    }
    if any(manifest.get(name) != value for name, value in json.loads(json.dumps(same)).items()):
        return None
    facts: Mapping[str, Any] = manifest.get("input") or {}
    if source is None or (facts.get("format"), facts.get("limit")) != (source.form, source.limit):
        return None
    if (facts.get("map", {}), facts.get("truncated", "keep")) != (dict(source.columns), source.truncated):
        return None
    if stamp(source) is None or facts.get("sha256") != file_hash(Path(source.path)):
        return None
    if not folder.sums.is_file():
        return None  # of an earlier version: made anew, it proves itself
    return manifest if folder.facts() == manifest.get("files", {}) else None
