"""Columns under other names than ours: `--map prompt=question`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from preceptor.prompts.errors import RowsError

OURS = (
    "prompt", "messages", "chosen", "rejected", "response_a", "response_b", "responses", "response", "preferred", "id",
    "tags", "probability", "margin", "weight", "completion",
)  # fmt: skip
"""Columns that a mapping can name."""
SINGLE_REPLIES = ("prompt", "messages", "completion", "label", "id", "constitution", "judge")
"""Those of a file of single replies that are good or bad."""


def mapping_of(pairs: Iterable[str], known: Sequence[str] = OURS) -> dict[str, str]:
    """`column=field` words -> our column -> their field; either may stand first. known: our columns. Raises
    RowsError."""
    columns: dict[str, str] = {}
    for pair in pairs:
        ours, found, theirs = (part.strip() for part in pair.partition("="))
        if not found or not ours or not theirs:
            raise RowsError(f"--map {pair}: no column=field; wanted such as --map prompt=question")
        if ours not in known and theirs in known:
            ours, theirs = theirs, ours
        if ours not in known:
            raise RowsError(f"--map {pair}: neither is a column of ours; wanted one of {', '.join(known)}")
        if ours in columns:
            raise RowsError(f"--map names {ours} twice ({columns[ours]} and {theirs}); name it once")
        columns[ours] = theirs
    return columns


def renamed(fields: dict[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The row under our names. What it has under them already, and what is said once more elsewhere, gives way."""
    if not columns:
        return fields
    values = {ours: at(fields, theirs) for ours, theirs in columns.items()}
    rest = {key: value for key, value in fields.items() if key not in {*columns.values(), *columns}}
    if "prompt" in columns:
        rest.pop("messages", None)
    if "messages" in columns:
        rest.pop("prompt", None)
    return {**rest, **{ours: value for ours, value in values.items() if value is not None}}


def at(fields: Mapping[str, Any], path: str) -> Any:
    """The value of a column, or of a place in one (`input.messages`, `turns.0`)."""
    if path in fields:
        return fields[path]
    value: Any = fields
    for part in path.split("."):
        if isinstance(value, (list, tuple)) and part.isdecimal():
            value = value[int(part)] if int(part) < len(value) else None
        else:
            value = value.get(part) if isinstance(value, Mapping) else None
    return value
