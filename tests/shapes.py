"""Shapes, checked by machine while tests run: modules that state them with jaxtyping are imported with its hook.

Each call of their functions is checked by beartype and, dimension by dimension, by jaxtyping: a letter stands for the
same number in all arguments and in the result. Named tuples are checked field by field as well, which neither does.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_type_hints

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, install_import_hook

MODULES = (
    "preceptor.train.losses",
    "preceptor.train.data.collate_pairs",
    "preceptor.train.data.collate_replies",
    "preceptor.train.ppo.objective",
)
TYPED = beartype(conf=BeartypeConf(is_pep484_tower=True))  # a whole number is a number


def check_shapes() -> None:
    """From now on the modules above are imported with their shapes checked."""
    install_import_hook(MODULES, "tests.shapes.checked")


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with arguments and result checked; jaxtyping calls this with the dimensions of one call at hand."""
    typed = TYPED(function)
    signature = inspect.signature(function)

    @functools.wraps(typed)
    def call(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        check_fields({f"{function.__qualname__}: {name}": value for name, value in given.items()})
        result = typed(*args, **kwargs)
        check_fields({f"{function.__qualname__}: its result": result})
        return result

    return call


def check_fields(values: Mapping[str, Any]) -> None:
    """Raises AssertionError where a field of a named tuple is not of the shape that it states. What stands by name is
    looked at first, so that a product such as 2*B is known."""
    found = [(what, *stated) for what, value in values.items() for stated in fields_of(value)]
    for what, name, hint, field in sorted(found, key=lambda each: "*" in each[2].dim_str):
        right = isinstance(field, hint)
        assert right, f"{what}.{name} is {tuple(field.shape)} {field.dtype}; wanted {hint.__name__}"


def fields_of(value: Any) -> Iterator[tuple[str, Any, Any]]:
    """Name, stated shape and value of a named tuple's fields that state one."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        for name, hint in shapes_of(type(value)).items():
            yield name, hint, getattr(value, name)


@functools.cache
def shapes_of(kind: type[Any]) -> dict[str, Any]:
    """Fields of a named tuple whose annotation is a shape; None in those of modules that are not checked."""
    if kind.__module__ not in MODULES:
        return {}
    hints = get_type_hints(kind)
    return {
        name: hint
        for name, hint in hints.items()
        if inspect.isclass(hint) and issubclass(hint, AbstractArray)
    }
