"""JSON Lines as tests read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def rows_of(path: str | Path) -> list[dict[str, Any]]:
    """The objects of a file, one a line."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of a training's metrics."""
    return rows_of(folder / "metrics.jsonl")
