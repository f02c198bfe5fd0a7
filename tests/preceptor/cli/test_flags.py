"""Flags are the fields of settings: property by property, over every command that there is."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from pydantic import Field
from typer.main import get_command
from typer.testing import CliRunner

from preceptor.cli.app import app
from preceptor.cli.flags import Bundle, Flags, bundles_of, given, with_flags
from preceptor.cli.lazy import Deferred, Entry, summary_of
from preceptor.constitution.errors import UserError
from preceptor.prompts.records import Settings
from preceptor.reference.commands import reference
from preceptor.settings import Asking


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any, Entry | None]]:
    """Every command: its words, the command itself, and what the list says of it."""
    for name, found in (group or get_command(app)).commands.items():
        words = (*path, name)
        entry = found.entry if isinstance(found, Deferred) else None
        loaded = found.load() if isinstance(found, Deferred) else found
        if hasattr(loaded, "commands"):
            yield from commands(loaded, words)
        else:
            yield " ".join(words), loaded, entry


COMMANDS = {words: (command, entry) for words, command, entry in commands()}
MADE = [
    pytest.param(words, bundle, id=f"{words}: {bundle.kind.__name__}")
    for words, (_, entry) in COMMANDS.items()
    if entry is not None
    for bundle in bundles_of(
        getattr(import_module(entry.target.partition(":")[0]), entry.target.partition(":")[2])
    )
]


@pytest.mark.parametrize(("words", "bundle"), MADE)
def test_every_field_is_a_flag_or_left_out_by_name(words: str, bundle: Bundle) -> None:
    """And the flag shows the field's own default, or the command's in its place."""
    options = {one.name: one for one in COMMANDS[words][0].params}
    for name, info in bundle.flags.fields(bundle.kind):
        option = options[bundle.flags.key(name)]
        assert option.hidden == bundle.flags.hidden if name != bundle.flags.argument else True
        default = bundle.flags.defaults.get(name, None if info.is_required() else info.get_default())
        if isinstance(default, str | int | float) and default not in (False, "", True) and not option.hidden:
            assert f"[default: {default}]" in option.help.replace("\\[", "["), name
        assert option.help or bundle.flags.hidden, f"{bundle.kind.__name__}.{name} has no words under it"


@pytest.mark.parametrize("words", COMMANDS)
def test_the_list_of_commands_says_what_the_command_says(words: str) -> None:
    """Though it is shown before the command is imported."""
    command, entry = COMMANDS[words]
    assert command.help, words
    if entry is not None:
        assert summary_of(*entry.target.split(":")) == inspect.cleandoc(command.help).splitlines()[0]


@pytest.mark.parametrize("words", COMMANDS)
def test_one_flag_has_one_meaning(words: str) -> None:
    """No command gives two options the same spelling, and one spelling takes a value everywhere or nowhere."""
    spelled = [one for option in COMMANDS[words][0].params for one in (*option.opts, *option.secondary_opts)]
    assert len(spelled) == len(set(spelled))
    for option in COMMANDS[words][0].params:
        for flag in option.opts:
            kinds = {
                bool(getattr(other, "is_flag", False))
                for command, _ in COMMANDS.values()
                for other in command.params
                if flag in other.opts and not getattr(other, "hidden", False)
            }
            assert len(kinds) < 2, f"{flag} is a switch in one command and takes a value in another"


class Toy(Settings):
    """What the tests below make flags of."""

    share: float = Field(default=0.5, ge=0, lt=1)
    """A share.

    Told in the docs alone.
    """
    names: tuple[str, ...] = ()
    """Several."""
    strict: bool = True
    """Or not."""
    needed: int
    """No default."""


def run(*words: str, flags: Flags | None = None) -> Toy:
    """The object that a command over Toy receives."""
    got: list[Toy] = []

    def command(toy: Toy, asking: Asking) -> None:
        assert asking.rpm is None
        got.append(toy)

    command.__annotations__ |= {
        "toy": Annotated[Toy, flags or Flags()],
        "asking": Annotated[Asking, Flags(only=("rpm",))],
    }
    toy_app = typer.Typer()
    toy_app.command()(with_flags(command))
    toy_app(list(words), standalone_mode=False)
    return got[0]


def test_a_command_receives_one_validated_object_that_knows_what_was_given() -> None:
    toy = run("--needed", "3", "--names", "a", "--names", "b", "--no-strict")
    assert toy == Toy(needed=3, names=("a", "b"), strict=False)
    assert given(toy) == {"needed": 3, "names": ("a", "b"), "strict": False}
    with pytest.raises(UserError, match=r"--share is 1\.0: input should be less than 1"):
        run("--needed", "3", "--share", "1")


def test_a_former_spelling_works_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    flags = Flags(old={"names": "--name"})
    assert run("--needed", "1", "--name", "a", flags=flags).names == ("a",)
    assert "warning: --name is now --names" in capsys.readouterr().err


def test_a_command_may_have_a_default_of_its_own() -> None:
    toy = run("--needed", "1", flags=Flags(defaults={"share": 0.1}, omit=("strict",)))
    assert (toy.share, toy.strict) == (0.1, True)
    with pytest.raises(TypeError, match="Toy has no nonsense"):
        run("--needed", "1", flags=Flags(omit=("nonsense",)))


def test_help_shows_bounds_default_and_the_first_paragraph() -> None:
    toy_app = typer.Typer()

    @toy_app.command()
    @with_flags
    def command(toy: Toy) -> None:
        """Nothing."""

    shown = CliRunner().invoke(toy_app, ["--help"], env={"COLUMNS": "80"}).output
    assert "0<=FLOAT<1" in shown
    assert "A share. [default: 0.5]" in shown
    assert "Told in the docs alone" not in shown
    assert "--no-strict: not." in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_the_reference_is_what_the_commands_say() -> None:
    page = Path(__file__).parents[3] / "docs/cli.md"
    assert page.read_text(encoding="utf-8") == reference(), (
        "docs/cli.md is not what the flags say: run `make docs`"
    )


def test_every_key_of_a_run_file_says_what_it_is() -> None:
    """The keys that are no section; the reference names them all."""
    page = reference()
    assert "- `dpo.beta`:" in page
    assert "- `rpm`:" in page
    silent = [
        line for line in page.splitlines() if line.startswith("- ") and not line.partition("`: ")[2].strip()
    ]
    assert silent == []


@pytest.mark.parametrize("words", COMMANDS)
def test_help_is_readable_at_80_columns(words: str) -> None:
    """No line is longer, and no flag's name is cut."""
    shown = CliRunner().invoke(app, [*words.split(), "--help"], env={"COLUMNS": "80"}).output
    assert max(map(len, shown.splitlines())) <= 80
    hidden = {one.name for one in COMMANDS[words][0].params if getattr(one, "hidden", False)}
    flags = [one.opts[0] for one in COMMANDS[words][0].params if one.name not in hidden]
    assert [flag for flag in flags if flag.startswith("--") and f"{flag} " not in shown] == []
