"""The text of one constitution file -> its values and its lines, or everything that is wrong with it.

Text is stripped at both ends, so that YAML's `>` and `|` leave no newline behind in what a model reads.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from preceptor.constitution.checks import validate
from preceptor.constitution.errors import FileFault
from preceptor.constitution.principle import SLUG, Example, Principle

MOST_TIMES = 10
"""How often as large as its text a file may become with its aliases followed; more is an alias that multiplies
itself."""
LEAST_NODES = 20_000

WANTED = {
    "name": "a name of a-z, 0-9 and single hyphens, as front-desk",
    "id": "a name of a-z, 0-9 and single hyphens, as no-harm",
    "version": 'text, as "1.0.0" in quotes',
    "extends": "a list of shipped names or paths, as [helpful-harmless]",
    "principles": "a list of principles, each with id and text",
    "text": 'text, as "Choose the reply that ..."',
    "weight": "a number above 0",
    "tags": "a list of words, as [honesty]",
    "applies_to": "a list of prompt tags, as [json]",
    "over": "a list of principles' ids, as [brevity]",
    "check": "a mapping, as {max_words: 60}",
    "examples": "a list of {prompt, better, worse, because}",
}
"""What each key takes; the other keys take text."""


class ConstitutionFile(BaseModel):
    """A constitution as it stands in its file, before `extends` is followed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(pattern=SLUG)
    version: str = "1.0.0"
    description: str = ""
    extends: tuple[str, ...] = ()
    principles: tuple[Principle, ...] = ()


class ParsedConstitution(NamedTuple):
    """What a text holds; `content` is None where it has faults."""

    content: ConstitutionFile | None
    faults: tuple[FileFault, ...]
    extends_lines: tuple[int, ...]
    """1-based line of each entry of `extends`."""


MAKERS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What ruamel's makers of dates, numbers and tagged values raise beside its own errors."""


class _TooLargeError(Exception):
    pass


def parse(text: str, maker: type[RoundTripConstructor] = RoundTripConstructor) -> Any:
    """The YAML tree with its comments and places. Raises ruamel's YAMLError, and RecursionError for values nested too
    deep. maker: what makes values of their texts."""
    yaml = YAML(typ="rt")
    yaml.Constructor = maker
    try:
        return yaml.load(text)
    except MAKERS as exc:
        raise YAMLError(
            f"a value that is not what its form or tag says: {str(exc).splitlines()[0][:80]}"
        ) from exc


@lru_cache(maxsize=64)
def read(text: str, file: str) -> ParsedConstitution:
    """All faults of the text at once; `file` is how they name it."""
    try:
        return _read(text, file)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 0
        words = " ".join(str(part) for part in (error.context, error.problem) if part)
        return _faulty(FileFault(file, line, f"broken YAML ({words})", "YAML that parses"))
    except YAMLError as error:
        return _faulty(
            FileFault(file, 0, f"broken YAML ({' '.join(str(error).split())})", "YAML that parses")
        )
    except RecursionError:
        return _faulty(FileFault(file, 0, "values nested too deep", "a constitution's own depth"))
    except _TooLargeError:
        most = _most_values(text)
        return _faulty(
            FileFault(file, 0, f"aliases that make more than {most} values", "a file without them")
        )


def _read(text: str, file: str) -> ParsedConstitution:
    data = _plain(_values(text), iter(range(_most_values(text))))
    if not isinstance(data, dict):
        came = "an empty file" if data is None else f"a file that holds {_kind(data)}"
        return _faulty(FileFault(file, 0, came, "a mapping with name and principles"))
    if _faults(None, data, file):
        faults = _faults(parse(text), data, file)
        return ParsedConstitution(None, tuple(sorted(faults, key=lambda fault: fault.line)), ())
    content = _validated(data)
    tree = parse(text) if content.extends else None
    lines = tuple(line_of(tree, ("extends", place)) for place in range(len(content.extends)))
    return ParsedConstitution(content, (), lines)


def _most_values(text: str) -> int:
    return max(LEAST_NODES, MOST_TIMES * len(text) // 4)


def _values(text: str) -> Any:
    """The values without their places, which takes less time; what is refused is read by the one that tells places."""
    try:
        return YAML(typ="safe", pure=True).load(text)
    except (YAMLError, *MAKERS):
        return parse(text)


def _faults(tree: Any, data: Mapping[str, Any], file: str) -> list[FileFault]:
    """tree None: their lines are not known."""
    return [*_shape_faults(tree, data, file), *_meaning_faults(tree, data, file)]


def _faulty(fault: FileFault) -> ParsedConstitution:
    return ParsedConstitution(None, (fault,), ())


def _validated(data: Mapping[str, Any]) -> ConstitutionFile:
    # By way of JSON, where pydantic's strict mode takes a list for a tuple, but no "2" or true for a number.
    return ConstitutionFile.model_validate_json(json.dumps(data), strict=True)


def _plain(node: Any, budget: Iterator[int], strip: bool = True) -> Any:
    """The tree in Python's own types. Dates become text again; patterns in a check keep their spaces."""
    if next(budget, None) is None:
        raise _TooLargeError
    if isinstance(node, Mapping):
        return {str(key): _plain(value, budget, strip and key != "check") for key, value in node.items()}
    if isinstance(node, list | tuple | set):
        return [_plain(value, budget, strip) for value in node]
    for kind in (bool, int, float):
        if isinstance(node, kind):
            return kind(node)
    if node is None:
        return None
    return str(node).strip() if strip else str(node)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    names = {dict: "a mapping", list: "a list", str: "text", int: "a number", float: "a number"}
    return names.get(type(value), "nothing")


def _shape_faults(tree: Any, data: Mapping[str, Any], file: str) -> Iterator[FileFault]:
    """Keys and types, as pydantic sees them."""
    try:
        _validated(data)
    except ValidationError as error:
        for detail in error.errors():
            yield FileFault(file, line_of(tree, detail["loc"]), *_came_and_wanted(detail, data))


def _came_and_wanted(detail: ErrorDetails, data: Mapping[str, Any]) -> tuple[str, str]:
    loc = detail["loc"]
    if not loc:  # the JSON itself: lone surrogates, or nesting without end
        return f"text that cannot be written down ({detail['msg']})", "plain Unicode text"
    key = str(loc[-1])
    whose = _whose(loc[:-1], data)
    if detail["type"] == "missing":
        return f"{whose} without {key!r}", f"{key}: {WANTED.get(key, 'text')}"
    if detail["type"] == "extra_forbidden":
        return f"unknown key {key!r} in {whose}", _nearest(key, _keys_at(loc[:-1]))
    wanted = WANTED.get(key, "text")
    if isinstance(loc[-1], int):
        key, wanted = f"entry {loc[-1] + 1}", _entry_wanted(loc)
        whose = " of ".join(filter(None, (_named_key(loc), _whose(loc[:-2], data))))
    return f"{key} of {whose} is {_shown(detail['input'])}", wanted


def _named_key(loc: Sequence[int | str]) -> str:
    return str(loc[-2]) if len(loc) > 1 else ""


def _entry_wanted(loc: Sequence[int | str]) -> str:
    entries = {
        "principles": "a mapping with id and text",
        "examples": "a mapping with prompt, better and worse",
    }
    return entries.get(_named_key(loc), "text")


def _shown(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, dict | list):
        return _kind(value)
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _whose(loc: Sequence[int | str], data: Mapping[str, Any]) -> str:
    """The part of the file to which a key belongs, in words."""
    if len(loc) < 2 or not isinstance(loc[1], int):
        return "the file"
    principle = data["principles"][loc[1]]
    named = principle.get("id") if isinstance(principle, dict) else None
    words = f"principle {named!r}" if isinstance(named, str) else f"principle {loc[1] + 1}"
    return f"example {loc[3] + 1} of {words}" if len(loc) >= 4 and isinstance(loc[3], int) else words


def _keys_at(loc: Sequence[int | str]) -> tuple[str, ...]:
    model: type[BaseModel] = (
        Example if "examples" in loc else Principle if "principles" in loc else ConstitutionFile
    )
    return tuple(model.model_fields)


def _nearest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"{near[0]!r}, perhaps" if near else f"one of {', '.join(known)}"


def _meaning_faults(tree: Any, data: Mapping[str, Any], file: str) -> Iterator[FileFault]:
    """What the types do not say: checks, ids given twice, and that there is a principle at all."""
    principles = data.get("principles")
    if principles == [] and not data.get("extends"):
        yield FileFault(
            file, line_of(tree, ("principles",)), "a constitution without principles", "at least one"
        )
    seen: dict[str, int] = {}
    for place, principle in enumerate(principles if isinstance(principles, list) else ()):
        if not isinstance(principle, dict):
            continue
        line = line_of(tree, ("principles", place, "id"))
        named = principle.get("id")
        if isinstance(named, str) and named in seen:
            yield FileFault(
                file, line, f"the id {named!r} a second time, after line {seen[named]}", "an id of its own"
            )
        elif isinstance(named, str):
            seen[named] = line
        yield from _check_faults(tree, principle, place, file)


def _check_faults(tree: Any, principle: Mapping[str, Any], place: int, file: str) -> Iterator[FileFault]:
    check = principle.get("check")
    if not isinstance(check, dict):
        return
    for name, argument in check.items():
        for words in validate({name: argument}):
            came, _, wanted = words.partition("; wanted ")
            whose = _whose(("principles", place), {"principles": {place: principle}})
            yield FileFault(
                file, line_of(tree, ("principles", place, "check", name)), f"{came} in {whose}", wanted
            )


def line_of(tree: Any, loc: Sequence[int | str]) -> int:
    """1-based line of the deepest part of the path that the file has."""
    node, line = tree, 1
    for step in loc:
        if isinstance(node, CommentedMap) and step in node:
            places = node.lc.data or {}
            line = places[step][0] + 1 if step in places else line
        elif isinstance(node, CommentedSeq) and isinstance(step, int) and step < len(node):
            line = node.lc.item(step)[0] + 1
        else:
            return line
        node = node[step]
    return line
