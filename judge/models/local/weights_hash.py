"""Which weights a local model has: two checkpoints under one name must never answer for one another."""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path

import platformdirs

KEPT_FROM = 2**25
"""Bytes of a file from which its hash is kept: smaller ones are read faster than they are worth remembering."""
SETTLED_S = 2.0
"""A file that was written so shortly before may be written again without its time changing: its hash is not kept."""


def weights_hash(source: str | Path) -> str:
    """Tells the weights of a local folder apart: SHA-256 over the names and all bytes of its safetensors files; of a
    GGUF file, over its bytes; empty for a hub id.

    The hash of a large file is kept in the user's cache folder under its path, size and time of change, so that it is
    read once and not at every start. How the weights are used (`config.json`, `adapter_config.json`, a tokenizer) is
    not in it.
    """
    if is_gguf(source):
        return file_hash(Path(source).expanduser())
    digest = hashlib.sha256()
    files = sorted(Path(source).expanduser().glob("*.safetensors"))
    for path in files:
        digest.update(f"{path.name}:{file_hash(path)}:".encode())
    return digest.hexdigest() if files else ""


def is_gguf(source: str | Path) -> bool:
    """Whether a path names a GGUF file, which need not be there."""
    return str(source).lower().endswith(".gguf")


def user_cache() -> Path:
    """Where what is slow to make is kept for this user's other commands."""
    return platformdirs.user_cache_path("preceptor")


def file_hash(path: Path) -> str:
    """SHA-256 of all bytes of a file, from the user's cache folder where it is known."""
    state = path.stat()
    seen = {"path": str(path.absolute()), "size": state.st_size, "mtime_ns": state.st_mtime_ns}
    large = state.st_size >= KEPT_FROM
    if large and (kept := _kept(seen)):
        return kept
    with path.open("rb") as stream:
        made = hashlib.file_digest(stream, "sha256").hexdigest()
    if large and time.time() - state.st_mtime > SETTLED_S:
        _keep(seen, made)
    return made


def _kept(seen: dict[str, object]) -> str:
    """The hash that was kept for such a file; empty where there is none."""
    try:
        known = json.loads(_note(seen).read_text(encoding="utf-8"))
        made = known.pop("sha256")
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return ""
    return str(made) if known == seen else ""


def _keep(seen: dict[str, object], made: str) -> None:
    note = _note(seen)
    with suppress(OSError):  # a home that cannot be written to: the file is read again
        note.parent.mkdir(parents=True, exist_ok=True)
        written = note.with_suffix(f".{os.getpid()}")
        written.write_text(json.dumps({**seen, "sha256": made}), encoding="utf-8")
        written.replace(note)  # whole or not at all, whoever else does the same


def _note(seen: dict[str, object]) -> Path:
    """Where a file's hash is kept."""
    name = hashlib.sha256(str(seen["path"]).encode()).hexdigest()[:32]
    return user_cache() / "weights" / f"{name}.json"
