"""Changing a constitution file and leaving everything else in it as it was, to the byte.

A principle of a block sequence is cut out or put in as lines of text, so that comments, order, quotes and
line breaks elsewhere survive. A file that writes its principles in another way ([{...}, {...}]) is written
anew by ruamel.yaml, which keeps comments and order, but not every line break.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq
from ruamel.yaml.error import YAMLError

from preceptor.constitution.errors import ConstitutionError, FileFault, UserError
from preceptor.constitution.files import load, load_text, yaml_text
from preceptor.constitution.principle import Constitution, Example, Principle
from preceptor.constitution.reading import parse, read


class Document(NamedTuple):
    """A constitution file as text. The text is always one that loads."""

    path: Path
    text: str
    read: str
    """The text that the file had when it was opened; `save` refuses where it no longer has it."""

    @property
    def constitution(self) -> Constitution:
        """What the text means, `extends` followed."""
        return load_text(self.text, self.path)

    @property
    def own_ids(self) -> tuple[str, ...]:
        """Ids of the principles in the file itself, without those that it extends."""
        return tuple(principle.id for principle in _principles(self.text) or ())


def open_document(path: str | Path) -> Document:
    """The file for editing. ConstitutionError where it does not load: a broken file is mended by hand."""
    path = Path(path)
    load(path)
    text = path.read_bytes().decode("utf-8")
    return Document(path, text, text)


def new_principle(values: Mapping[str, Any], check: str = "") -> Principle:
    """A principle from values by the names of the file's keys; `check` is YAML, as "{max_words: 60}".

    ConstitutionError with all that is wrong with them.
    """
    shown = "the new principle"
    try:
        parsed = parse(check) if check else {}
    except YAMLError as error:
        words = " ".join(str(getattr(error, "problem", error)).split())
        raise ConstitutionError([FileFault(shown, 0, f"the check {check!r} ({words})", "YAML")]) from error
    text = yaml_text({"name": "x", "principles": [{**values, **({"check": parsed} if check else {})}]})
    reading = read(text, shown)
    if reading.content is None:
        raise ConstitutionError([fault._replace(line=0) for fault in reading.faults])
    return reading.content.principles[0]


def with_principle(document: Document, principle: Principle) -> Document:
    """The document with one principle more at its end. UserError where the file itself has the id."""
    if principle.id in document.own_ids:
        raise UserError(
            f"{document.path} already has a principle {principle.id!r}; wanted a new id: choose another, "
            "or remove that one first"
        )
    return _checked(document, _added(document.text, principle))


def without_principle(document: Document, principle_id: str) -> Document:
    """The document without one of its own principles; comment lines above it stay.

    UserError where the file has none of that id, or where none would be left.
    """
    place = _own_place(document, principle_id)
    if len(document.constitution.principles) == 1:
        raise UserError(
            f"{principle_id!r} is the only principle of {document.path}; wanted one to be left: add another"
        )
    return _checked(document, _removed(document.text, place))


def with_examples(text: str, principle_id: str, examples: Sequence[Example]) -> str:
    """A constitution's text with further examples at the end of those of one of its own principles.

    UserError where the text has no such principle, or an example cannot stand in a file.
    """
    own = _principles(text) or ()
    ids = [principle.id for principle in own]
    if principle_id not in ids:
        raise UserError(f"there is no principle {principle_id!r} of its own; wanted one of {', '.join(ids)}")
    place = ids.index(principle_id)
    # as a file is read: without the space around a text
    data = [
        {name: value.strip() for name, value in example.model_dump(exclude_defaults=True).items()}
        for example in examples
    ]
    added = tuple(Example.model_validate(example) for example in data)
    more = own[place].model_copy(update={"examples": (*own[place].examples, *added)})
    wanted = (*own[:place], more, *own[place + 1 :])
    try:
        edited = _with_lines(text, place, data)
        if _principles(edited) != wanted:
            tree = parse(text)
            tree["principles"][place].setdefault("examples", []).extend(data)
            edited = _written(tree)
        fits = _principles(edited) == wanted
    except (YAMLError, ValueError):
        fits = False
    if not fits:
        raise UserError(
            f"an example for {principle_id!r} is empty or has characters that YAML does not take; write another"
        )
    return edited


def _with_lines(text: str, place: int, examples: list[dict[str, str]]) -> str:
    """With lines put in, so that all others stay; the text as it is where the principle does not stand in a block."""
    tree = parse(text)
    if not _is_block(tree) or tree["principles"][place].fa.flow_style():
        return text
    lines, principle = text.splitlines(keepends=True), tree["principles"][place]
    newline = "\r\n" if "\r\n" in text else "\n"
    there = principle.get("examples")
    if not there:
        end, margin = _end(tree["principles"], lines, place), " " * principle.lc.col
        own = "".join(f"{margin}{line}{newline}" for line in yaml_text({"examples": examples}).splitlines())
    elif there.fa.flow_style():
        return text
    else:
        end, dash = _end(there, lines, len(there) - 1), _dash_column(there, lines)
        own = "".join(_item(example, dash, newline) for example in examples)
    return _inserted(lines, end, own, newline)


def with_wording(document: Document, principle_id: str, text: str) -> Document:
    """The document with another `text` of one of its own principles. UserError where the file has none of that id."""
    return _checked(document, _reworded(document.text, _own_place(document, principle_id), text))


def save(document: Document) -> None:
    """Replace the file in one step; on any error it stays as it was."""
    try:
        if document.path.read_bytes().decode("utf-8", "replace") != document.read:
            raise UserError(f"{document.path} was changed by somebody else in the meantime; open it again")
        write_text(document.path, document.text, mode=document.path.stat().st_mode & 0o777)
    except OSError as error:
        raise UserError(
            f"cannot write {document.path}: {error.strerror}; wanted a file that is writable"
        ) from error


def write_text(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file by way of a temporary one beside it, so that it is there whole or not at all. OSError as
    it comes."""
    path = path.resolve()
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "w", encoding="utf-8", newline="") as stream:
            stream.write(text)
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _own_place(document: Document, principle_id: str) -> int:
    """Which of the file's own principles it is, from 0. UserError where the file has none of that id."""
    ids = document.own_ids
    if principle_id not in ids:
        raise UserError(
            f"{document.path} has no principle {principle_id!r} of its own; "
            f"wanted one of {', '.join(ids) or 'none'}"
        )
    return ids.index(principle_id)


def _checked(document: Document, text: str) -> Document:
    """Only a text that loads becomes a document."""
    load_text(text, document.path)
    return document._replace(text=text)


def _principles(text: str) -> tuple[Principle, ...] | None:
    """Those of the file itself; None for a text that is broken."""
    content = read(text, "").content
    return content.principles if content else None


def _added(text: str, principle: Principle) -> str:
    tree = parse(text)
    wanted = (*(_principles(text) or ()), principle)
    data = principle.model_dump(mode="json", exclude_defaults=True)
    if _is_block(tree):
        lines = text.splitlines(keepends=True)
        end = _end(tree["principles"], lines, len(wanted) - 2)
        newline = "\r\n" if "\r\n" in text else "\n"
        item = _item(data, _dash_column(tree["principles"], lines), newline)
        edited = _inserted(lines, end, item, newline)
        if _principles(edited) == wanted:
            return edited
    if tree.get("principles"):
        tree["principles"].append(data)
    else:
        tree["principles"] = [data]
    return _written(tree)


def _inserted(lines: list[str], place: int, more: str, newline: str) -> str:
    """The lines with others before this one; a last line without its break gets it."""
    before = "".join(lines[:place])
    return "".join([before, "" if before.endswith("\n") else newline, more, *lines[place:]])


def _item(data: dict[str, Any], dash: int, newline: str) -> str:
    """One item of a block sequence whose dash stands in this column, with its line break."""
    margin = " " * 2  # where `yaml_text` puts the dash of a sequence
    lines = (line.removeprefix(margin) for line in yaml_text([data]).splitlines())
    return "".join(f"{' ' * dash}{line}{newline}" if line else newline for line in lines)


def _removed(text: str, place: int) -> str:
    tree = parse(text)
    own = _principles(text) or ()
    if _is_block(tree):
        lines = text.splitlines(keepends=True)
        alone = len(own) == 1  # then the key goes, too
        start = tree.lc.key("principles")[0] if alone else tree["principles"].lc.item(place)[0]
        edited = "".join([*lines[:start], *lines[_end(tree["principles"], lines, place) :]])
        if _principles(edited) == own[:place] + own[place + 1 :]:
            return edited
    if len(own) == 1:
        del tree["principles"]
    else:
        del tree["principles"][place]
    return _written(tree)


def _reworded(text: str, place: int, words: str) -> str:
    tree = parse(text)
    own = _principles(text) or ()
    wanted = (*own[:place], own[place].model_copy(update={"text": words}), *own[place + 1 :])
    item = tree["principles"][place]
    if _is_block(tree) and not item.fa.flow_style():
        lines = text.splitlines(keepends=True)
        start, column = item.lc.key("text")
        newline = "\r\n" if "\r\n" in text else "\n"
        first, *more = yaml_text({"text": words}).splitlines()
        made = [f"{lines[start][:column]}{first}{newline}"]
        made += [f"{' ' * column}{line}{newline}" if line else newline for line in more]
        edited = "".join([*lines[:start], *made, *lines[_value_end(tree, lines, place, start, column) :]])
        if _principles(edited) == wanted:
            return edited
    item["text"] = words
    return _written(tree)


def _value_end(tree: Any, lines: list[str], place: int, start: int, column: int) -> int:
    """0-based line after the value of the key at this place; comments at the key or left of it follow it."""
    starts = (tree["principles"][place].lc.key(key)[0] for key in tree["principles"][place])
    end = min([int(line) for line in starts if line > start], default=_end(tree["principles"], lines, place))
    while end > start + 1 and _is_between(lines[end - 1], column):
        end -= 1
    return end


def _is_block(tree: Any) -> bool:
    principles = tree.get("principles")
    return isinstance(principles, CommentedSeq) and bool(principles) and not principles.fa.flow_style()


def _dash_column(sequence: Any, lines: list[str]) -> int:
    line = lines[sequence.lc.item(0)[0]]
    return len(line) - len(line.lstrip(" "))


def _end(sequence: Any, lines: list[str], place: int) -> int:
    """0-based line after the item's last; comments at the dash or left of it belong to what follows."""
    dash = _dash_column(sequence, lines)
    if place + 1 < len(sequence):
        end = int(sequence.lc.item(place + 1)[0])
    else:
        last = sequence.lc.item(place)[0]
        end = next((n for n in range(last + 1, len(lines)) if _ends_sequence(lines[n], dash)), len(lines))
    while end > 0 and _is_between(lines[end - 1], dash):
        end -= 1
    return end


def _ends_sequence(line: str, dash: int) -> bool:
    column = len(line) - len(line.lstrip(" "))
    return bool(line.strip()) and not line.lstrip().startswith("#") and column <= dash


def _is_between(line: str, dash: int) -> bool:
    bare = line.strip()
    return not bare or (bare.startswith("#") and len(line) - len(line.lstrip(" ")) <= dash)


def _written(tree: Any) -> str:
    """The file by ruamel, for what cannot be edited as lines."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 106
    stream = io.StringIO()
    yaml.dump(tree, stream)
    return stream.getvalue()
