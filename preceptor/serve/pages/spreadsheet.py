"""Rows -> a CSV file that a spreadsheet opens without taking a text for a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastapi import Response

from preceptor.prompts.shown import csv_cell
from preceptor.serve.pages.rendering import HEADERS


def csv_file(name: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Response:
    """As a download of this name."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows({column: csv_cell(row.get(column)) for column in columns} for row in rows)
    return download(name, text.getvalue(), "text/csv; charset=utf-8")


def download(name: str, text: str, media_type: str) -> Response:
    """A text that is kept and not shown. name: of ASCII letters, digits, dots and dashes, which are ours."""
    headers = {**HEADERS, "Content-Disposition": f'attachment; filename="{name}"'}
    return Response(text, media_type=media_type, headers=headers)
