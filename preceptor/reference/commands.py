"""The reference of the command line, docs/cli.md: every command and flag, and every key of a run file.

python -m preceptor.reference.commands > docs/cli.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from typer.main import get_command

from preceptor.cli.app import app
from preceptor.cli.flags import describe, settings_in
from preceptor.cli.lazy import Deferred
from preceptor.run.config import RunConfig

HEAD = """\
# Command line

Written by `make docs` from the settings and commands themselves; a test holds it to them. `preceptor COMMAND --help`
says the same. A flag that is not given leaves the default that stands beside it; a switch is off where none does.
"""
KEYS = """\
## Run files

The keys of a run file (`preceptor run RUN.yaml`), and of `section.key=value` on the command line. A section in italics
is absent unless it is written.
"""


def reference() -> str:
    """The page."""
    told: dict[str, str] = {}
    parts = [
        HEAD,
        *(_command(words, command, told) for words, command in commands()),
        KEYS,
        *_keys(RunConfig, ""),
    ]
    return "\n".join(parts).rstrip() + "\n"


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command by its words, loaded."""
    root: Any = group or get_command(app)
    for name, found in root.commands.items():
        loaded = found.load() if isinstance(found, Deferred) else found
        if hasattr(loaded, "commands"):
            yield from commands(loaded, (*path, name))
        else:
            yield " ".join((*path, name)), loaded


def _command(words: str, command: Any, told: dict[str, str]) -> str:
    """A command's part. told: flags of a panel -> the command under which they were told, to which others point."""
    shown = [one for one in command.params if not getattr(one, "hidden", False)]
    named = " ".join(one.name.upper() for one in shown if one.param_type_name == "argument")
    needed = [one for one in shown if one.required and one.param_type_name == "option"]
    must = " ".join(f"{one.opts[0]} {one.metavar or 'TEXT'}" for one in needed)
    lines = [
        f"## {words}\n",
        f"`preceptor {' '.join(filter(None, [words, named, must]))}`\n",
        f"{command.help}\n",
    ]
    panels: dict[str, list[str]] = {}
    for one in shown:
        if one.param_type_name == "argument":
            panels.setdefault("", []).append(f"- `{one.name.upper()}`: {_plain(one.help)}")
        elif one.name not in ("install_completion", "show_completion"):
            spelled = ", ".join(f"`{flag}`" for flag in one.opts)
            value = f" `{one.metavar}`" if one.metavar else ""
            panels.setdefault(one.rich_help_panel or "", []).append(f"- {spelled}{value}: {_plain(one.help)}")
    for panel, items in panels.items():
        first = told.setdefault("\n".join([panel, *items]), words)
        if panel and first != words:
            lines += [f"**{panel}**: as of `{first}`.", ""]
        else:
            lines += [*([f"**{panel}**\n"] if panel else []), *items, ""]
    return "\n".join(lines)


def _plain(text: str | None) -> str:
    """Without the escapes that a terminal's markup takes."""
    return (text or "").replace("\\[", "[")


def _keys(kind: type[BaseModel], path: str) -> Iterator[str]:
    """The keys of a section, then those of the sections in it."""
    sections = []
    lines = []
    for name, info in kind.model_fields.items():
        if (inner := settings_in(info.annotation)) is not None:
            sections.append((f"{path}{name}", inner, info.get_default() is None and not info.is_required()))
            continue
        lines.append(f"- `{path}{name}`: {_plain(describe(kind, name, whole=True))}")
    yield "\n".join(lines) + "\n"
    for name, inner, absent in sections:
        yield f"### {f'*{name}*' if absent else name}\n"
        if words := _plain(describe(kind, name.rpartition(".")[2], whole=True)):
            yield f"{words}\n"
        yield from _keys(inner, f"{name}.")


if __name__ == "__main__":
    sys.stdout.write(reference())
