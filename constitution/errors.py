"""Errors that a user can mend.

    UserError               bad input or usage: one clear message, exit code 2
      ConstitutionError     all faults of a constitution file at once, each with file and line

The other packages hang their own user errors under `UserError`; `preceptor/cli` turns `exit_code` into the
process's exit status and prints the message alone, never a traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C or SIGTERM stopped; the same command goes on."""


class UserError(Exception):
    """Says what came, what was wanted and what to do, in words for the person at the terminal."""

    exit_code = 2


class FileFault(NamedTuple):
    """One thing wrong at one place of a file."""

    file: str
    line: int  # 1-based; 0 where the fault concerns the whole file
    came: str
    wanted: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.came}; wanted {self.wanted}"


class ConstitutionError(UserError):
    """A constitution file that cannot be used; `faults` holds everything found in it, in file order."""

    def __init__(self, faults: Sequence[FileFault]) -> None:
        self.faults = tuple(faults)
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        super().__init__(
            "\n".join([f"the constitution has {count}:", *(f"  {fault}" for fault in self.faults)])
        )
