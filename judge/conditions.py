"""A closed expression language over figures: names, numbers, texts, comparisons, and, or, not. Never `eval`."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any

from preceptor.constitution.errors import UserError

Value = float | str

COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def gate(expression: str, figures: Mapping[str, Any]) -> bool:
    """Whether the expression, such as `flip_rate > 0.2 or accuracy < 0.7`, holds for these figures.

    Figures are numbers or texts; texts are written in quotes and only compared for being equal or not. Raises
    UserError for anything that is not a comparison of names, numbers and texts, for a name that is no figure,
    and for a figure that has no value here: an unknown figure passes no gate.
    """
    return _holds(_parsed(expression).body, figures, expression)


def check(expression: str, names: Collection[str], texts: Collection[str] = ()) -> None:
    """Raises UserError where the expression is not of the language, uses a name that is not among these, or compares a
    text with a number. texts: those of the names that stand for texts."""
    tree = _parsed(expression)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id not in names:
            raise UserError(
                f"{node.id!r} in {expression!r} is no figure; there are {', '.join(sorted(names))}"
            )
    _shape(tree.body, expression)
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            words = [_is_text(part, texts) for part in (node.left, *node.comparators)]
            for op, first, second in zip(node.ops, words[:-1], words[1:], strict=True):
                if first != second or (first and not isinstance(op, ast.Eq | ast.NotEq)):
                    raise UserError(
                        f"{ast.unparse(node)!r} in {expression!r}; texts are compared by == and != with texts alone"
                    )


def _is_text(node: ast.expr, texts: Collection[str]) -> bool:
    return node.id in texts if isinstance(node, ast.Name) else isinstance(getattr(node, "value", None), str)


def names_in(expression: str) -> set[str]:
    """The names that an expression uses. Raises UserError where it is none."""
    return {node.id for node in ast.walk(_parsed(expression)) if isinstance(node, ast.Name)}


def _parsed(expression: str) -> ast.Expression:
    try:
        return ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        raise UserError(
            f"{expression!r} is no expression; wanted e.g. 'flip_rate > 0.2 or unparsed > 0'"
        ) from exc


def _shape(node: ast.expr, whole: str) -> None:
    """Raises UserError for whatever the language does not have."""
    match node:
        case ast.BoolOp(values=values):
            for value in values:
                _shape(value, whole)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            _shape(operand, whole)
        case ast.Compare(left=left, ops=ops, comparators=parts) if all(type(op) in COMPARISONS for op in ops):
            for part in (left, *parts):
                if not isinstance(part, ast.Name):
                    _value(part, {}, whole)
        case _:
            raise UserError(
                f"{ast.unparse(node)!r} in {whole!r}; wanted comparisons (< <= > >= == !=) joined by and, or, not"
            )


def _holds(node: ast.expr, figures: Mapping[str, Any], whole: str) -> bool:
    _shape(node, whole)
    match node:
        case ast.BoolOp(op=op, values=values):
            held = [
                _holds(value, figures, whole) for value in values
            ]  # all of them, so that each name is checked
            return all(held) if isinstance(op, ast.And) else any(held)
        case ast.UnaryOp(operand=operand):
            return not _holds(operand, figures, whole)
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            found = [_value(part, figures, whole) for part in (left, *comparators)]
            return all(
                _compared(op, first, second, whole)
                for op, first, second in zip(ops, found[:-1], found[1:], strict=True)
            )
    raise AssertionError("_shape lets nothing else through")


def _compared(op: ast.cmpop, first: Value, second: Value, whole: str) -> bool:
    words = isinstance(first, str), isinstance(second, str)
    if any(words) and (not all(words) or not isinstance(op, ast.Eq | ast.NotEq)):
        raise UserError(
            f"{first!r} and {second!r} in {whole!r}; texts are compared by == and != with texts alone"
        )
    return COMPARISONS[type(op)](first, second)


def _value(node: ast.expr, figures: Mapping[str, Any], whole: str) -> Value:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return float(value)
        case ast.Constant(value=str() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -float(value)
        case ast.Name(id=name):
            return _figure(name, figures, whole)
    raise UserError(
        f"{ast.unparse(node)!r} in {whole!r}; wanted a number, a text in quotes or the name of a figure"
    )


def _figure(name: str, figures: Mapping[str, Any], whole: str) -> Value:
    usable = [key for key, value in figures.items() if value is None or isinstance(value, (int, float, str))]
    if name not in usable:
        raise UserError(f"{name!r} in {whole!r} is no figure; there are {', '.join(sorted(usable))}")
    if figures[name] is None:
        raise UserError(f"{name} has no value here, so {whole!r} cannot be decided; leave it out of the gate")
    value = figures[name]
    return value if isinstance(value, str) else float(value)
