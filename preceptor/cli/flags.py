"""Flags out of settings: a command names the settings classes that it takes, and each field becomes a flag.

    def respond(prompts: Prompts, settings: Annotated[RespondSettings, Flags("Sampling")]) -> None: ...

Type, bounds, default and help are the field's own and are written nowhere else. What the person gave is validated by
the class, and the command receives one object: its `model_fields_set` says what was given. A field of one name in
several classes of a command is one flag, whose value all of them get.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import typer

from preceptor.cli import console
from preceptor.constitution.errors import UserError
from preceptor.spelling import spellings_of

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

METAVARS: Mapping[str, str] = MappingProxyType(
    {
        "base_url": "[MODEL=]URL",
        "canaries": "SHARE",
        "clamp": "LOW,HIGH",
        "fail_if": "EXPR",
        "map": "COLUMN=FIELD",
        "prices": "[MODEL=]IN,OUT",
        "recheck": "SHARE",
        "timeout_s": "SECONDS",
        "when": "EXPR",
    }
)
"""What stands for the value of a field in the help, where its type would not say enough."""

WIDEST = 18
"""Letters of choices that stand in the help's column of types."""

VARIABLES: Mapping[str, str] = MappingProxyType({"ledger": "PRECEPTOR_LEDGER"})
"""Environment variables that give a field's value where its flag is not given."""

PANELS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "Adapter": ("adapter", "stack_adapter", "reference_adapter", "rank", "alpha", "dora", "rslora"),
        "Memory and placement": (
            *("dtype", "device_map", "four_bit", "precision", "gradient_checkpointing", "compile"),
            *("attention", "pass_tokens", "rollout_tokens", "nproc", "accelerate_config"),
        ),
        "Checkpoints and metrics": (
            *(
                "held_out",
                "final_checkpoint",
                "checkpoint_every",
                "keep_checkpoints",
                "tensorboard",
                "report_to",
            ),
        ),
        "Guard": ("guard_judge", "guard_prompts", "guard_every", "guard_rule", "guard_text"),
        "Rollouts": ("vllm", "samples", "max_new_tokens", "temperature", "top_p", "system"),
        "Asking": (
            *("base_url", "ledger", "concurrency", "max_cost_usd", "prices", "rpm", "tpm", "timeout_s"),
            "flex",
        ),
        "Batches": ("batch", "then_sync"),
        "Cluster": ("engine", "address", "gpus", "workers"),
    }
)
"""Headings in the help, for fields that stand under the same one whatever the command."""


@dataclass(frozen=True)
class Flags:
    """How the fields of a settings class become the flags of a command."""

    panel: str | None = None
    """The heading in the help, but for fields that `PANELS` names."""
    omit: Collection[str] = ()
    """Fields that are no flags of this command."""
    only: Collection[str] | None = None
    """Fields that are; None: all but those in `omit`."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Field -> its flag here, where it is another than elsewhere."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Field -> its default here, where the command's differs from the class's."""
    old: Mapping[str, str] = field(default_factory=dict)
    """Field -> a former spelling of its flag, which still works and says so."""
    argument: str = ""
    """The field that is no flag, but the command's argument."""
    hidden: bool = False
    """Whether the help leaves them out."""

    def fields(self, kind: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
        """The fields that are flags, by name."""
        if unknown := {*self.omit, *(self.only or ()), *self.names, *self.defaults, *self.old} - {
            *kind.model_fields
        }:
            raise TypeError(f"{kind.__name__} has no {', '.join(sorted(unknown))}")
        for name, info in kind.model_fields.items():
            if name not in self.omit and (self.only is None or name in self.only):
                yield name, info

    def former(self, kind: type[BaseModel], name: str) -> str | None:
        """The former spelling of a field's flag: the command's own, or by the field's former name."""
        if name in self.old:
            return self.old[name]
        was = getattr(kind, "former", {}).get(name)
        return None if was is None else f"--{was.replace('_', '-')}"

    def spelling(self, name: str) -> tuple[str, ...]:
        """The flag's spellings, the long one first."""
        if name in self.names:
            return (self.names[name],)
        return spellings_of(name)

    def key(self, name: str) -> str:
        """What the flag is called inside: fields of one key are one flag."""
        return self.names[name].removeprefix("--").replace("-", "_") if name in self.names else name

    def heading(self, name: str) -> str | None:
        """The panel of a field."""
        return next((panel for panel, names in PANELS.items() if name in names), self.panel)


class Bundle(NamedTuple):
    """A parameter of a command that is made of flags."""

    name: str
    kind: type[BaseModel]
    flags: Flags


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """The command as Typer takes it: every parameter that is a settings class replaced by the flags of its fields."""
    bundles = bundles_of(command)
    named = {bundle.name: bundle for bundle in bundles}
    hints = typing.get_type_hints(command, include_extras=True)
    parameters: dict[str, inspect.Parameter] = {}
    for one in inspect.signature(command).parameters.values():
        if one.name not in named:
            parameters[one.name] = _keyword(one.name, hints[one.name], one.default)
            continue
        for name, made in _flags_of(named[one.name]):
            parameters.setdefault(name, made)
    if not bundles:
        return command

    plain = [name for name in inspect.signature(command).parameters if name not in named]

    def called(**given: Any) -> None:
        flags = {name: value for name, value in given.items() if value is not None and value != []}
        own = {name: given[name] for name in plain}
        made = {bundle.name: _made(bundle, flags) for bundle in bundles}
        if own.get("plan"):
            from preceptor.settings import Access

            made = {name: one.planning() if isinstance(one, Access) else one for name, one in made.items()}
        command(**{**own, **made})

    called.__name__, called.__doc__ = command.__name__, command.__doc__
    called.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    called.__annotations__ = {name: one.annotation for name, one in parameters.items()}
    return called


def bundles_of(command: Callable[..., None]) -> list[Bundle]:
    """The parameters of a command that are made of flags."""
    hints = typing.get_type_hints(command, include_extras=True)
    found = (_bundle(name, hints[name]) for name in inspect.signature(command).parameters)
    return [bundle for bundle in found if bundle is not None]


def given(settings: BaseModel) -> dict[str, Any]:
    """What the person gave, by field, and what the command has in the place of a class's default."""
    return {
        name: getattr(settings, name)
        for name in type(settings).model_fields
        if name in settings.model_fields_set
    }


def _keyword(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _bundle(name: str, annotation: Any) -> Bundle | None:
    """What a parameter's annotation says of flags; None where it is a plain one of Typer's."""
    kind, *notes = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    if not (isinstance(kind, type) and hasattr(kind, "model_fields")):
        return None
    flags = next((note for note in notes if isinstance(note, Flags)), Flags())
    return Bundle(name, kind, flags)


def _flags_of(bundle: Bundle) -> Iterator[tuple[str, inspect.Parameter]]:
    """Typer's parameters by key; the opposites of switches and former spellings are hidden ones beside them."""
    flags = bundle.flags
    for name, info in flags.fields(bundle.kind):
        kind, spelled, key = _shown_type(info), flags.spelling(name), flags.key(name)
        default = flags.defaults.get(name, info.default)
        needed = info.is_required() and name not in flags.defaults and name not in flags.old
        if name == flags.argument:
            argument = typer.Argument(help=_help(bundle.kind, name, kind, "", None))
            yield key, _keyword(key, Annotated[kind.annotation, argument])
            continue
        option = typer.Option(
            *spelled,
            help=_help(bundle.kind, name, kind, spelled[0], default),
            metavar=METAVARS.get(name, kind.metavar),
            envvar=VARIABLES.get(name),
            show_default=False,
            autocompletion=_completing(kind.choices) if kind.choices else None,
            hidden=flags.hidden,
            rich_help_panel=flags.heading(name),
        )
        annotation = kind.annotation if needed else kind.annotation | None
        yield key, _keyword(key, Annotated[annotation, option], inspect.Parameter.empty if needed else None)
        if kind.annotation is bool:
            yield _hidden(f"no_{key}", f"--no-{spelled[0].removeprefix('--')}", bool)
        if (old := flags.former(bundle.kind, name)) is not None:
            yield _hidden(f"old_{key}", old, kind.annotation)


def _completing(words: Sequence[str]) -> Callable[[str], list[str]]:
    def begun(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return begun


def _hidden(key: str, spelled: str, kind: Any) -> tuple[str, inspect.Parameter]:
    return key, _keyword(key, Annotated[kind | None, typer.Option(spelled, hidden=True)], None)


class Shown(NamedTuple):
    """A field's type on the command line."""

    annotation: Any
    metavar: str | None = None
    choices: tuple[str, ...] = ()


def _shown_type(info: FieldInfo) -> Shown:
    """Numbers are Typer's to read; choices, and what has a form of its own, come as text that the class reads."""
    from pydantic import BeforeValidator

    bare = [one for one in _members(info.annotation) if one is not type(None)]
    kind = bare[0] if len(bare) == 1 else str
    origin = get_origin(kind)
    if any(isinstance(note, BeforeValidator) for note in info.metadata):
        return Shown(list[str] if _is_many(kind) else str)
    if origin is Literal:
        return Shown(str, *_chosen(get_args(kind)))
    if kind is bool:
        return Shown(bool, "")
    if info.examples:
        return Shown(str, "WORD", tuple(info.examples))
    if kind in (str, Path):
        return Shown(kind, "TEXT" if kind is str else "PATH")
    if kind in (int, float):
        return Shown(kind, _bounds("INT" if kind is int else "FLOAT", info.metadata))
    if _is_many(kind):
        inner = get_args(kind)[0]
        if get_origin(inner) is Literal:
            return Shown(list[str], *_chosen(get_args(inner)))
        return Shown(list[inner], "TEXT")  # type: ignore[valid-type]
    raise TypeError(f"no flag can be made of {info.annotation}; name the field in `omit`")


def _chosen(words: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """How the help names choices, and they themselves: told in its text where the column of types is too narrow."""
    joined = "|".join(words)
    return (joined if len(joined) <= WIDEST else "WORD"), words


def _members(annotation: Any) -> Sequence[Any]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _is_many(kind: Any) -> bool:
    """Whether a flag of this kind can be given several times."""
    origin = get_origin(kind)
    if origin is tuple:
        return get_args(kind)[1:] == (...,)
    return isinstance(origin, type) and issubclass(origin, Iterable)


def _bounds(word: str, notes: Iterable[Any]) -> str:
    """The type with what bounds it: FLOAT>0, 0<=FLOAT<1."""
    low = high = ""
    for note in notes:
        for name, sign in (("ge", "<="), ("gt", "<")):
            if (bound := getattr(note, name, None)) is not None:
                low = f"{bound:g}{sign}"
        for name, sign in (("le", "<="), ("lt", "<")):
            if (bound := getattr(note, name, None)) is not None:
                high = f"{sign}{bound:g}"
    if low and not high:
        value, sign = low.rstrip("<="), ">=" if low.endswith("=") else ">"
        return f"{word}{sign}{value}"
    return f"{low}{word}{high}"


def describe(kind: type[BaseModel], name: str, *, whole: bool = False) -> str:
    """The words under a field, in the class or the nearest one above that has some, its choices and its default.

    whole: all of the words, not the first paragraph alone.
    """
    infos = [info for one in kind.__mro__ if (info := getattr(one, "model_fields", {}).get(name)) is not None]
    described = next((info.description for info in infos if info.description), "")
    words = " ".join((described if whole else described.split("\n\n")[0]).split())
    shown = _shown_type(infos[0]) if _is_flag(infos[0]) else Shown(str)
    if shown.choices and (whole or shown.metavar == "WORD"):
        words += f" {'Such as' if infos[0].examples else 'One of'} {', '.join(shown.choices)}."
    if whole and not infos[0].is_required() and (value := _default(infos[0].get_default())) is not None:
        words += f" [default: {value}]"
    return words.strip()


def settings_in(annotation: Any) -> type[BaseModel] | None:
    """The settings class that a field holds, where it holds one."""
    found = [one for one in _members(annotation) if hasattr(one, "model_fields")]
    return found[0] if found else None


def _is_flag(info: FieldInfo) -> bool:
    try:
        _shown_type(info)
    except TypeError:
        return False
    return True


def _help(kind: type[BaseModel], name: str, shown: Shown, spelled: str, default: Any) -> str:
    """What the help says of a flag."""
    words = describe(kind, name)
    if shown.annotation is bool and default is True:
        words += f" --no-{spelled.removeprefix('--')}: not."
    if (value := _default(default)) is not None:
        words += f" [default: {value}]"
    return words.strip().replace("[", "\\[")


def _default(default: Any) -> str | None:
    """The default as the help shows it; None where none is set, or where a switch is off."""
    from pydantic_core import PydanticUndefined

    if (
        default is None
        or default is False
        or hasattr(type(default), "model_fields")
        or default is PydanticUndefined
    ):
        return None
    if isinstance(default, bool):
        return "on"
    return (", ".join(default) if isinstance(default, tuple) else str(default)) or None


def _made(bundle: Bundle, flags: Mapping[str, Any]) -> BaseModel:
    """The settings that the flags describe. Raises UserError that names the flags which cannot be."""
    from pydantic import ValidationError

    values = dict(bundle.flags.defaults)
    for name, _ in bundle.flags.fields(bundle.kind):
        key = bundle.flags.key(name)
        if f"old_{key}" in flags:
            warn_of_old(str(bundle.flags.former(bundle.kind, name)), bundle.flags.spelling(name)[0])
            values[name] = flags[f"old_{key}"]
        if key in flags:
            values[name] = flags[key]
        if f"no_{key}" in flags:
            values[name] = False
    try:
        return bundle.kind.model_validate(values)
    except ValidationError as error:
        raise UserError(
            "\n".join(_fault(fault, bundle.flags) for fault in error.errors(include_url=False))
        ) from None


def _fault(fault: Any, flags: Flags) -> str:
    said = str(fault["msg"]).removeprefix("Value error, ")
    if not fault["loc"]:
        return said
    spelled = flags.spelling(str(fault["loc"][0]))[0]
    if fault["type"] == "missing":
        return f"{spelled} is missing"
    if fault["type"] == "value_error":
        return f"{spelled} is {fault['input']!r}: {said}"
    return f"{spelled} is {fault['input']!r}: {said[0].lower()}{said[1:]}"


def warn_of_old(old: str, new: str) -> None:
    """Say that a spelling is a former one; it works until the next version."""
    console.say(f"warning: {old} is now {new}; the former spelling goes with the next version")
