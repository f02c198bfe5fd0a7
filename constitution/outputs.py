"""The files that this command writes its result to: what reads a file refuses to read one of them, because the result
would take its place."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from preceptor.constitution.errors import UserError


class _Output(NamedTuple):
    flag: str
    path: Path
    before: tuple[int, int] | None
    """Device and number of the file that was there when the command began; None: there was none."""


OF_MODELS = frozenset({".json", ".safetensors", ".gguf", ".txt", ".model", ".jinja", ".bin"})
"""Endings of the files that a model is made of; rows may lie among them."""
_outputs: list[_Output] = []


def will_write(named: Iterable[tuple[str, str]]) -> None:
    """Say which files the command of this process writes, before it reads anything.

    named: flags with the paths that were given for them; those of an earlier call count no more.
    """
    _outputs[:] = [_Output(flag, Path(path), _number(Path(path))) for flag, path in named]


def refuse_output(path: str | Path) -> None:
    """Raises UserError where the file that is about to be read is one that the command would write over.

    What the command has written itself may be read.
    """
    if not _outputs or (number := _number(Path(path))) is None:
        return
    for out in _outputs:
        if number == out.before == _number(out.path):
            raise _refused(out, path)


def refuse_output_at(paths: Iterable[Path]) -> None:
    """The same for files that the command keeps open, a database: also where they are only about to be made."""
    for path in paths:
        refuse_output(path)
        for out in _outputs:
            if _place(out.path) == _place(path):
                raise _refused(out, path)


def refuse_output_in(model: str | Path) -> None:
    """The same for a model's files. model: its folder or file; what is neither has none."""
    if not str(model) or not Path(model).expanduser().exists():
        return
    for out in _outputs:
        inside = _place(out.path).is_relative_to(_place(Path(model)))
        if inside and out.before is not None and out.path.suffix in OF_MODELS:
            raise _refused(out, model)


def _refused(out: _Output, read: str | Path) -> UserError:
    whose = "" if str(out.path) == str(read) else f" {read}, which this command reads"
    return UserError(
        f"{out.flag} {out.path} is the input{whose}; name another file, so that the input stays as it was"
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
