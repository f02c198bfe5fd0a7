"""Whether a label folder already is what a command would write, told from its manifest and files alone.

A finished run of a million rows is not read, rendered and looked up again: its hashes say that nothing changed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from preceptor.judge.dataset.publish import FILES, LIBRARIES, MANIFEST, file_facts
from preceptor.prompts.manifest import SUMS, file_hash, versions


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


def input_facts(source: InputFile | None, before: tuple[int, int] | None) -> dict[str, Any]:
    """What the manifest says of the input: its name, how it was read, and its hash. No hash where it is no plain file,
    or where it changed since the stamp was taken."""
    if source is None:
        return {}
    facts: dict[str, Any] = {"path": source.path, "format": source.form, "limit": source.limit}
    if source.truncated != "keep":
        facts["truncated"] = source.truncated
    if source.columns:
        facts["map"] = dict(source.columns)
    if before is not None and stamp(source) == before:
        facts["sha256"] = file_hash(Path(source.path))
    return facts


def finished(out: Path, wanted: Mapping[str, Any], source: InputFile | None) -> Mapping[str, Any] | None:
    """The manifest in `out`, if the folder is whole, came of the same input and has `wanted` in it, and no call had
    failed, which another run would ask again. None where anything differs.
    """
    try:
        manifest: dict[str, Any] = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    same = {
        **wanted,
        "command": "label",
        "complete": True,
        "calls_failed": 0,
        "versions": versions(*LIBRARIES),
    }
    if any(manifest.get(name) != value for name, value in json.loads(json.dumps(same)).items()):
        return None
    facts = manifest.get("input") or {}
    if source is None or (facts.get("format"), facts.get("limit")) != (source.form, source.limit):
        return None
    if (facts.get("map", {}), facts.get("truncated", "keep")) != (dict(source.columns), source.truncated):
        return None
    if stamp(source) is None or facts.get("sha256") != file_hash(Path(source.path)):
        return None
    files = manifest.get("files", {})
    if not (out / SUMS).is_file():
        return None  # of an earlier version: made anew, it proves itself
    there = {name: file_facts(out / name) for name in FILES if (out / name).exists()}
    return manifest if there == files else None
