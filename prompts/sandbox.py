"""Where templates run: Jinja's immutable sandbox, with a bound on every text that one makes.

Jinja's own sandbox keeps a template from everything but text; it lets one operation make a text of gigabytes, which no
time limit can stop. So what an operation will make is estimated before it is done.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from typing import Any

from jinja2 import StrictUndefined, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

LONGEST = 2**24
"""Characters that a template may make, in all or in one operation; the longest context of a model holds a third."""
WIDEST = 100_000
"""The greatest number that may be told to a filter or to a text's method: a width, an indent, a count."""
LARGEST_POWER = 10_000
"""Binary digits of a power; a larger one is a single operation that no time limit can stop."""
WIDTHS = re.compile(r"\d{6}")
MANY_TIMES = frozenset({"join", "tojson", "translate", "urlize", "wordwrap", "xmlattr"})
"""Filters and methods that may put what they are told at every place of a text."""


class _Spelling(CodeGenerator):
    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 Jinja's own name
        """`a ~ b` by way of the sandbox."""
        self.write("environment.spelt((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class Sandbox(ImmutableSandboxedEnvironment):
    """What raises SecurityError before a template makes more than LONGEST characters."""

    intercepted_binops = frozenset({"**", "*", "%", "+"})
    code_generator_class = _Spelling

    def __init__(self) -> None:
        super().__init__(
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=False,
            finalize=_printable,
        )
        self.filters = {name: _bounded(name, made) for name, made in self.filters.items()}
        del self.globals["lipsum"]  # a text of any length, and another one each time

    @staticmethod
    def concat(pieces: Iterable[str]) -> str:
        """The pieces of a template, a block or a macro as one text."""
        return "".join(_up_to_longest(pieces))

    def spelt(self, parts: tuple[Any, ...]) -> str:
        """The parts as text, one behind the other."""
        _size(parts)
        return self.concat(map(str, parts))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """The operation, if what it makes is bounded."""
        if operator == "**":
            if isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > LARGEST_POWER:
                raise SecurityError("a power of too many digits")
        elif operator == "%" and isinstance(left, str):
            _allow_format(left, "%", (right,))
        elif operator == "*":
            for several, times in ((left, right), (right, left)):
                if isinstance(several, (str, list, tuple)) and isinstance(times, int):
                    _allow(_size(several) * times)
        elif operator == "+" and all(isinstance(side, (str, list, tuple)) for side in (left, right)):
            _allow(len(left) + len(right))
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __called: Any, *args: Any, **named: Any) -> Any:  # noqa: N805 any name may be an argument
        """A call, if it is none of a text's methods that makes too much."""
        method = getattr(__called, "__wrapped__", __called)
        text = getattr(method, "__self__", None)
        if isinstance(text, str):
            args = _allow_call(method.__name__, text, args, named)
        return super().call(__context, __called, *args, **named)


def _bounded(name: str, made: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that looks at what it will make."""
    told_first = hasattr(made, "jinja_pass_arg")

    @wraps(made)
    def checked(*args: Any, **named: Any) -> Any:
        place, (value, *rest) = args[:told_first], args[told_first:]
        if isinstance(value, Iterator):
            value = list(value)
        return made(*place, value, *_allow_call(name, value, tuple(rest), named), **named)

    return checked


def _allow_call(name: str, value: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Any, ...]:
    """The arguments, once looked at. Raises SecurityError where too much would come of them."""
    args = tuple(list(one) if isinstance(one, Iterator) else one for one in args)
    told = (*args, *named.values())
    widest = max((abs(one) for one in told if isinstance(one, int)), default=0)
    if widest > WIDEST:
        raise SecurityError(f"the number {widest} for {name}; at most {WIDEST}")
    own, more = _size(value), _size(told)
    if name in ("format", "format_map"):
        _allow_format(str(value), "%{", told)
    elif name == "replace" and len(args) > 1:
        _allow(own + str(value).count(str(args[0])) * len(str(args[1])))
    elif name in ("indent", "expandtabs"):
        _allow(own + (str(value).count("\n") + str(value).count("\t") + 1) * (widest + more))
    elif name in MANY_TIMES:
        _allow(own + own * (more + (widest if name == "tojson" else 0)))
    else:
        _allow(own + more + widest)
    return args


def _allow_format(form: str, marks: str, told: tuple[Any, ...]) -> None:
    if WIDTHS.search(form):
        raise SecurityError("a format with a number of six digits or more")
    widest = max((int(digits) for digits in re.findall(r"\d+", form)), default=0)
    numbers = [abs(one) for one in _flat(told) if isinstance(one, int)] if "*" in form or "{" in marks else []
    if max(numbers, default=0) > WIDEST and ("*" in form or ":{" in form):
        raise SecurityError(f"a width of {max(numbers)}; at most {WIDEST}")
    places = sum(form.count(mark) for mark in marks)
    _allow(len(form) + places * max(widest, _size(told), *(one for one in numbers if one <= WIDEST), 0))


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from value
        elif isinstance(value, Mapping):
            yield from value.values()
        else:
            yield value


def _printable(value: Any) -> Any:
    """A value that is about to be shown, unless its text would be too long."""
    if isinstance(value, (list, tuple, set, frozenset, dict)):
        _size(value)
    return value


def _up_to_longest(pieces: Iterable[str]) -> Iterator[str]:
    made = 0
    for piece in pieces:
        made += len(piece)
        _allow(made)
        yield piece


def _size(value: Any) -> int:
    """Characters of all texts in a value and the number of its parts: what its text has at least. Raises SecurityError
    where that is too much."""
    found, left = 0, [value]
    while left:
        one = left.pop()
        found += len(one) if isinstance(one, str) else 1
        _allow(found)
        if isinstance(one, Mapping):
            left += [*one.keys(), *one.values()]
        elif isinstance(one, (list, tuple, set, frozenset)):
            left += one
    return found


def _allow(characters: int) -> None:
    if characters > LONGEST:
        raise SecurityError(f"a text of more than {LONGEST} characters")
