"""`constitution edit`: the user's own editor on a copy; a broken file never takes a good one's place."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from preceptor.constitution.edit import Document, open_document, save
from preceptor.constitution.errors import ConstitutionError, UserError
from preceptor.constitution.files import load_text, shipped
from preceptor.constitution.lint import lint

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
    usable: bool
    """Whether it can be kept as it is: a constitution that lint has only warned about."""


Choose = Callable[[Trouble], str]
"""Shows trouble and asks: `e` edit again, `g` give up, and `k` keep it where it is usable."""


def edit(path: Path, choose: Choose, warn: Callable[[str], object]) -> Edited:
    """Open the file's copy in the editor until it is good or given up, then replace the file in one step.

    Raises UserError where the file is no constitution file of one's own, where there is no editor or it fails, and
    where somebody else has changed the file meanwhile. Unless it was given up, a changed copy stays beside the file.
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
        ended = False
        try:
            after = _until_good(before, copy, editor, choose)
            if after is not None:
                save(after)
            ended = True
        finally:
            # whatever went wrong, the words are the user's
            if ended or not copy.exists() or copy.read_bytes() == before.text.encode():
                copy.unlink(missing_ok=True)
            else:
                warn(f"your text is kept in {copy}")
    return Edited(before, after)


def _until_good(before: Document, copy: Path, editor: list[str], choose: Choose) -> Document | None:
    line = 0
    while True:
        run_editor(editor, copy, line)
        try:
            data = copy.read_bytes()
        except OSError as error:
            raise UserError(f"{' '.join(editor)} left no file behind; {before.path} is as it was") from error
        if data == before.text.encode():
            return None
        trouble = trouble_in(data, before)
        if trouble is None:
            return before._replace(text=data.decode())
        answer = choose(trouble)
        if answer == "g":
            return None
        if answer == "k" and trouble.usable:
            return before._replace(text=data.decode())
        line = trouble.first_line


def trouble_in(data: bytes, before: Document) -> Trouble | None:
    """Faults of a text that does not load, each with its line, or what lint finds in it and not in the text before."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        return Trouble((f"{before.path}:{line}: not UTF-8; save the file as UTF-8",), line, False)
    try:
        constitution = load_text(text, before.path)
    except ConstitutionError as error:
        first = next((fault.line for fault in error.faults if fault.line), 0)
        return Trouble(tuple(str(fault) for fault in error.faults), first, False)
    known = set(lint(before.constitution))
    remarks = [remark for remark in lint(constitution) if remark not in known]
    if not remarks:
        return None
    usable = all(remark.severity != "error" for remark in remarks)
    return Trouble(tuple(map(str, remarks)), _place(text, remarks[0].principle), usable)


def _place(text: str, principle: str) -> int:
    """The line on which a principle's id stands; 0 where there is none, as of an inherited one."""
    if not principle:
        return 0
    found = re.search(rf"^\s*-?\s*id:\s*[\"']?{re.escape(principle)}\b", text, re.MULTILINE)
    return text[: found.end()].count("\n") + 1 if found else 0


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
        mark.unlink(missing_ok=True)
        with suppress(FileExistsError), mark.open("x") as file:
            file.write(str(os.getpid()))
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
