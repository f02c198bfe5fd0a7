"""Which layout a file has, told by its first rows, and its rows in our own columns."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

from preceptor.constitution.errors import FileFault
from preceptor.prompts.columns import at, renamed
from preceptor.prompts.errors import RowsError
from preceptor.prompts.layouts import ranked, two_conversations, two_replies
from preceptor.prompts.layouts.layout import ConversationPair, Fields, Layout, has, slots
from preceptor.prompts.rows import BadRowError, RawRow, parsed, read_rows

ParsedT = TypeVar("ParsedT")
_log = logging.getLogger(__name__)


def _write(row: ConversationPair) -> Fields:
    a, b, first = slots(row)
    made = {
        "id": row.id,
        "messages": row.messages,
        "response_a": a,
        "response_b": b,
        "preferred": "a" if first else "b",
    }
    return {**made, **row.rest}


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
    _write,
)
LAYOUTS: Mapping[str, Layout] = {
    layout.name: layout
    for layout in (ROWS, *two_conversations.LAYOUTS, *two_replies.LAYOUTS, *ranked.LAYOUTS)
}
REPLIES = ("response_a", "response_b", "responses", "chosen", "rejected")
WANTED = "prompt with response_a and response_b, with responses, or with chosen and rejected"
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


def recognise(source: str | Path, form: str = "rows", columns: Mapping[str, str] | None = None) -> Recognised:
    """How the file is to be read. `form` names a layout, or is `rows`: by sight.

    Raises RowsError where two layouts fit, which are named, and where none does.
    """
    columns = columns or {}
    name = str(source)
    rows = [row.fields for row in islice(read_rows(source), LOOKED_AT) if isinstance(row, RawRow)]
    if form not in ("rows", *LAYOUTS):
        raise RowsError(f"{name}: no layout {form!r}; wanted one of {', '.join(sorted(LAYOUTS))}")
    notes = _notes(rows)
    for ours, theirs in columns.items():
        if rows and not any(at(row, theirs) is not None for row in rows):
            known = ", ".join(sorted({key for row in rows for key in row}))
            raise RowsError(f"{name}: no column {theirs}, which is to be {ours}; it has {known}")
    if form != "rows":
        layout = LAYOUTS[form]
        said = [f"read as {layout.name}: {layout.about}"] if layout is not ROWS else []
        return Recognised(layout, columns, "; ".join([*said, *notes]))
    shown = [renamed(row, columns) for row in rows]
    fitting = [layout for layout in LAYOUTS.values() if shown and layout.fits(shown[0])]
    fitting = [layout for layout in fitting if sum(map(layout.fits, shown)) * 2 > len(shown)]
    if len(fitting) > 1:
        one, other = fitting[:2]
        raise RowsError(
            f"{name}: can be read in two ways: as {one.name} ({one.about}) and as {other.name} ({other.about}); "
            f"say which by --format {one.name} or --format {other.name}"
        )
    if (
        shown
        and has(shown[0], "prompt", "messages")
        and any(layout.name in ("trl", "rows") for layout in fitting)
    ):
        raise RowsError(
            f"{name}: the conversation can be read in two ways: in the column prompt and in the column messages; "
            "say which by --map prompt=prompt or --map messages=messages"
        )
    if not fitting or fitting[0] is ROWS:
        return Recognised(None, columns, "; ".join(notes))
    return Recognised(
        fitting[0], columns, "; ".join([f"read as {fitting[0].name}: {fitting[0].about}", *notes])
    )


def pairs_in(source: str | Path, form: str = "rows", columns: Mapping[str, str] | None = None) -> Recognised:
    """How a file of pairs is to be read, as `recognise` says, in one line of log too.

    Raises RowsError at once for a file without anything to compare.
    """
    how = recognise(source, form, columns)
    if how.layout in (None, ROWS):
        rows = [row.fields for row in islice(read_rows(source), LOOKED_AT) if isinstance(row, RawRow)]
        shown = [renamed(row, how.columns) for row in rows]
        if shown and not any(has(row, name) for row in shown for name in REPLIES):
            known = ", ".join(sorted({key for row in rows for key in row})) or "no columns"
            raise RowsError(
                f"{source}: no layout of pairs that is known ({known}); wanted {WANTED}, or their names here, such as "
                "--map prompt=question --map chosen=good --map rejected=bad"
            )
    if how.said:
        _log.info("%s: %s", source, how.said)
    return how


def _notes(rows: list[Fields]) -> list[str]:
    if any(row.get("tools") for row in rows):
        return ["the column tools is kept, and shown neither to the judge nor to the model"]
    return []


def in_our_columns(source: str | Path, how: Recognised) -> Iterator[RawRow | FileFault]:
    """The rows of a file in our own columns; a Fault where one cannot be read."""
    for row in _together(source, how):
        if isinstance(row, FileFault):
            yield row
            continue
        try:
            for fields in how.layout.read(row.fields) if how.layout else (row.fields,):
                yield RawRow(row.file, row.line, fields)
        except BadRowError as bad:
            yield FileFault(row.file, row.line, bad.came, bad.wanted)


def parsed_pairs(source: str | Path, read: Callable[[RawRow], ParsedT], how: Recognised) -> Iterator[ParsedT]:
    """What `read` makes of every row, as `prompts.rows.parsed_rows` does, of a file in any layout."""
    return parsed(source, in_our_columns(source, how), read)


def renamed_rows(source: str | Path, columns: Mapping[str, str]) -> Iterator[RawRow | FileFault]:
    """The rows of a file with its columns renamed. columns: ours -> theirs."""
    for row in read_rows(source):
        yield row if isinstance(row, FileFault) else row._replace(fields=renamed(row.fields, columns))


def _together(source: str | Path, how: Recognised) -> Iterator[RawRow | FileFault]:
    """Rows with their columns renamed; neighbours that make pairs with one another as one row."""
    key = how.layout.together if how.layout else None
    waiting: list[RawRow] = []
    for named in renamed_rows(source, how.columns):
        if key is None or isinstance(named, FileFault):
            yield named
            continue
        if waiting and key(waiting[0].fields) != key(named.fields):
            yield _one(waiting)
            waiting = []
        waiting.append(named)
    if waiting:
        yield _one(waiting)


def _one(rows: list[RawRow]) -> RawRow:
    return rows[0]._replace(fields={"rows": [row.fields for row in rows]})
