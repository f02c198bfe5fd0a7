"""`constitution edit`: the user's own editor on a copy; a broken file never takes a good one's place."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from constitution.edit import Document, open_document, save
from constitution.errors import ConstitutionError, UserError
from constitution.files import load_text, shipped
from constitution.lint import Remark, lint

FALLBACKS = ("nano", "vim", "vi")
"""Looked for where neither VISUAL nor EDITOR is set."""
PLUS_LINE = (
    "vi",
    "vim",
    "nvim",
    "nano",
    "emacs",
    "emacsclient",
    "ed",
    "joe",
    "micro",
    "kak",
    "hx",
    "ne",
    "mg",
)
"""Editors that take `+LINE FILE`."""


class Edited(NamedTuple):
    """How an editing session ended."""

    before: Document
    after: Document | None
    """None: nothing was changed, or the change was given up."""


class Trouble(NamedTuple):
    """What is wrong with an edited text."""

    lines: tuple[str, ...]
    first_line: int
    """Where the editor opens again; 0: nowhere in particular."""
    broken: bool
    """Whether it is no constitution; else these are lint's remarks."""


Choose = Callable[[Trouble], str]
"""Shows trouble and asks: `e` edit again, `g` give up, and `k` keep it where it is not broken."""


def edit(path: Path, choose: Choose, warn: Callable[[str], object]) -> Edited:
    """Open the file's copy in the editor until it is good or given up, then replace the file in one step.

    Raises UserError where the file is no constitution file of one's own, where there is no editor, and where somebody
    else has changed the file meanwhile: the copy is then left beside it.
    """
    if not path.exists() and str(path) in shipped():
        raise UserError(
            f"{path} comes with Preceptor and is not yours to change; write `extends: [{path}]` in a file of your own: "
            "preceptor constitution new NAME"
        )
    before = open_document(path)
    editor = find_editor()
    copy = path.with_name(f".{path.stem}.edit-{os.getpid()}.yaml")
    with lock(path, warn):
        copy.write_text(before.text, encoding="utf-8", newline="")
        keep = False
        try:
            after = _until_good(before, copy, editor, choose)
            if after is not None and after.text != before.text:
                keep = True  # what follows can fail, and the words are the user's
                save(after)
                keep = False
                return Edited(before, after)
            return Edited(before, None)
        except UserError as error:
            if not keep:
                raise
            raise UserError(f"{error}; your text is kept in {copy}") from error
        finally:
            if not keep:
                copy.unlink(missing_ok=True)


def _until_good(before: Document, copy: Path, editor: list[str], choose: Choose) -> Document | None:
    line = 0
    while True:
        run_editor(editor, copy, line)
        text = copy.read_bytes().decode("utf-8", "replace")
        if text == before.text:
            return None
        trouble = trouble_in(text, before.path)
        if trouble is None:
            return before._replace(text=text)
        answer = choose(trouble)
        if answer == "g":
            return None
        if answer == "k" and not trouble.broken:
            return before._replace(text=text)
        line = trouble.first_line


def trouble_in(text: str, path: Path) -> Trouble | None:
    """Faults of a text that does not load, each with its line, or lint's remarks on one that does."""
    try:
        constitution = load_text(text, path)
    except ConstitutionError as error:
        first = next((fault.line for fault in error.faults if fault.line), 0)
        return Trouble(tuple(str(fault) for fault in error.faults), first, True)
    remarks = lint(constitution)
    return Trouble(tuple(map(_line, remarks)), 0, False) if remarks else None


def _line(remark: Remark) -> str:
    whose = f"{remark.principle}: " if remark.principle else ""
    return f"{remark.severity}: {whose}{remark.what}; {remark.todo}"


def find_editor() -> list[str]:
    """The command of the user's editor. Raises UserError where there is none."""
    for name in ("VISUAL", "EDITOR"):
        if words := shlex.split(os.environ.get(name, "")):
            if shutil.which(words[0]) is None:
                raise UserError(f"{name} names {words[0]!r}, which is not there; wanted an editor's command")
            return words
    for name in FALLBACKS:
        if shutil.which(name):
            return [name]
    raise UserError("there is no editor; set EDITOR to your editor's command, such as `export EDITOR=nano`")


def run_editor(editor: list[str], file: Path, line: int) -> None:
    """Wait for the editor on a file, at a line where one is given. Raises UserError where it fails."""
    name = Path(editor[0]).name
    where = [str(file)]
    if name in ("code", "codium", "cursor"):
        editor = [*editor, *(["--wait"] if "--wait" not in editor and "-w" not in editor else [])]
        where = ["--goto", f"{file}:{line}"] if line else where
    elif line and name in PLUS_LINE:
        where = [f"+{line}", str(file)]
    done = subprocess.run([*editor, *where], check=False)
    if done.returncode:
        raise UserError(f"{' '.join(editor)} ended with {done.returncode}; nothing was changed")


@contextmanager
def lock(path: Path, warn: Callable[[str], object]) -> Iterator[None]:
    """Says who else edits the file; a lock whose process is gone is taken over."""
    mark = path.with_name(f".{path.name}.lock")
    owner = _owner(mark)
    if owner is not None:
        warn(f"{path} is being edited by process {owner} too; whoever saves second will be told")
    else:
        mark.write_text(str(os.getpid()))
    try:
        yield
    finally:
        if owner is None:
            mark.unlink(missing_ok=True)


def _owner(mark: Path) -> int | None:
    """The process that holds a lock; None where none does any more."""
    try:
        owner = int(mark.read_text())
        os.kill(owner, 0)
    except PermissionError:
        return owner  # it is there and somebody else's
    except (OSError, ValueError):
        return None
    return owner
