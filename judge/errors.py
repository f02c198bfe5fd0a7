"""Errors of asking models.

ModelError                  a request that was not answered
  Transient                 may succeed on a second try: rate limit, overload, timeout
  Unreadable                an answer that was paid for and cannot be read: asked for once more
  Rejected                  this request can never succeed: too long, refused by a filter, malformed
  ProviderStopped           no request can succeed: key, model, quota, nobody listening   exit code 4
BudgetReached               the cap would be passed; what is done is valid and resumable  exit code 3
UserError (constitution.errors)
  UnknownModel              a model name that nobody answers to
  RetiredModel              a model that its provider has shut down
  LedgerError               a ledger that cannot be opened, or was written by a newer version
  PairsError                pairs, labels or gold that a stage cannot use
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from preceptor.constitution.errors import UserError

if TYPE_CHECKING:
    from preceptor.judge.models.protocol import Completion


class ModelError(Exception):
    """A request that was not answered, in the provider's words."""

    paid: Completion | None = None
    """What came for it and was paid for, though it is no answer; its tokens are on the bill."""


class Transient(ModelError):
    """May succeed later; `retry_after_s` is the provider's wish, None where it has none."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Rejected(ModelError):
    """This request can never succeed; others may. `refused` tells a filter's refusal from a fault."""

    def __init__(self, message: str, refused: bool = False, paid: Completion | None = None) -> None:
        super().__init__(message)
        self.refused = refused
        self.paid = paid


class Unreadable(ModelError):
    """A reply came and was paid for, and nobody can read it."""

    def __init__(self, message: str, paid: Completion) -> None:
        super().__init__(message)
        self.paid = paid


class ProviderStopped(ModelError):
    """No request can succeed until the user does something about it."""

    exit_code = 4


class BudgetReached(Exception):
    """The next call could pass the cap. Everything answered so far is in the ledger."""

    exit_code = 3


class UnknownModel(UserError):
    """A model name that nobody answers to; the message lists the names that there are."""


class RetiredModel(UserError):
    """A model that its provider has shut down; the message names its successor."""


class LedgerError(UserError):
    """A ledger that cannot be used, and what to do about it."""


class PairsError(UserError):
    """Rows that a stage cannot use."""


def own(error: Exception) -> Exception:
    """An equal error for one more waiter, with the traceback so far.

    One object raised in several tasks would gather the tracebacks of all of them.
    """
    try:
        made = copy.copy(error)
    except Exception:  # its class cannot be made of what it keeps
        made = RuntimeError(f"{type(error).__name__}: {error}")
    made.__cause__ = error.__cause__
    made.__context__ = error.__context__
    made.__suppress_context__ = error.__suppress_context__
    return made.with_traceback(error.__traceback__)
