"""A file of pairs in one layout -> a file in another."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from preceptor.prompts.errors import RowsError
from preceptor.prompts.layouts.layout import Fields, Layout, Talk, has, reply
from preceptor.prompts.layouts.recognition import LAYOUTS, Recognised, parsed_pairs
from preceptor.prompts.pool import Ids, messages_of, meta_of, tags_of
from preceptor.prompts.records import content_id
from preceptor.prompts.rows import BadRowError, RawRow, replacing
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


def convert(source: str | Path, out: str | Path, to: str, how: Recognised) -> Converted:
    """Write the pairs of `source` to `out` in the layout `to`; the ending of `out` says in what kind of file.

    Pairs in which nothing is preferred, and talks for which the layout has no room, are set aside and counted. Raises
    RowsError.
    """
    layout = LAYOUTS.get(to)
    if layout is None or layout.write is None:
        raise RowsError(f"--to {to}: no layout that can be written; wanted one of {', '.join(FORMS)}")
    if not str(out).endswith(ENDINGS):
        raise RowsError(f"{out}: unknown ending; wanted {', '.join(ENDINGS)}")
    if Path(source).exists() and Path(out).exists() and Path(source).samefile(out):
        raise RowsError(f"{out}: is the file that is read; name another to write")
    aside: dict[str, int] = {}
    rows = _written(source, how, layout, aside)
    with replacing(out) as place:
        written = _write(place, str(out), rows)
        if not written:
            reasons = "; ".join(f"{count}: {reason}" for reason, count in aside.items())
            raise RowsError(f"{source}: no row can be written as {to} ({reasons or 'no rows'})")
    return Converted(written, aside)


def _written(source: str | Path, how: Recognised, layout: Layout, aside: dict[str, int]) -> Iterator[Fields]:
    assert layout.write is not None
    for row in parsed_pairs(source, _reader(), how):
        try:
            if isinstance(row, str):
                raise BadRowError(row, "a preferred reply")
            yield layout.write(row)
        except BadRowError as bad:
            reason = bad.came
            aside[reason] = aside.get(reason, 0) + 1


def _reader() -> Any:
    ids = Ids()

    def read(row: RawRow) -> Talk | str:
        fields = row.fields
        messages = [message.model_dump() for message in messages_of(fields)]
        sides = _sides(fields)
        if isinstance(sides, str):
            return sides
        identity = ids.of(row, content_id("pair", messages, *sides))
        tags = tags_of(fields)
        rest = meta_of(fields, OURS) | ({"tags": list(tags)} if tags else {})
        return Talk(identity, messages, *sides, rest)

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


def _write(place: Path, name: str, rows: Iterable[Fields]) -> int:
    if name.endswith(".parquet"):
        return _write_parquet(place, list(rows))
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


def _write_parquet(place: Path, rows: list[Fields]) -> int:
    import pyarrow
    from pyarrow import parquet

    try:
        parquet.write_table(pyarrow.Table.from_pylist(rows), place)
    except pyarrow.ArrowException as exc:
        raise RowsError(
            f"{place.name}: a column holds values of several kinds ({exc}); write .jsonl instead"
        ) from exc
    return len(rows)


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
