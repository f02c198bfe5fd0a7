"""Which weights a local model has: two checkpoints under one name must never answer for one another."""

from __future__ import annotations

import hashlib
from pathlib import Path

EDGE = 2**20
"""Bytes that are read at either end of a file of weights."""


def weights_hash(source: str | Path) -> str:
    """Tells the weights of a local folder apart: names, sizes, first and last MiB; empty for a hub id.

    The whole of a large model would take longer to hash than to load.
    """
    digest = hashlib.sha256()
    files = sorted(Path(source).expanduser().glob("*.safetensors"))
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}:".encode())
        with path.open("rb") as stream:
            digest.update(stream.read(EDGE))
            stream.seek(max(0, size - EDGE))
            digest.update(stream.read(EDGE))
    return digest.hexdigest() if files else ""
