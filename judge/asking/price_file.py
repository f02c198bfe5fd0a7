"""A user's own file of prices: read with all its faults at once, and added to with everything else left as it is."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from preceptor.constitution.errors import UserError
from preceptor.constitution.files import quoted
from preceptor.constitution.foreign import text_in
from preceptor.constitution.reading import parse
from preceptor.judge.settings import Price
from preceptor.prompts.manifest import write_text

DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
FORM = "openai/my-model: {input: 0.2, output: 0.8}"


class PriceEntry(NamedTuple):
    """A model's price and where it stands."""

    line: int
    """The first is 1."""
    price: Price


class PriceFile(NamedTuple):
    """What a file says."""

    path: Path
    text: str
    entries: Mapping[str, PriceEntry]
    """By `provider/model`; without those that cannot be read."""
    faults: tuple[str, ...]
    """`file:line: what came; what was wanted`, in the order of the lines."""


def read_file(path: str | Path) -> PriceFile:
    """A file of `provider/model: {input: 0.2, output: 0.8}`, in USD for a million tokens, with the other fields of a
    Price as wanted. Raises UserError for a file that cannot be read as such at all."""
    try:
        text = text_in(path)
    except (OSError, UnicodeDecodeError) as exc:
        raise UserError(f"{path}: the prices cannot be read: {exc}; name a YAML file") from exc
    tree = _tree(text, path)
    entries: dict[str, PriceEntry] = {}
    faults: list[tuple[int, str]] = []
    for name, fields in tree.items():
        line = tree.lc.key(name)[0] + 1
        if not isinstance(name, str) or "/" not in name.strip("/"):
            faults.append((line, f"{name!r} is no model; wanted provider/model, such as {FORM}"))
            continue
        try:
            entries[name] = PriceEntry(line, Price.model_validate(fields))
        except ValidationError as exc:
            faults += _faults(name, fields, line, exc)
    return PriceFile(
        Path(path), text, entries, tuple(f"{path}:{line}: {said}" for line, said in sorted(faults))
    )


def read_prices(path: str | Path) -> dict[str, Price]:
    """The prices of a user's file by `provider/model`. Raises UserError, with every fault of it."""
    found = read_file(path)
    if found.faults:
        raise UserError("\n".join(found.faults))
    return {name: entry.price for name, entry in found.entries.items()}


def add(path: Path, name: str, fields: Mapping[str, Any], *, replace: bool = False) -> Price:
    """Write an entry into the file, which is made where there is none; every other line stays as it is.

    Raises UserError where the file has faults, where it has the model already and `replace` is not wanted, and where
    it is written in another way than an entry after another.
    """
    if "/" not in name.strip("/"):
        raise UserError(f"{name!r} is no model; wanted provider/model, such as openai/my-model")
    price = Price.model_validate(fields)
    there = path.exists()
    old = read_file(path) if there else PriceFile(path, "", {}, ())
    if old.faults:
        raise UserError("\n".join([*old.faults, f"{path} stays as it is: mend it first"]))
    if name in old.entries and not replace:
        raise UserError(
            f"{path}:{old.entries[name].line}: {name} has a price here already; add --replace to write over it"
        )
    text = _with_entry(old, name, fields)
    expected = {**{other: entry.price for other, entry in old.entries.items()}, name: price}
    if _prices_in(text) != expected:
        raise UserError(f"{path} is not written line by line; add the entry by hand, such as {FORM}")
    write_text(path, text)
    return price


class _DaysAreWords(RoundTripConstructor):
    """Days stay texts, so that one which is not in the calendar is a fault with its line, as all others are."""


_DaysAreWords.add_constructor("tag:yaml.org,2002:timestamp", RoundTripConstructor.construct_scalar)


def loaded(text: str) -> Any:
    """The YAML tree with its places. Raises ruamel's YAMLError."""
    try:
        return parse(text, _DaysAreWords)
    except RecursionError as exc:
        raise YAMLError("values nested too deep") from exc


def _tree(text: str, path: str | Path) -> CommentedMap:
    try:
        tree = loaded(text)
    except MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        place = f"{path}:{mark.line + 1}" if mark else f"{path}"
        words = " ".join(str(exc.problem or exc).split())
        raise UserError(f"{place}: broken YAML: {words}; wanted lines such as {FORM}") from exc
    except YAMLError as exc:
        raise UserError(
            f"{path}: broken YAML: {' '.join(str(exc).split())}; wanted lines such as {FORM}"
        ) from exc
    if tree is None:
        return CommentedMap()
    if not isinstance(tree, CommentedMap):
        raise UserError(f"{path}:1: wanted lines such as {FORM}")
    return tree


def _faults(name: str, fields: Any, line: int, exc: ValidationError) -> Iterator[tuple[int, str]]:
    for fault in exc.errors(include_url=False):
        place = ".".join(map(str, fault["loc"])) or "the price"
        at = fields.lc.key(fault["loc"][0])[0] + 1 if _has(fields, fault["loc"]) else line
        said = fault["msg"].removeprefix("Value error, ")
        yield (
            at,
            f"{name}: {place}: {said[0].lower()}{said[1:]}; wanted USD for a million tokens, input and output at least "
            f"of {', '.join(Price.model_fields)}",
        )


def _has(fields: Any, place: tuple[int | str, ...]) -> bool:
    return isinstance(fields, CommentedMap) and bool(place) and place[0] in fields


def _prices_in(text: str) -> dict[str, Price] | None:
    """None: it is no file of prices."""
    try:
        return {name: Price.model_validate(fields) for name, fields in loaded(text).items()}
    except (YAMLError, ValidationError, AttributeError):
        return None


def _with_entry(old: PriceFile, name: str, fields: Mapping[str, Any]) -> str:
    stream = io.StringIO()
    yaml = YAML()
    yaml.width = 10_000
    yaml.dump({name: _in_one_line(fields)}, stream)
    lines = old.text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    if name not in old.entries:
        return "".join([*lines, stream.getvalue()])
    start = old.entries[name].line - 1
    later = [entry.line - 1 for entry in old.entries.values() if entry.line - 1 > start]
    end = min(later, default=len(lines))
    while end > start + 1 and lines[end - 1].lstrip()[:1] in ("", "#"):
        end -= 1  # what stands above the next entry belongs to it
    return "".join([*lines[:start], stream.getvalue(), *lines[end:]])


def _in_one_line(value: Any) -> Any:
    """As YAML's flow style writes it, days without quotes."""
    if isinstance(value, Mapping):
        mapping = CommentedMap({key: _in_one_line(inner) for key, inner in value.items()})
        mapping.fa.set_flow_style()
        return mapping
    if isinstance(value, list | tuple):
        several = CommentedSeq(map(_in_one_line, value))
        several.fa.set_flow_style()
        return several
    return date.fromisoformat(value) if isinstance(value, str) and DAY.fullmatch(value) else quoted(value)
