"""Commands that are imported when they are chosen, so that `preceptor --help` reads no settings and loads nothing."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from preceptor.cli.flags import with_flags


class Entry(NamedTuple):
    """A command, before it is imported."""

    target: str
    """`module:function`, or `module:app` of a group of commands."""
    help: str
    """The line in the list of commands: the first of the function's docstring, or the group's help."""
    panel: str | None = None
    """The heading in the list of commands."""


class Deferred(TyperCommand):
    """Stands for a command in the list; the command itself takes its place as soon as it is called."""

    def __init__(self, name: str, entry: Entry) -> None:
        super().__init__(name=name, help=entry.help, rich_help_panel=entry.panel)
        self.entry = entry

    def load(self) -> Any:
        """The command, imported and with its flags."""
        module, _, attribute = self.entry.target.partition(":")
        found = getattr(importlib.import_module(module), attribute)
        if isinstance(found, typer.Typer):
            return get_command(found)
        alone = typer.Typer(add_completion=False)
        alone.command(self.name)(with_flags(found))
        return get_command(alone)

    def make_context(self, *args: Any, **extra: Any) -> Any:
        """The loaded command's context, so that the command is what is parsed, helped and run."""
        return self.load().make_context(*args, **extra)


def lazy(commands: Mapping[str, Entry]) -> type[TyperGroup]:
    """A group of these commands, in this order, after those that are registered on it."""

    class Lazy(TyperGroup):
        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            self.commands.update({name: Deferred(name, entry) for name, entry in commands.items()})

    return Lazy
