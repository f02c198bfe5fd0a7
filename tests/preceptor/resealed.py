"""What somebody does who changes a folder and knows how it proves itself: every hash in it made anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from preceptor import folder
from preceptor.judge.dataset.label_folder import FILES, file_facts
from preceptor.prompts.manifest import MANIFEST, write_manifest


def reseal(path: Path, change: Callable[[dict[str, Any]], Any] = lambda _: None) -> None:
    """Hashes of all files again; `change` is done to the manifest first."""
    manifest = json.loads((path / MANIFEST).read_text())
    change(manifest)
    labels = manifest.get("command") == "label"
    again = file_facts if labels else folder.digest
    if "files" in manifest:
        manifest["files"] = {name: again(path / name) for name in manifest["files"]}
    names = [name for name in FILES if (path / name).exists()] if labels else None
    write_manifest(path, manifest, names)
