"""Whether a JSON value is just what a type says: of a TypedDict every required key, and none that is not declared."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints

from typing_extensions import is_typeddict

NUMBERS: dict[Any, Any] = {float: (int, float)}
"""JSON's 1.0 may be written as 1."""


def faults(value: Any, kind: Any, at: str = "") -> Iterator[str]:
    """What is wrong, a line each."""
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Any:
        return
    if is_typeddict(kind):
        yield from _keys(value, kind, at)
    elif origin in (Union, types.UnionType):
        tried = [list(faults(value, one, at)) for one in parts]
        if all(tried):
            yield from min(tried, key=len)
    elif origin is Literal:
        if value not in parts:
            yield f"{at}: {value!r} is none of {parts}"
    elif origin in (list, Sequence):
        if not isinstance(value, list):
            yield f"{at}: {value!r} is no list"
            return
        for number, one in enumerate(value):
            yield from faults(one, parts[0], f"{at}[{number}]")
    elif origin in (dict, Mapping):
        if not isinstance(value, dict):
            yield f"{at}: {value!r} is no object"
            return
        for name, one in value.items():
            yield from faults(one, parts[1], f"{at}.{name}")
    elif not isinstance(value, (int, float) if kind is float else kind) or isinstance(value, bool) is not (
        kind is bool
    ):
        yield f"{at}: {value!r} is no {kind}"


def _keys(value: Any, kind: Any, at: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{at}: {value!r} is no object"
        return
    hints = get_type_hints(kind, include_extras=True)
    # a class whose annotations are texts does not know by itself which of its keys are NotRequired
    optional = {
        name for name, hint in hints.items() if get_origin(hint) is NotRequired
    } | kind.__optional_keys__
    for name in hints.keys() - optional - value.keys():
        yield f"{at}.{name}: is missing"
    for name, one in value.items():
        if name in hints:
            hint = hints[name]
            yield from faults(
                one, get_args(hint)[0] if get_origin(hint) is NotRequired else hint, f"{at}.{name}"
            )
        else:
            yield f"{at}.{name}: is not declared by {kind.__name__}"
