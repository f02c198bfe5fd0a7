"""docs/data-formats.md is what the rows are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_type_hints

from preceptor.figures import RunManifest, RunSummary
from preceptor.judge import records
from preceptor.judge.dataset.manifest import LabelManifest, LabelRows
from preceptor.judge.figures import AuditFigures
from preceptor.reference.formats import page

PAGE = Path(__file__).parents[3] / "docs" / "data-formats.md"


def test_the_page_is_written_from_the_rows() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "docs/data-formats.md is stale: run `make docs`"


def test_every_field_of_every_row_is_told() -> None:
    text = page()
    for name in ("Response", "Revision", "Pair", "Judgement", "Label", "Preference", "Score"):
        part = text.split(f"### {name}\n")[1].split("### ")[0]
        for field in getattr(records, name).model_fields:
            assert f"| `{field}` |" in part, f"{name}.{field}"


def test_every_key_of_every_manifest_and_figure_is_told() -> None:
    text = page()
    for kind in (LabelManifest, LabelRows, AuditFigures, RunSummary, RunManifest):
        told, parts = "", [kind.__name__]
        while parts:  # its own table, and those of the classes above it
            part = text.split(f"### {parts.pop()}\n")[1].split("### ")[0]
            told += part
            parts += re.findall(r"\| all of \[(\w+)\]", part)
        for key in get_type_hints(kind):
            assert f"| `{key}` |" in told, f"{kind.__name__}.{key}"
