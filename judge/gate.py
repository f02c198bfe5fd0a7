"""A closed expression language over figures: names, numbers, comparisons, and, or, not. Never `eval`."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from constitution.errors import UserError

COMPARISONS: Mapping[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def gate(expression: str, figures: Mapping[str, Any]) -> bool:
    """Whether the expression, such as `flip_rate > 0.2 or accuracy < 0.7`, holds for these figures.

    Raises UserError for anything that is not a comparison of names and numbers, for a name that is no figure,
    and for a figure that has no value here: an unknown figure passes no gate.
    """
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        raise UserError(
            f"{expression!r} is no expression; wanted e.g. 'flip_rate > 0.2 or unparsed > 0'"
        ) from exc
    return _holds(tree.body, figures, expression)


def _holds(node: ast.expr, figures: Mapping[str, Any], whole: str) -> bool:
    match node:
        case ast.BoolOp(op=op, values=values):
            held = [
                _holds(value, figures, whole) for value in values
            ]  # all of them, so that each name is checked
            return all(held) if isinstance(op, ast.And) else any(held)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _holds(operand, figures, whole)
        case ast.Compare(left=left, ops=ops, comparators=comparators) if all(
            type(op) in COMPARISONS for op in ops
        ):
            numbers = [_number(part, figures, whole) for part in (left, *comparators)]
            pairs = zip(ops, numbers[:-1], numbers[1:], strict=True)
            return all(COMPARISONS[type(op)](first, second) for op, first, second in pairs)
    raise UserError(
        f"{ast.unparse(node)!r} in {whole!r}; wanted comparisons (< <= > >= == !=) joined by and, or, not"
    )


def _number(node: ast.expr, figures: Mapping[str, Any], whole: str) -> float:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return float(value)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(operand, figures, whole)
        case ast.Name(id=name):
            return _figure(name, figures, whole)
    raise UserError(f"{ast.unparse(node)!r} in {whole!r}; wanted a number or the name of a figure")


def _figure(name: str, figures: Mapping[str, Any], whole: str) -> float:
    usable = [key for key, value in figures.items() if value is None or isinstance(value, (int, float))]
    if name not in usable:
        raise UserError(f"{name!r} in {whole!r} is no figure; there are {', '.join(sorted(usable))}")
    if figures[name] is None:
        raise UserError(f"{name} has no value here, so {whole!r} cannot be decided; leave it out of the gate")
    return float(figures[name])
