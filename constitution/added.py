"""What other packages add by an entry point, loaded with a word about the package where it cannot be."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

from preceptor.constitution.errors import UserError

REMEDY = "update the package, or uninstall it"


def named(kind: str, entry: EntryPoint) -> str:
    """As messages name it: `the check NAME of the package PACKAGE`."""
    package = entry.dist.name if entry.dist else entry.module
    return f"the {kind} {entry.name} of the package {package}"


def loaded(entry: EntryPoint, said: str, error: type[UserError] = UserError, remedy: str = REMEDY) -> Any:
    """What the entry point names. said: how a message calls it. Raises `error` where it cannot be loaded."""
    try:
        return entry.load()
    # another package's code: whatever it raises, it is told and not shown as ours
    except Exception as exc:
        raise error(f"{said} cannot be loaded ({type(exc).__name__}: {exc}); {remedy}") from exc
