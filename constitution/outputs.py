"""The files that this command writes its result to: what reads a file refuses to read one of them, because the result
would take its place."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from preceptor.constitution.errors import UserError


class _Output(NamedTuple):
    path: Path
    before: tuple[int, int] | None
    """Device and number of the file that was there when the command began; None: there was none."""


_outputs: list[_Output] = []


def will_write(paths: Iterable[str | Path]) -> None:
    """Say which files the command of this process writes, before it reads anything."""
    _outputs[:] = [_Output(path, _number(path)) for path in map(Path, paths)]


def refuse_output(path: str | Path) -> None:
    """Raises UserError where the file that is about to be read is one that the command would write over.

    What the command has written itself may be read.
    """
    if not _outputs or (number := _number(Path(path))) is None:
        return
    for out in _outputs:
        if number == out.before == _number(out.path):
            raise _refused(out.path, path)


def refuse_output_at(paths: Iterable[Path]) -> None:
    """The same for files that the command keeps open, a database: also where they are only about to be made."""
    for path in paths:
        refuse_output(path)
        for out in _outputs:
            if _place(out.path) == _place(path):
                raise _refused(out.path, path)


def refuse_output_in(folder: Path) -> None:
    """The same for every file that lies in a folder, a model's."""
    for out in _outputs:
        if out.before is not None and _place(out.path).is_relative_to(_place(folder)):
            raise _refused(out.path, folder)


def _refused(out: Path, read: str | Path) -> UserError:
    whose = "" if str(out) == str(read) else f", as {read}"
    return UserError(
        f"--out {out} is an input{whose}: this command reads it; name another file, so that it stays as it was"
    )


def _number(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except (OSError, ValueError):  # a word that is no path at all
        return None
    return state.st_dev, state.st_ino


def _place(path: Path) -> Path:
    try:
        return path.expanduser().resolve()
    except (OSError, RuntimeError, ValueError):
        return path.absolute()
