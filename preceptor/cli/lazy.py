"""Commands that are imported when they are chosen, so that `preceptor --help` reads no settings and loads nothing."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from preceptor.cli.flags import with_flags


class Entry(NamedTuple):
    """A command, before it is imported."""

    target: str
    """`module:function`, or `module:app` of a group of commands."""
    panel: str | None = None
    """The heading in the list of commands."""


class Deferred(TyperCommand):
    """Stands for a command in the list; the command itself takes its place as soon as it is called."""

    def __init__(self, name: str, entry: Entry) -> None:
        super().__init__(name=name, rich_help_panel=entry.panel)
        self.entry = entry

    @property
    def short_help(self) -> str:
        """The line in the list of commands, read when the list is shown."""
        return summary_of(*self.entry.target.split(":"))

    @short_help.setter
    def short_help(self, _: str | None) -> None:
        """What the class above sets is not known yet."""

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


def summary_of(module: str, name: str) -> str:
    """The first line of a function's docstring, or of its module's for a group: read in the source, without importing
    it. Empty where the source is not there."""
    spec = find_spec(module)
    source = getattr(spec and spec.loader, "get_source", lambda _: None)(module)
    tree = ast.parse(source or "")
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    words = ast.get_docstring(next(functions, tree)) or ""
    return words.partition("\n")[0]


def lazy(commands: Mapping[str, Entry]) -> type[TyperGroup]:
    """A group of these commands, in this order, after those that are registered on it."""

    class Lazy(TyperGroup):
        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            self.commands.update({name: Deferred(name, entry) for name, entry in commands.items()})

    return Lazy
