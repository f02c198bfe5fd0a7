"""Small files and JSON that somebody else may have written.

They are read here alone, so that no pipe is waited for, no huge file fills the memory, and whatever is wrong with JSON
is a ValueError.
"""

from __future__ import annotations

import errno
import json
import stat
from pathlib import Path
from typing import Any

from preceptor.constitution.outputs import refuse_output

LARGEST_FILE = 64 * 2**20
"""Bytes of a file that is read whole: a constitution, a template, a configuration."""


class UnfitFileError(OSError):
    """A file that is not opened at all: a pipe, a device, or one that is too large."""

    def __init__(self, path: Path, came: str, wanted: str) -> None:
        super().__init__(errno.EINVAL, f"{came}; wanted {wanted}", str(path))
        self.came, self.wanted = came, wanted


def bytes_in(path: str | Path, most: int | None = LARGEST_FILE) -> bytes:
    """What a plain file holds. most: bytes that it may have; None: any number.

    Raises OSError, of which UnfitFileError is one, and UserError where the command would write its result there.
    """
    path = Path(path)
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode) and not stat.S_ISDIR(state.st_mode):
            raise UnfitFileError(path, "a pipe or device", "a plain file")
        if most is not None and state.st_size > most:
            raise UnfitFileError(path, f"a file of {state.st_size} bytes", f"at most {most}")
        refuse_output(path)
        return path.read_bytes()
    except ValueError as exc:  # a name that no file can have
        raise OSError(errno.EINVAL, str(exc), str(path)) from exc


def text_in(path: str | Path, most: int | None = LARGEST_FILE) -> str:
    """The same as UTF-8 text with its line ends as `\\n`. Raises UnicodeDecodeError as well, which is a ValueError."""
    return bytes_in(path, most).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def json_of(text: str | bytes, **hooks: Any) -> Any:
    """The value that JSON says. hooks: of `json.loads`.

    Raises ValueError for whatever is no JSON, is nested too deep, or holds a number of too many digits.
    """
    try:
        return json.loads(text, **hooks)
    except RecursionError as exc:
        raise ValueError("it is nested too deep") from exc


def json_in(path: str | Path) -> Any:
    """The value in a JSON file. Raises OSError and ValueError as `text_in` and `json_of` do."""
    return json_of(text_in(path))
