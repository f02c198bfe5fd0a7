"""What every folder needs that proves itself: files written whole or not at all, their hashes, the versions."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from preceptor.prompts.rows import replacing


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing. Raises RowsError where nothing can be written."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file for people and programs, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


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
