"""What a local model is: its weights, and what decides how they are used. Two checkpoints under one name must never
answer for one another."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from contextlib import suppress
from pathlib import Path

import platformdirs

KEPT_FROM = 2**25
"""Bytes of a file from which its hash is kept: smaller ones are read faster than they are worth remembering."""
USED = re.compile(
    r"\A(?:(?:adapter_|generation_)?config\.json|tokenizer(?:_config)?\.json|special_tokens_map\.json|added_tokens\.json"
    r"|vocab\.(?:json|txt)|merges\.txt|[^/]*\.(?:model|tiktoken)|(?:additional_chat_templates/[^/]*|chat_template)"
    r"\.(?:jinja|json))"
)
"""Files of a model's folder, beside its weights, on which its answers depend."""
ELSEWHERE = frozenset(
    {
        "_name_or_path",
        "name_or_path",
        "base_model_name_or_path",
        "transformers_version",
        "peft_version",
        "revision",
    }
    | {"tokenizer_file", "vocab_file", "special_tokens_map_file", "auto_mapping"}
)
"""Keys of configurations that name places and versions, and change no answer."""
SETTLED_S = 2.0
"""A file that was written so shortly before may be written again without its time changing: its hash is not kept."""


def weights_hash(source: str | Path) -> str:
    """Tells the weights of a local folder apart: SHA-256 over the names and all bytes of its safetensors files; of a
    GGUF file, over its bytes; empty for a hub id.

    The hash of a large file is kept in the user's cache folder under its path, size and time of change, so that it is
    read once and not at every start. How the weights are used (`config.json`, `adapter_config.json`, a tokenizer) is
    not in it, but in `model_hash`.
    """
    if is_gguf(source):
        return file_hash(Path(source).expanduser())
    digest = hashlib.sha256()
    files = sorted(Path(source).expanduser().glob("*.safetensors"))
    for path in files:
        digest.update(f"{path.name}:{file_hash(path)}:".encode())
    return digest.hexdigest() if files else ""


def weights_name(folder: str | Path) -> str:
    """What scores say they come from: the folder, and a hash of the weights in it."""
    return f"{folder}#{weights_hash(folder)[:12]}"


def model_hash(source: str | Path, base: str = "") -> str:
    """Tells local models apart, all that their answers depend on: `weights_hash`, and the content of the configuration,
    of the generation's, of the tokenizer and its chat template, of an adapter's configuration. Empty for a hub id.

    base: what an adapter stands on, by its own `model_hash` or its hub id. Where a model lies, and what wrote it, is
    not in it.
    """
    made = weights_hash(source)
    folder = Path(source).expanduser()
    if not made or is_gguf(source):
        return made
    digest = hashlib.sha256(made.encode())
    for path in sorted([*folder.glob("*"), *folder.glob("additional_chat_templates/*")]):
        name = path.relative_to(folder).as_posix()
        if USED.fullmatch(name) and path.is_file():
            digest.update(f"{name}:{_content(path)}:".encode())
    digest.update(base.encode())
    return digest.hexdigest()


def _content(path: Path) -> str:
    """Hash of a file; of a configuration without what says where it lay and who wrote it."""
    if path.suffix == ".json" and path.stat().st_size < KEPT_FROM:
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return file_hash(path)
        if isinstance(value, dict):
            kept = {key: each for key, each in value.items() if key not in ELSEWHERE}
            return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
    return file_hash(path)


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
