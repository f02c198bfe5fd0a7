"""Files of rows, read as a stream and written whole or not at all.

Reads JSON Lines, JSON (a list of rows), CSV (all also `.gz`), Parquet, a folder written by `datasets`, and
`hub:ID[@SPLIT]`. Every fault of a file is told with its place; up to ten of them are collected before the
file is refused.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import logging
import os
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

from pydantic import ValidationError

from preceptor.constitution.errors import FileFault
from preceptor.constitution.foreign import json_of
from preceptor.constitution.outputs import refuse_output
from preceptor.prompts.errors import RowsError
from preceptor.prompts.records import Record, said_once
from preceptor.prompts.shown import csv_text

ParsedT = TypeVar("ParsedT")
RecordT = TypeVar("RecordT", bound=Record)

MOST_FAULTS = 10
ENDINGS = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".json", ".json.gz", ".parquet")
LISTS_OF_ROWS = ("comparisons", "rows", "data", "examples", "records", "instances")
"""Keys under which a JSON file keeps its rows where it is an object and no list."""
LIST_CELLS = frozenset({"messages", "responses", "tags"})
"""Columns of a CSV file that hold lists, spelt as JSON."""
CONVERSATION_CELLS = frozenset({"prompt", "chosen", "rejected"})
"""Columns of a CSV file that hold a text, or a list of messages spelt as JSON."""
TEXT_PARTS = ("text", "input_text", "output_text")
"""Types of the parts of a message that are texts, as OpenAI's two APIs call them."""
LONGEST_LINE = 2**28
"""Bytes of a line; a longer one is no row but a file without line ends, or a gzip file made to fill the memory."""
DEEPEST = 100
"""How deep a row may be nested: what is made of it is nested deeper, and writers stop at about 250."""
OPTIONAL_CELLS = frozenset({"id", "tags", "preferred", "messages", "responses"})
"""Columns of a CSV file in which an empty cell means that there is none."""


_log = logging.getLogger(__name__)
_carried: ContextVar[frozenset[str]] = ContextVar("carried", default=frozenset())
"""Parquet files whose columns of bytes go along with their rows."""


class RawRow(NamedTuple):
    """One row as it came. `line` is 1-based: the line in text files, the row in others."""

    file: str
    line: int
    fields: dict[str, Any]


class BadRowError(Exception):
    """Raised by whoever reads the fields of one row: what came, what was wanted."""

    def __init__(self, came: str, wanted: str) -> None:
        super().__init__(came, wanted)
        self.came, self.wanted = came, wanted


def read_rows(source: str | Path) -> Iterator[RawRow | FileFault]:
    """The rows of a file, dataset folder or `hub:` dataset, in order, with a Fault where a row cannot be
    read.

    Raises RowsError where the whole source is of no use: missing, empty, cut short, of an unknown kind.
    """
    name = str(source)
    rows = _opened(name)
    first = next(rows, None)
    if first is None:
        raise RowsError(f"{name}: holds no rows; wanted at least one")
    yield first
    yield from rows


def parsed_rows(source: str | Path, read: Callable[[RawRow], ParsedT]) -> Iterator[ParsedT]:
    """What `read` makes of every row of a file, as `parsed` does."""
    return parsed(source, read_rows(source), read)


def parsed(
    source: str | Path, rows: Iterable[RawRow | FileFault], read: Callable[[RawRow], ParsedT]
) -> Iterator[ParsedT]:
    """What `read` makes of every row, as a stream.

    After the first fault nothing more is given out; the rest is only searched for further faults (ten at the
    most), which are then raised together as one RowsError. source: what the message calls them.
    """
    faults: list[FileFault] = []
    for row in rows:
        if isinstance(row, FileFault):
            faults.append(row)
        else:
            try:
                made = read(row)
            except BadRowError as bad:
                faults.append(FileFault(row.file, row.line, bad.came, bad.wanted))
            else:
                if not faults:
                    yield made
        if len(faults) == MOST_FAULTS:
            break
    if faults:
        raise faulty(str(source), faults)


def read_records(source: str | Path, kind: type[RecordT]) -> Iterator[RecordT]:
    """Rows that one of our own stages wrote, read back."""
    return parsed_rows(source, lambda row: validated(kind, row.fields))


def validated(kind: type[RecordT], fields: Mapping[str, Any]) -> RecordT:
    """The record in the fields. Raises BadRowError that names the first field that is wrong."""
    try:
        return kind.model_validate(fields)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the row"
        raise BadRowError(f"{place}: {first['msg'].lower()}", f"a row of kind {kind.__name__}") from exc


def faulty(name: str, faults: Sequence[FileFault]) -> RowsError:
    """One message for all faults found."""
    if len(faults) == 1:
        return RowsError(str(faults[0]))
    more = " or more" if len(faults) == MOST_FAULTS else ""
    return RowsError(
        "\n".join([f"{name} has {len(faults)}{more} faults:", *(f"  {fault}" for fault in faults)])
    )


def _opened(name: str) -> Iterator[RawRow | FileFault]:
    if name.startswith("hub:"):
        return _hub_rows(name)
    path = Path(name)
    if path.is_dir():
        return _folder_rows(name)
    if not path.exists():
        raise RowsError(f"{name}: there is no such file; check the path")
    refuse_output(path)
    if name.endswith((".jsonl", ".jsonl.gz")):
        return _json_rows(name)
    if name.endswith((".json", ".json.gz")):
        return _json_file_rows(name)
    if name.endswith((".csv", ".csv.gz")):
        return _csv_rows(name)
    if name.endswith(".parquet"):
        return _parquet_rows(name)
    raise RowsError(
        f"{name}: unknown ending; wanted {', '.join(ENDINGS)}, a folder written by datasets, or hub:ID"
    )


def _lines(name: str) -> Iterator[tuple[int, bytes]]:
    """Numbered lines; a file that cannot be read to its end is refused in words."""
    number = 0
    try:
        with gzip.open(name, "rb") if name.endswith(".gz") else open(name, "rb") as file:
            while line := file.readline(LONGEST_LINE + 1):
                number += 1
                if len(line) > LONGEST_LINE:
                    raise RowsError(
                        f"{name}:{number}: a line of more than {LONGEST_LINE >> 20} MiB; wanted a row"
                    )
                yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
        raise RowsError(
            f"{name}: the gzip data is broken or cut short after line {number} ({exc}); "
            "fetch or write the file again"
        ) from exc
    except OSError as exc:
        raise RowsError(
            f"{name}: cannot be read: {exc.strerror or exc}; check the path and its permissions"
        ) from exc


def _decoded(name: str, number: int, line: bytes) -> str | FileFault:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as exc:
        return FileFault(name, number, f"byte {exc.start + 1} of the line is not UTF-8", "text in UTF-8")


def _json_rows(name: str) -> Iterator[RawRow | FileFault]:
    for number, line in _lines(name):
        text = _decoded(name, number, line)
        if isinstance(text, FileFault):
            yield text
        elif text.strip():
            yield _json_row(name, number, text)


def _json_file_rows(name: str) -> Iterator[RawRow | FileFault]:
    """A file that is one JSON value: a list of rows, or an object that keeps them under a known key."""
    pieces, size = [], 0
    for number, line in _lines(name):
        text = _decoded(name, number, line)
        if isinstance(text, FileFault):
            yield text
            return
        pieces.append(text)
        size += len(line)
        if size > LONGEST_LINE:
            raise RowsError(f"{name}: more than {LONGEST_LINE >> 20} MiB of JSON; write it as JSON Lines")
    value = _json_value(name, 0, "".join(pieces))
    if isinstance(value, dict):
        value = next((value[key] for key in LISTS_OF_ROWS if isinstance(value.get(key), list)), [value])
    if isinstance(value, FileFault):
        yield value
        return
    if not isinstance(value, list):
        yield FileFault(name, 0, kind_of(value), "a list of rows")
        return
    for number, row in enumerate(value, start=1):
        if isinstance(row, dict):
            yield RawRow(name, number, row)
        else:
            yield FileFault(name, number, kind_of(row), "an object in the list of rows")


def _json_row(name: str, number: int, text: str) -> RawRow | FileFault:
    value = _json_value(name, number, text)
    if isinstance(value, FileFault):
        return value
    if not isinstance(value, dict):
        return FileFault(name, number, f"{kind_of(value)}", "one JSON object on the line")
    return RawRow(name, number, value)


def _json_value(name: str, number: int, text: str) -> Any:
    """The JSON value in a text, or a Fault."""
    try:
        value = json_of(text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=said_once)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()
        if number and _too_deep(value):
            return FileFault(name, number, f"values nested more than {DEEPEST} deep", "a row")
    except json.JSONDecodeError as exc:
        return FileFault(
            name, number, f"broken JSON at column {exc.colno}: {exc.msg}", "one JSON object on the line"
        )
    except UnicodeEncodeError:
        return FileFault(
            name, number, "an escape that is half a character (a lone surrogate)", "whole characters"
        )
    except ValueError as exc:
        return FileFault(name, number, f"JSON that cannot be read: {exc}", "one JSON object on the line")
    return value


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for one in level if isinstance(one, (dict, list)) for inner in _inside(one)]
        if not level:
            return False
    return True


def _inside(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _finite(number: str) -> float:
    value = float(number)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{number} is too large a number")
    return value


def _no_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


def _csv_rows(name: str) -> Iterator[RawRow | FileFault]:
    bad: list[FileFault] = []

    number = 0

    def decoded() -> Iterator[str]:
        nonlocal number
        for number, line in _lines(name):
            text = _decoded(name, number, line)
            if isinstance(text, FileFault):
                bad.append(text)
            yield text if isinstance(text, str) else line.decode("utf-8", "replace")

    csv.field_size_limit(LONGEST_LINE)
    reader = csv.DictReader(decoded(), strict=True)
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as exc:
            yield FileFault(name, number, f"broken CSV: {exc}", 'comma-separated cells, quoted with "')
            return
        header = list(reader.fieldnames or ())
        if twice := sorted({column for column in header if header.count(column) > 1}):
            yield FileFault(name, 1, f"column {', '.join(twice)} twice", "columns with names that differ")
            return
        if bad:
            yield from bad
            bad.clear()
        elif cells is None:
            return
        elif None in cells or None in cells.values():
            yield FileFault(name, number, "more or fewer cells than the header", f"{len(header)} cells")
        else:
            try:
                fields = {
                    key: _cell(key, value)
                    for key, value in cells.items()
                    if value or key not in OPTIONAL_CELLS
                }
            except BadRowError as bad_cell:
                yield FileFault(name, number, bad_cell.came, bad_cell.wanted)
            else:
                yield RawRow(name, number, fields)


def _cell(column: str, text: str) -> Any:
    """A cell as it stands. Only columns that hold lists are read as JSON (`["a"]`), tags also with commas alone."""
    if column in LIST_CELLS | CONVERSATION_CELLS and text.startswith("[") and text.endswith("]"):
        try:
            value = json_of(text, object_pairs_hook=said_once)
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise BadRowError(
                f"{column} holds half a character (a lone surrogate)", "whole characters"
            ) from None
        except ValueError:
            value = None
        if _too_deep(value):
            raise BadRowError(f"{column} is nested more than {DEEPEST} deep", "a list")
        if isinstance(value, list) and (column in LIST_CELLS or _are_messages(value)):
            return value
    return [tag.strip() for tag in text.split(",")] if column == "tags" else csv_text(text)


def _are_messages(value: list[Any]) -> bool:
    return len(value) > 0 and all(isinstance(item, dict) and "role" in item for item in value)


def _parquet_rows(name: str) -> Iterator[RawRow | FileFault]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(name) as file:
            kept = _holdable(name, file.schema_arrow)
            for batch in file.iter_batches(batch_size=1024, columns=kept):
                for fields in batch.to_pylist():
                    number += 1
                    yield RawRow(name, number, _without_none(fields))
    except (pyarrow.ArrowException, OSError) as exc:
        raise RowsError(
            f"{name}: cannot be read as Parquet after row {number}: {exc}; write the file again"
        ) from exc


@cache
def _tell_left_out(name: str, _place: str, columns: tuple[str, ...]) -> None:
    """Once for each source, which may be read several times: by sight first, then for good."""
    _log.info("%s: left out because JSON cannot hold it: %s", name, ", ".join(columns))


@contextmanager
def carrying_bytes(source: str | Path) -> Iterator[None]:
    """Whoever reads this Parquet file within carries its columns of bytes along by other means (`bytes_beside`): they
    are not told as left out."""
    before = _carried.set(_carried.get() | {str(source)})
    try:
        yield
    finally:
        _carried.reset(before)


def bytes_columns(source: str | Path) -> Any:
    """The schema of a Parquet file's columns of bytes, as images and sound are. Raises RowsError."""
    import pyarrow
    from pyarrow import parquet

    try:
        schema = parquet.read_schema(source)
    except (pyarrow.ArrowException, OSError) as exc:
        raise RowsError(f"{source}: cannot be read as Parquet: {exc}; write the file again") from exc
    return pyarrow.schema([field for field in schema if _is_binary(field.type)])


def bytes_beside(source: str | Path, columns: Sequence[str], lines: Sequence[int]) -> Iterator[Any]:
    """These columns of a Parquet file at these rows, as tables in order, so that no more than a part of the file is in
    memory. lines: numbers of rows from 1, ascending; one may come several times."""
    from pyarrow import Table, parquet

    at = passed = 0
    with parquet.ParquetFile(source) as file:
        for batch in file.iter_batches(batch_size=1024, columns=list(columns)):
            end = bisect_right(lines, passed + batch.num_rows, at)
            if end > at:
                yield Table.from_batches([batch]).take([line - passed - 1 for line in lines[at:end]])
            at, passed = end, passed + batch.num_rows


def _holdable(name: str, schema: Any) -> list[str]:
    """The columns of a schema without those of bytes, as images and sound are, which are told."""
    left_out = tuple(field.name for field in schema if _is_binary(field.type))
    if left_out and name not in _carried.get():
        _tell_left_out(name, os.path.abspath(name), left_out)
    return [field.name for field in schema if field.name not in left_out]


def _is_binary(kind: Any) -> bool:
    """Whether an Arrow type holds bytes, at whatever depth."""
    from pyarrow import BaseExtensionType, types

    if isinstance(kind, BaseExtensionType):
        return _is_binary(kind.storage_type)
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return _is_binary(kind.value_type)
    of_bytes = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary)
    if any(is_one(kind) for is_one in of_bytes):
        return True
    inner = [kind.field(index).type for index in range(kind.num_fields)]
    return any(_is_binary(one) for one in inner)


def _folder_rows(name: str) -> Iterator[RawRow | FileFault]:
    folder = Path(name)
    if not any(
        (folder / mark).is_file() for mark in ("dataset_info.json", "dataset_dict.json", "state.json")
    ):
        raise RowsError(
            f"{name}: a directory that is no dataset; wanted a file, or a folder written by datasets"
        )
    datasets = _datasets(name)
    try:
        loaded = datasets.load_from_disk(name)
    except (
        Exception
    ) as exc:  # the library raises many kinds, all of which mean that the folder cannot be used
        raise RowsError(f"{name}: datasets cannot load the folder: {exc}; save it again") from exc
    return _dataset_rows(name, loaded, "")


def _hub_rows(name: str) -> Iterator[RawRow | FileFault]:
    identity, _, split = name.removeprefix("hub:").partition("@")
    if not identity:
        raise RowsError(f"{name}: no dataset named; wanted hub:OWNER/NAME or hub:OWNER/NAME@SPLIT")
    datasets = _datasets(name)
    try:
        loaded = datasets.load_dataset(identity)
    except Exception as exc:  # network, missing dataset, script datasets: all end here for the same reason
        raise RowsError(f"{name}: datasets cannot load it: {exc}; check the name and the network") from exc
    return _dataset_rows(name, loaded, split)


def _datasets(name: str) -> Any:
    try:
        import datasets
    except ImportError as exc:
        raise RowsError(
            f"{name}: reading it needs the datasets library; pip install 'preceptor[train]'"
        ) from exc
    return datasets


def _dataset_rows(name: str, loaded: Any, split: str) -> Iterator[RawRow | FileFault]:
    if isinstance(loaded, dict):
        names = sorted(loaded)
        if split not in loaded and len(names) != 1:
            way = f"{name.partition('@')[0]}@{names[0]}" if name.startswith("hub:") else f"{name}/{names[0]}"
            raise RowsError(f"{name}: it has the splits {', '.join(names)}; name one of them, e.g. {way}")
        loaded = loaded[split if split in loaded else names[0]]
    kept = _holdable(name, loaded.features.arrow_schema)
    for number, fields in enumerate(loaded.select_columns(kept), start=1):
        yield RawRow(name, number, _without_none(fields))


def _without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Columnar formats write None for what a row has not."""
    return {key: value for key, value in fields.items() if value is not None}


def text_of(name: str, value: Any) -> str:
    """A text, which may be spelt as parts that are texts ({"type": "text", "text": ...}). Raises BadRowError."""
    if isinstance(value, str):
        return value
    if (
        not isinstance(value, (list, tuple))
        or not value
        or not all(isinstance(one, Mapping) for one in value)
    ):
        raise BadRowError(f"{name} is {kind_of(value)}", "a text")
    for index, part in enumerate(value):
        if part.get("type") not in TEXT_PARTS or not isinstance(part.get("text"), str):
            raise BadRowError(
                f"{name}[{index}] is a part of type {part.get('type')!r:.40}",
                "a text, or parts of type text alone",
            )
    return "".join(part["text"] for part in value)


def kind_of(value: Any) -> str:
    """A value's kind in words for messages: "a number", "a list"."""
    kinds = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "an object",
    }
    return "nothing" if value is None else kinds.get(type(value), f"a {type(value).__name__}")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well, and is removed when it
    does not.

    The parent folder is made. Raises RowsError where nothing can be written.
    """
    path = Path(path)
    if path.is_dir():  # found at the end only, when all is paid
        raise RowsError(f"{path}: cannot be written: it is a folder; wanted the name of a file")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    made = [parent for parent in (path.parent, *path.parent.parents) if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
        made = []
        _clear_of_the_dead(path)
    except (ConnectionError, TimeoutError):  # of whatever makes the rows, not of the file
        raise
    except OSError as exc:
        raise RowsError(f"{path}: cannot be written: {exc.strerror or exc}; choose another place") from exc
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        with suppress(OSError):  # one that holds something else stays
            for folder in made:
                folder.rmdir()


def _clear_of_the_dead(path: Path) -> None:
    """Remove what killed processes had begun to write in the place of a file that is there now."""
    begins, ends = f".{path.name}.", ".part"
    for other in path.parent.glob(f".*{ends}"):
        pid = other.name.removeprefix(begins).removesuffix(ends)
        if other.name.startswith(begins) and pid.isdigit() and not _lives(int(pid)):
            with suppress(OSError):
                other.unlink()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's, or a number that is no process
        return True
    return True


@contextmanager
def writing(path: str | Path) -> Iterator[Callable[[Record], None]]:
    """A function that appends one row to the file at `path`, which appears whole when the block ends well.

    Gzip where the name ends in `.gz`, without a time in it, so that equal rows give equal bytes.
    """
    with replacing(path) as temporary, open(temporary, "wb") as raw:
        file: Any = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if str(path).endswith(".gz") else raw
        with io.TextIOWrapper(file, encoding="utf-8", newline="\n") as text:

            def write(row: Record) -> None:
                text.write(row.line() + "\n")

            yield write


def write_rows(path: str | Path, rows: Iterable[Record]) -> int:
    """Write all rows or nothing; how many there were."""
    count = 0
    with writing(path) as write:
        for row in rows:
            write(row)
            count += 1
    return count
