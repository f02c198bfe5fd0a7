"""What every folder needs that proves itself: files written whole or not at all, their hashes, the versions.

`SHA256SUMS` lies beside the manifest and holds a line for every file of the folder, the manifest among them, in the
form of `sha256sum`. It is written just before the manifest, which comes last.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

from preceptor.prompts.rows import replacing
from preceptor.prompts.secrets import redacted

MANIFEST, SUMS, SIGNATURE = "manifest.json", "SHA256SUMS", "SHA256SUMS.sig"
SEALS = frozenset({MANIFEST, SUMS, SIGNATURE})
"""Files that speak about the others."""
PASSING = ("-shm", "-wal", "-journal", ".part", ".partial")
NO_HASHES: Mapping[str, str] = MappingProxyType({})


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing, without any secret that is known. Raises RowsError where nothing can be
    written."""
    with replacing(path) as temporary:
        temporary.write_text(redacted(text), encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file for people and programs, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_manifest(
    folder: Path, value: Any, names: Iterable[str] | None = None, known: Mapping[str, str] = NO_HASHES
) -> None:
    """Write SHA256SUMS and then, last of all, the manifest. An older signature is taken away.

    names: the files that are the folder's; None: all that lie in it. known: hashes by name that need not be taken
    again.
    """
    text = redacted(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    listed = files_in(folder) if names is None else names
    hashes = {name: known.get(name) or file_hash(folder / name) for name in listed if name not in SEALS}
    hashes[MANIFEST] = hashlib.sha256(text.encode()).hexdigest()
    (folder / SIGNATURE).unlink(missing_ok=True)
    write_text(folder / SUMS, "".join(sorted(sum_line(name, sha) for name, sha in hashes.items())))
    write_text(folder / MANIFEST, text)


def sum_line(name: str, sha: str) -> str:
    """The line of a file in SHA256SUMS."""
    shown = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if shown == name else chr(92)}{sha}  {shown}\n"


def files_in(folder: Path) -> Iterator[str]:
    """Every file of a folder and those below, by its path in it; not what a database keeps beside itself while it is
    open, nor what is being written."""
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            if not name.endswith(PASSING):
                yield (Path(place) / name).relative_to(folder).as_posix()


def source_facts(source: str, set_aside: Mapping[str, int]) -> dict[str, Any]:
    """What a manifest says about the file of rows that a command read. set_aside: reason -> rows."""
    path = Path(source)
    sha256 = file_hash(path) if path.is_file() else ""
    return {"source": source, "sha256": sha256, "set_aside": dict(set_aside)}


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def versions(*libraries: str) -> dict[str, str]:
    """Versions of Python, Preceptor and the libraries named; empty for what is not installed."""
    found = {"python": platform.python_version()}
    for name in ("preceptor", *libraries):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found
