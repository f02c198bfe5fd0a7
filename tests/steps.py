"""How many steps a regular expression takes, counted and not timed.

A small backtracking matcher over Python's own parse of a pattern. It takes the ways that `re` takes, one character
test a step, so that the growth of the number of steps with the length of a text is the growth of the time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from re import _constants as ops
from re import _parser as parser
from typing import Any

TOO_MANY = 400_000


class TooManyStepsError(Exception):
    """The pattern takes more steps than anything linear would."""


class Steps:
    """Counts the steps of a search for a pattern at all places of a text."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._tree = list(parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE | re.UNICODE))
        self._one: dict[int, re.Pattern[str]] = {}
        self._flags = pattern.flags
        self.count = 0
        self._text = ""

    def of(self, text: str) -> int:
        """Steps that it takes to find every match in the text, or that there is none."""
        self.count, self._text = 0, text
        at = 0
        while at <= len(text):
            end = next(self._all(self._tree, 0, at), None)
            at = at + 1 if end is None or end == at else end
        return self.count

    def _step(self) -> None:
        self.count += 1
        if self.count > TOO_MANY:
            raise TooManyStepsError

    def _all(self, tree: list[Any], index: int, at: int) -> Iterator[int]:
        """Ends of all ways to match the rest of a sequence from a place, in the order in which `re` tries them."""
        if index == len(tree):
            yield at
            return
        for end in self._ways(*tree[index], at):
            yield from self._all(tree, index + 1, end)

    def _ways(self, op: Any, value: Any, at: int) -> Iterator[int]:
        self._step()
        if op in (ops.LITERAL, ops.NOT_LITERAL, ops.ANY, ops.IN):
            if at < len(self._text) and self._fits(op, value, self._text[at]):
                yield at + 1
        elif op is ops.AT:
            if self._anchored(value, at):
                yield at
        elif op is ops.SUBPATTERN:
            yield from self._all(list(value[-1]), 0, at)
        elif op is ops.BRANCH:
            for branch in value[1]:
                yield from self._all(list(branch), 0, at)
        elif op is ops.ATOMIC_GROUP:
            yield from self._first(lambda: self._all(list(value), 0, at))
        elif op in (ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT):
            low, high, inner = value
            ways = lambda: self._repeat(list(inner), low, high, at, op is ops.MIN_REPEAT)  # noqa: E731
            yield from self._first(ways) if op is ops.POSSESSIVE_REPEAT else ways()
        elif op in (ops.ASSERT, ops.ASSERT_NOT):
            direction, inner = value
            back = 0 if direction > 0 else inner.getwidth()[0]
            held = at >= back and next(self._all(list(inner), 0, at - back), None) is not None
            if held is (op is ops.ASSERT):
                yield at
        else:
            raise NotImplementedError(f"{op}")

    def _first(self, ways: Callable[[], Iterator[int]]) -> Iterator[int]:
        end = next(ways(), None)
        if end is not None:
            yield end

    def _repeat(self, inner: list[Any], low: int, high: int, at: int, lazy: bool) -> Iterator[int]:
        """Without recursion where one round is one character, as `re` does it."""
        if len(inner) == 1 and inner[0][0] in (ops.LITERAL, ops.NOT_LITERAL, ops.ANY, ops.IN):
            ends = [at]
            while len(ends) <= high and (lazy is False or len(ends) <= low):
                end = next(self._ways(*inner[0], ends[-1]), None)
                if end is None:
                    break
                ends.append(end)
            if not lazy:
                for end in reversed(ends[low:]):
                    self._step()
                    yield end
                return
            while len(ends) > low:
                yield ends[-1]
                end = next(self._ways(*inner[0], ends[-1]), None)
                if end is None or len(ends) > high:
                    return
                ends.append(end)
            return
        if lazy and low <= 0:
            yield at
        if high > 0:
            for end in self._all(inner, 0, at):
                if end > at or low > 0:
                    yield from self._repeat(inner, max(low - 1, 0), high - 1, end, lazy)
        if not lazy and low <= 0:
            yield at

    def _fits(self, op: Any, value: Any, char: str) -> bool:
        if op is ops.ANY:
            return char != "\n" or bool(self._flags & re.DOTALL)
        chars = {char, char.lower(), char.upper()} if self._flags & re.IGNORECASE else {char}
        if op in (ops.LITERAL, ops.NOT_LITERAL):
            return any(ord(one) == value for one in chars if len(one) == 1) is (op is ops.LITERAL)
        return any(_in(value, one) for one in chars if len(one) == 1)

    def _anchored(self, where: Any, at: int) -> bool:
        text, multiline = self._text, bool(self._flags & re.MULTILINE)
        if where is ops.AT_BEGINNING:
            return at == 0 or (multiline and text[at - 1] == "\n")
        if where is ops.AT_BEGINNING_STRING:
            return at == 0
        if where is ops.AT_END:
            return at == len(text) or text[at:] == "\n" or (multiline and text[at] == "\n")
        if where is ops.AT_END_STRING:
            return at == len(text)
        word = [0 <= place < len(text) and re.match(r"\w", text[place]) is not None for place in (at - 1, at)]
        return (word[0] != word[1]) is (where is ops.AT_BOUNDARY)


CATEGORIES: dict[Any, Callable[[str], bool]] = {
    ops.CATEGORY_DIGIT: str.isdecimal,
    ops.CATEGORY_SPACE: str.isspace,
    ops.CATEGORY_WORD: lambda char: char.isalnum() or char == "_",
}
OPPOSITE = {
    ops.CATEGORY_NOT_DIGIT: ops.CATEGORY_DIGIT,
    ops.CATEGORY_NOT_SPACE: ops.CATEGORY_SPACE,
    ops.CATEGORY_NOT_WORD: ops.CATEGORY_WORD,
}


def _in(items: list[Any], char: str) -> bool:
    negated = items[0][0] is ops.NEGATE
    found = any(_is(op, value, char) for op, value in items if op is not ops.NEGATE)
    return found is not negated


def _is(op: Any, value: Any, char: str) -> bool:
    if op is ops.LITERAL:
        return ord(char) == value
    if op is ops.RANGE:
        return bool(value[0] <= ord(char) <= value[1])
    if value in OPPOSITE:
        return not CATEGORIES[OPPOSITE[value]](char)
    return CATEGORIES[value](char)


def shortest(tree: Any) -> str:
    """A short text that the pattern could match, lookarounds aside."""
    return "".join(_shortest(op, value) for op, value in tree)


def _shortest(op: Any, value: Any) -> str:
    if op is ops.LITERAL:
        return chr(value)
    if op in (ops.NOT_LITERAL, ops.ANY):
        return "x"
    if op is ops.IN:
        return next(
            (char for char in _SAMPLES + "".join(map(chr, _literals([(op, value)]))) if _in(value, char)), "x"
        )
    if op is ops.SUBPATTERN:
        return shortest(value[-1])
    if op is ops.BRANCH:
        return shortest(value[1][0])
    if op is ops.ATOMIC_GROUP:
        return shortest(value)
    if op in (ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT):
        return shortest(value[2]) * max(value[0], 1)
    return ""


_SAMPLES = "a 1.\n<"


def _literals(tree: Any) -> Iterator[int]:
    """Characters that the pattern names."""
    for op, value in tree:
        if op is ops.LITERAL or op is ops.NOT_LITERAL:
            yield value
        elif op is ops.IN:
            yield from (number for kind, number in value if kind is ops.LITERAL)
            yield from (number[0] for kind, number in value if kind is ops.RANGE)
        elif op is ops.SUBPATTERN:
            yield from _literals(value[-1])
        elif op is ops.BRANCH:
            for branch in value[1]:
                yield from _literals(branch)
        elif op is ops.ATOMIC_GROUP:
            yield from _literals(value)
        elif op in (ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT):
            yield from _literals(value[2])
        elif op in (ops.ASSERT, ops.ASSERT_NOT):
            yield from _literals(value[1])


def hostile(pattern: re.Pattern[str], most: int = 120) -> Iterator[Callable[[int], str]]:
    """Texts of any length that are as bad as can be for the pattern: the beginning of one that it could match, then one
    character or a piece of it over and over, and an end that it cannot match. At most so many.
    """
    tree = parser.parse(pattern.pattern, pattern.flags)
    example = shortest(tree)
    chars = list(dict.fromkeys([*example[-4:], *_SAMPLES, *map(chr, _literals(tree))]))[:16]
    cases = [
        (example[:at], pump)
        for at in range(len(example) + 1)
        for pump in dict.fromkeys([*chars, example[at : at + 1], example[: at + 1], example[at : at + 2]])
        if pump
    ]
    for start, pump in cases[:: len(cases) // most + 1]:
        yield lambda size, start=start, pump=pump: start + pump * (size // len(pump)) + "\x00x"  # type: ignore[misc]
