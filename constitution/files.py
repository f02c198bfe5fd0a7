"""Constitution files: shipped names and paths in, resolved constitutions out.

`extends` names shipped constitutions or files relative to the one that extends. The principles of the parents
come first, in the order in which the parents are named; a principle with the id of an earlier one replaces it
in its place. A resolved constitution names no parents, so that its identity is that of its content alone, and
a file whose `principles` is empty may still extend others.
"""

from __future__ import annotations

import difflib
import io
import stat
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from preceptor.constitution.checks import catalogue
from preceptor.constitution.errors import ConstitutionError, FileFault
from preceptor.constitution.principle import Constitution, Principle
from preceptor.constitution.reading import LARGEST_FILE, WANTED, ConstitutionFile, read

__all__ = ["dump", "load"]

ENDING = ".yaml"
DEEPEST = 50
"""Files that may extend one another in a row."""


class _Source(NamedTuple):
    """One file on the way through `extends`."""

    key: str
    """What it is recognised by where `extends` runs in a circle."""
    shown: str
    """How faults name it."""
    path: Path | None
    """None for a shipped constitution."""


class _Way(NamedTuple):
    """How a file was come to."""

    folder: Path | None
    """Of the first file, in which all that is extended lies; None: it is shipped."""
    known: dict[str, _Resolved]
    """Files that were read on another way: of a file that many extend, each is read once."""
    above: tuple[_Source, ...]


class _Resolved(NamedTuple):
    content: ConstitutionFile | None
    principles: tuple[Principle, ...]
    faults: tuple[FileFault, ...]


def shipped() -> tuple[str, ...]:
    """Names of the constitutions in the library."""
    files = (resources.files("preceptor.constitution") / "library").iterdir()
    return tuple(sorted(file.name.removesuffix(ENDING) for file in files if file.name.endswith(ENDING)))


def shipped_text(name: str) -> str:
    """The file of a shipped constitution, comments included. ConstitutionError for an unknown name."""
    if name not in shipped():
        raise ConstitutionError([_nowhere(name, name)])
    return (resources.files("preceptor.constitution") / "library" / f"{name}{ENDING}").read_text(
        encoding="utf-8"
    )


def load(source: str | Path) -> Constitution:
    """A shipped name (text only) or a path, with `extends` followed.

    ConstitutionError with every fault of the file and of those that it extends.
    """
    if isinstance(source, str) and source in shipped():
        return _constitution(_Source(f"shipped:{source}", f"{source} (shipped)", None), shipped_text(source))
    path = Path(source)
    text, fault = _text(path, str(source))
    if fault:
        raise ConstitutionError([fault])
    return load_text(text, path)


def load_text(text: str, path: Path) -> Constitution:
    """The constitution that the file would hold with this text; nothing is read but what it extends."""
    return _constitution(_Source(_key(path), str(path), path), text)


def _constitution(source: _Source, text: str) -> Constitution:
    resolved = _resolve(source, text, _Way(source.path.resolve().parent if source.path else None, {}, ()))
    if resolved.content is None or resolved.faults:
        raise ConstitutionError(resolved.faults)
    content = resolved.content
    return Constitution(
        name=content.name,
        version=content.version,
        description=content.description,
        principles=resolved.principles,
    )


def _resolve(source: _Source, text: str, way: _Way) -> _Resolved:
    reading = read(text, source.shown)
    if reading.content is None:
        return _Resolved(None, (), reading.faults)
    merged: dict[str, Principle] = {}
    faults: list[FileFault] = []
    for entry, line in zip(reading.content.extends, reading.extends_lines, strict=True):
        parent = _parent(entry, source, line, way._replace(above=(*way.above, source)))
        faults.extend(parent.faults)
        merged |= {principle.id: principle for principle in parent.principles}
    merged |= {principle.id: principle for principle in reading.content.principles}
    if not merged and not faults:
        faults.append(FileFault(source.shown, 0, "a constitution without principles", "at least one"))
    return _Resolved(reading.content, tuple(merged.values()), tuple(faults))


def _parent(entry: str, child: _Source, line: int, way: _Way) -> _Resolved:
    def fault(came: str, wanted: str) -> _Resolved:
        return _Resolved(None, (), (FileFault(child.shown, line, came, wanted),))

    if entry in shipped():
        source = _Source(f"shipped:{entry}", f"{entry} (shipped)", None)
    else:
        path = (child.path.parent if child.path else Path()) / entry
        try:
            inside = way.folder is not None and path.resolve().is_relative_to(way.folder)
        except (OSError, ValueError, RuntimeError):  # a NUL in it, or links in a circle
            inside = False
        if not inside:
            wanted = (
                f"a shipped name ({', '.join(shipped())}) or a file in the folder of the first or below it"
            )
            return fault(f"extends {entry!r}, which does not lie beside it", wanted)
        source = _Source(_key(path), str(path), path)
    if source.key in (earlier.key for earlier in way.above):
        circle = " -> ".join([*(earlier.shown for earlier in way.above), source.shown])
        return fault(f"extends that runs in a circle: {circle}", "files that do not extend one another")
    if len(way.above) > DEEPEST:
        return fault(f"extends that is {len(way.above)} files deep", f"at most {DEEPEST}")
    if source.key in way.known:
        return way.known[source.key]._replace(faults=())  # which were told when it was read
    text, unread = _text(source.path, entry) if source.path else (shipped_text(entry), None)
    if unread:
        return fault(f"extends {entry!r}: {unread.came}", unread.wanted)
    way.known[source.key] = resolved = _resolve(source, text, way)
    return resolved


def _key(path: Path) -> str:
    return str(path.resolve())


def _text(path: Path, shown: str) -> tuple[str, FileFault | None]:
    """The file's text, or why there is none."""
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode) and not stat.S_ISDIR(state.st_mode):
            return "", FileFault(shown, 0, "a pipe or device", "a plain YAML file")
        if state.st_size > LARGEST_FILE:
            return "", FileFault(shown, 0, f"a file of {state.st_size} bytes", f"at most {LARGEST_FILE}")
        raw = path.read_bytes()
    except FileNotFoundError:
        return "", _nowhere(shown, path.stem)
    except IsADirectoryError:
        return "", FileFault(shown, 0, "a directory", "a YAML file")
    except (OSError, ValueError) as error:
        return "", FileFault(shown, 0, f"a file that cannot be read ({error})", "a YAML file")
    try:
        return raw.decode("utf-8-sig"), None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        return "", FileFault(
            shown, line, f"the byte 0x{raw[error.start]:02x}, which is not UTF-8", "a file saved as UTF-8"
        )


def _nowhere(shown: str, name: str) -> FileFault:
    near = difflib.get_close_matches(name, shipped(), n=1)
    hint = f" ({near[0]!r}, perhaps)" if near else ""
    return FileFault(shown, 0, "no such file", f"a path, or one of the shipped {', '.join(shipped())}{hint}")


def dump(constitution: Constitution) -> str:
    """The constitution as one file that extends none; `load` gives it back with the same identity."""
    data = constitution.model_dump(mode="json", exclude_defaults=True, exclude={"extends", "version"})
    head = {"name": constitution.name, "version": constitution.version}
    return f"# {constitution.identity}, with all that it extends.\n{yaml_text(head | data)}"


def yaml_text(data: Any) -> str:
    """Plain data as block YAML, in the style of the shipped files."""
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 106
    yaml.allow_unicode = True
    stream = io.StringIO()
    yaml.dump(quoted(data), stream)
    return stream.getvalue()


def quoted(data: Any) -> Any:
    """Text with line breaks that YAML folds away or cannot show goes into double quotes, where they are escaped."""
    if isinstance(data, dict):
        return {key: quoted(value) for key, value in data.items()}
    if isinstance(data, list):
        return [quoted(value) for value in data]
    if isinstance(data, str) and (len(data.splitlines()) > 1 or not data.isprintable()):
        return DoubleQuotedScalarString(data)
    return data


@cache
def _schema() -> dict[str, Any]:
    return ConstitutionFile.model_json_schema()


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a constitution file, for editors; it names the checks."""
    schema = _schema()
    principle = schema["$defs"]["Principle"]
    checks = {info.name: {"description": f"{info.meaning}: {info.argument}"} for info in catalogue()}
    check = principle["properties"]["check"] | {"properties": checks, "additionalProperties": False}
    properties = {
        name: _described(name, value) for name, value in (principle["properties"] | {"check": check}).items()
    }
    top = {name: _described(name, value) for name, value in schema["properties"].items()}
    definitions = schema["$defs"] | {"Principle": principle | {"properties": properties}}
    return schema | {
        "$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": definitions, "properties": top,
    }  # fmt: skip


def _described(name: str, value: dict[str, Any]) -> dict[str, Any]:
    return value | ({"description": WANTED[name]} if name in WANTED else {})
