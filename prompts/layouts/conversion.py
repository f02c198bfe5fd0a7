"""A file of pairs in one layout -> a file in another."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from preceptor.prompts.errors import RowsError
from preceptor.prompts.layouts.layout import ConversationPair, Fields, Layout, has, reply
from preceptor.prompts.layouts.recognition import LAYOUTS, Recognised, parsed_pairs
from preceptor.prompts.pool import Ids, messages_of, meta_of, tags_of
from preceptor.prompts.records import content_id
from preceptor.prompts.rows import (
    BadRowError,
    RawRow,
    bytes_beside,
    bytes_columns,
    carrying_bytes,
    replacing,
)
from preceptor.prompts.shown import csv_cell

OURS = frozenset(
    {
        "id",
        "prompt",
        "messages",
        "chosen",
        "rejected",
        "response_a",
        "response_b",
        "responses",
        "preferred",
        "tags",
        "meta",
    }
)
FORMS = tuple(sorted(name for name, layout in LAYOUTS.items() if layout.write))
"""Layouts that are written."""
ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet")


class Converted(NamedTuple):
    """What became of the rows."""

    written: int
    set_aside: dict[str, int]
    """Reason -> number of rows."""
    carried: tuple[str, ...] = ()
    """Columns of bytes that went along with the rows."""


class Beside(NamedTuple):
    """Columns of bytes that stand beside the rows."""

    source: str | Path
    schema: Any
    lines: list[int]
    """Of each row that was written, the number in the source."""


def convert(source: str | Path, out: str | Path, to: str, how: Recognised) -> Converted:
    """Write the pairs of `source` to `out` in the layout `to`; the ending of `out` says in what kind of file.

    Pairs in which nothing is preferred, and conversations for which the layout has no room, are set aside and counted.
    From Parquet into Parquet, columns of bytes such as images go along with their rows; of a pair that was made of
    several rows, those of the first. Raises RowsError.
    """
    layout = LAYOUTS.get(to)
    if layout is None or layout.write is None:
        raise RowsError(f"--to {to}: no layout that can be written; wanted one of {', '.join(FORMS)}")
    if not str(out).endswith(ENDINGS):
        raise RowsError(f"{out}: unknown ending; wanted {', '.join(ENDINGS)}")
    if Path(source).exists() and Path(out).exists() and Path(source).samefile(out):
        raise RowsError(f"{out}: is the file that is read; name another to write")
    aside: dict[str, int] = {}
    lines: list[int] = []
    beside = Beside(source, bytes_columns(source), lines) if carries_bytes(source, out) else None
    with carrying_bytes(source) if beside else nullcontext(), replacing(out) as place:
        written = _write(place, str(out), _written(source, how, layout, aside, lines), beside)
        if not written:
            reasons = "; ".join(f"{count}: {reason}" for reason, count in aside.items())
            raise RowsError(f"{source}: no row can be written as {to} ({reasons or 'no rows'})")
    return Converted(written, aside, tuple(beside.schema.names) if beside else ())


def carries_bytes(source: str | Path, out: str | Path) -> bool:
    """Whether columns of bytes can go along."""
    return all(str(name).endswith(".parquet") for name in (source, out))


def _written(
    source: str | Path, how: Recognised, layout: Layout, aside: dict[str, int], lines: list[int]
) -> Iterator[Fields]:
    """lines: grows by the number of every row that is given out."""
    assert layout.write is not None
    read = _reader()
    for line, row in parsed_pairs(source, lambda raw: (raw.line, read(raw)), how):
        try:
            if isinstance(row, str):
                raise BadRowError(row, "a preferred reply")
            fields = layout.write(row)
        except BadRowError as bad:
            reason = bad.came
            aside[reason] = aside.get(reason, 0) + 1
        else:
            lines.append(line)
            yield fields


def _reader() -> Any:
    ids = Ids()

    def read(row: RawRow) -> ConversationPair | str:
        fields = row.fields
        messages = [message.model_dump() for message in messages_of(fields)]
        sides = _sides(fields)
        if isinstance(sides, str):
            return sides
        identity = ids.of(row, content_id("pair", messages, *sides))
        tags = tags_of(fields)
        rest = meta_of(fields, OURS) | ({"tags": list(tags)} if tags else {})
        return ConversationPair(identity, messages, *sides, rest)

    return read


def _sides(fields: Fields) -> tuple[str, str] | str:
    """Chosen and rejected, or why there are none."""
    if has(fields, "chosen", "rejected"):
        return reply("chosen", fields["chosen"]), reply("rejected", fields["rejected"])
    preferred = fields.get("preferred")
    texts = (
        fields.get("responses")
        if has(fields, "responses")
        else [fields.get("response_a"), fields.get("response_b")]
    )
    if (
        not isinstance(texts, (list, tuple))
        or len(texts) != 2
        or not all(isinstance(text, str) for text in texts)
    ):
        raise BadRowError("no two replies", "chosen and rejected, or two replies and which is preferred")
    if preferred not in ("a", "b"):
        return "a tie" if preferred == "tie" else "no reply is preferred"
    return (texts[0], texts[1]) if preferred == "a" else (texts[1], texts[0])


def _write(place: Path, name: str, rows: Iterable[Fields], beside: Beside | None = None) -> int:
    if name.endswith(".parquet"):
        return _write_parquet(place, list(rows), beside)
    if name.endswith(".csv"):
        return _write_csv(place, list(rows))
    count = 0
    with open(place, "wb") as raw:
        file: Any = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if name.endswith(".gz") else raw
        with io.TextIOWrapper(file, encoding="utf-8", newline="\n") as text:
            whole = name.endswith(".json")
            for count, row in enumerate(rows, start=1):
                start = ("[\n" if count == 1 else ",\n") if whole else ""
                text.write(start + json.dumps(row, ensure_ascii=False) + ("" if whole else "\n"))
            text.write("\n]\n" if whole and count else "")
    return count


def _write_parquet(place: Path, rows: list[Fields], beside: Beside | None) -> int:
    import pyarrow
    from pyarrow import parquet

    try:
        columns = dict.fromkeys(
            key for row in rows for key in row
        )  # the library looks at the first row's alone
        table = pyarrow.Table.from_pylist([{key: row.get(key) for key in columns} for row in rows])
        if beside is None or not beside.schema.names or not rows:
            parquet.write_table(table, place)
        else:
            _write_beside(place, table, beside)
    except pyarrow.ArrowException as exc:
        raise RowsError(
            f"{place.name}: a column holds values of several kinds ({exc}); write .jsonl instead"
        ) from exc
    return len(rows)


def _write_beside(place: Path, table: Any, beside: Beside) -> None:
    """The table with the columns of bytes after its own, a part of the rows at a time."""
    import pyarrow
    from pyarrow import parquet

    names = beside.schema.names
    if taken := sorted(set(names) & set(table.column_names)):
        raise RowsError(
            f"{beside.source}: {', '.join(taken)} holds bytes, and the layout has a column of that name; rename it"
        )
    done = 0
    with parquet.ParquetWriter(place, pyarrow.schema([*table.schema, *beside.schema])) as writer:
        for held in bytes_beside(beside.source, names, beside.lines):
            part = table.slice(done, held.num_rows)
            for name in names:
                part = part.append_column(beside.schema.field(name), held.column(name))
            writer.write_table(part)
            done += held.num_rows


def _write_csv(place: Path, rows: list[Fields]) -> int:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with open(place, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(
            {
                key: csv_cell(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
                for key, value in row.items()
            }
            for row in rows
        )
    return len(rows)
