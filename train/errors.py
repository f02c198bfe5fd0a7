"""Errors of training that a user can mend.

UserError (constitution.errors)
  TrainDataError    rows that cannot be trained on: broken, empty, none of them usable
  CheckpointError   a model or adapter that cannot be loaded: misspelt, incomplete, of another shape
  RunFolderError    an output folder that cannot be used: not writable, or begun with other settings
  MemoryShortError  a step that does not fit in memory however it is cut
"""

from __future__ import annotations

from preceptor.constitution.errors import UserError


class TrainDataError(UserError):
    """Rows that cannot be trained on; names the file, the line and what was wanted."""


class CheckpointError(UserError):
    """A model or adapter folder that cannot be used, and what is wrong with it."""


class RunFolderError(UserError):
    """An output folder that cannot be used, and what to do about it."""


class MemoryShortError(UserError):
    """Not even the smallest part of a step fits in memory, and what can be made smaller."""
