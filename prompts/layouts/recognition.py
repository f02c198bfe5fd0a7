"""Which layout a file has, told by its first rows, and its rows in our own columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from preceptor.constitution.errors import Fault
from preceptor.prompts.errors import RowsError
from preceptor.prompts.layouts import ranked, two_replies, whole_talks
from preceptor.prompts.layouts.layout import Fields, Layout, has, without
from preceptor.prompts.rows import MOST_FAULTS, BadRowError, RawRow, columns_left_out, faulty, read_rows

Parsed = TypeVar("Parsed")

OURS = (
    "prompt", "messages", "chosen", "rejected", "response_a", "response_b", "responses", "preferred", "id", "tags",
    "probability", "margin", "weight",
)  # fmt: skip
"""Columns that a mapping can name."""
ROWS = Layout(
    "rows",
    "rows of Preceptor's: a prompt with response_a and response_b, or responses",
    lambda row: (
        (has(row, "response_a", "response_b") and not isinstance(row.get("annotations"), Mapping))
        or (
            isinstance(row.get("responses"), (list, tuple))
            and all(isinstance(one, str) for one in row["responses"])
        )
    ),
    lambda row: (row,),
    lambda row: {
        "id": row.id,
        "messages": row.messages,
        "chosen": row.chosen,
        "rejected": row.rejected,
        **row.rest,
    },
)
LAYOUTS: Mapping[str, Layout] = {
    layout.name: layout for layout in (ROWS, *whole_talks.LAYOUTS, *two_replies.LAYOUTS, *ranked.LAYOUTS)
}
LOOKED_AT = 20
"""Rows by which a file is recognised."""


class Recognised(NamedTuple):
    """How a file is read."""

    layout: Layout | None
    """None for rows that are read as they are: our own, or whatever the readers make of them."""
    columns: Mapping[str, str]
    """Our column -> theirs."""
    said: str
    """One line for the person at the terminal: what was recognised and what is not used; empty for rows of our own."""


def mapping_of(pairs: Iterator[str] | list[str] | tuple[str, ...]) -> dict[str, str]:
    """`column=field` words -> our column -> their field; either may stand first. Raises RowsError."""
    columns: dict[str, str] = {}
    for pair in pairs:
        ours, found, theirs = (part.strip() for part in pair.partition("="))
        if not found or not ours or not theirs:
            raise RowsError(f"--map {pair}: no column=field; wanted such as --map prompt=question")
        if ours not in OURS and theirs in OURS:
            ours, theirs = theirs, ours
        if ours not in OURS:
            raise RowsError(f"--map {pair}: neither is a column of ours; wanted one of {', '.join(OURS)}")
        if ours in columns:
            raise RowsError(f"--map names {ours} twice ({columns[ours]} and {theirs}); name it once")
        columns[ours] = theirs
    return columns


def recognise(source: str | Path, form: str = "rows", columns: Mapping[str, str] | None = None) -> Recognised:
    """How the file is to be read. `form` names a layout, or is `rows`: by sight.

    Raises RowsError where two layouts fit, which are named, and where none does.
    """
    columns = columns or {}
    name = str(source)
    rows = [row.fields for row in islice(read_rows(source), LOOKED_AT) if isinstance(row, RawRow)]
    if form not in ("rows", *LAYOUTS):
        raise RowsError(f"{name}: no layout {form!r}; wanted one of {', '.join(sorted(LAYOUTS))}")
    notes = _notes(rows, columns_left_out(source))
    for ours, theirs in columns.items():
        if rows and not any(_at(row, theirs) is not None for row in rows):
            known = ", ".join(sorted({key for row in rows for key in row}))
            raise RowsError(f"{name}: no column {theirs}, which is to be {ours}; it has {known}")
    if form != "rows":
        layout = LAYOUTS[form]
        return Recognised(layout, columns, "; ".join([f"read as {layout.name}: {layout.about}", *notes]))
    shown = [_renamed(row, columns) for row in rows]
    fitting = [layout for layout in LAYOUTS.values() if shown and layout.fits(shown[0])]
    fitting = [layout for layout in fitting if sum(map(layout.fits, shown)) * 2 > len(shown)]
    if len(fitting) > 1:
        one, other = fitting[:2]
        raise RowsError(
            f"{name}: can be read in two ways: as {one.name} ({one.about}) and as {other.name} ({other.about}); "
            f"say which by --format {one.name} or --format {other.name}"
        )
    if not fitting or fitting[0] is ROWS:
        return Recognised(None, columns, "; ".join(notes))
    return Recognised(
        fitting[0], columns, "; ".join([f"read as {fitting[0].name}: {fitting[0].about}", *notes])
    )


def _notes(rows: list[Fields], left_out: list[str]) -> list[str]:
    notes = []
    if left_out:
        notes.append(f"left out because JSON cannot hold it: {', '.join(left_out)}")
    if any(row.get("tools") for row in rows):
        notes.append("the column tools is kept, and shown neither to the judge nor to the model")
    return notes


def in_our_columns(source: str | Path, how: Recognised) -> Iterator[RawRow | Fault]:
    """The rows of a file in our own columns; a Fault where one cannot be read."""
    for row in _together(source, how):
        if isinstance(row, Fault):
            yield row
            continue
        try:
            for fields in how.layout.read(row.fields) if how.layout else (row.fields,):
                yield RawRow(row.file, row.line, fields)
        except BadRowError as bad:
            yield Fault(row.file, row.line, bad.came, bad.wanted)


def parsed_pairs(source: str | Path, read: Callable[[RawRow], Parsed], how: Recognised) -> Iterator[Parsed]:
    """What `read` makes of every row, as `prompts.rows.parsed_rows` does, of a file in any layout."""
    faults: list[Fault] = []
    for row in in_our_columns(source, how):
        if isinstance(row, Fault):
            faults.append(row)
        else:
            try:
                made = read(row)
            except BadRowError as bad:
                faults.append(Fault(row.file, row.line, bad.came, bad.wanted))
            else:
                if not faults:
                    yield made
        if len(faults) == MOST_FAULTS:
            break
    if faults:
        raise faulty(str(source), faults)


def _together(source: str | Path, how: Recognised) -> Iterator[RawRow | Fault]:
    """Rows with their columns renamed; neighbours that make pairs with one another as one row."""
    key = how.layout.together if how.layout else None
    waiting: list[RawRow] = []
    for row in read_rows(source):
        renamed = row if isinstance(row, Fault) else row._replace(fields=_renamed(row.fields, how.columns))
        if key is None or isinstance(renamed, Fault):
            yield renamed
            continue
        if waiting and key(waiting[0].fields) != key(renamed.fields):
            yield _one(waiting)
            waiting = []
        waiting.append(renamed)
    if waiting:
        yield _one(waiting)


def _one(rows: list[RawRow]) -> RawRow:
    return rows[0]._replace(fields={"rows": [row.fields for row in rows]})


def _renamed(fields: Fields, columns: Mapping[str, str]) -> Fields:
    """The row under our names. What it has under them already, and what is said once more elsewhere, gives way."""
    if not columns:
        return fields
    values = {ours: _at(fields, theirs) for ours, theirs in columns.items()}
    rest = without(fields, *columns.values(), *columns)
    if "prompt" in columns:
        rest.pop("messages", None)
    if "messages" in columns:
        rest.pop("prompt", None)
    return {**rest, **{ours: value for ours, value in values.items() if value is not None}}


def _at(fields: Mapping[str, Any], path: str) -> Any:
    """The value of a column, or of a place in one (`input.messages`)."""
    if path in fields:
        return fields[path]
    value: Any = fields
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
