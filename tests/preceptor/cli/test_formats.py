"""docs/data-formats.md is what the rows are."""

from __future__ import annotations

from pathlib import Path

from preceptor.cli.formats import page
from preceptor.judge import records

PAGE = Path(__file__).parents[3] / "docs" / "data-formats.md"


def test_the_page_is_written_from_the_rows() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "docs/data-formats.md is stale: run `make docs`"


def test_every_field_of_every_row_is_told() -> None:
    text = page()
    for name in ("Response", "Revision", "Pair", "Judgement", "Label", "Preference", "Score"):
        part = text.split(f"### {name}\n")[1].split("### ")[0]
        for field in getattr(records, name).model_fields:
            assert f"| `{field}` |" in part, f"{name}.{field}"
