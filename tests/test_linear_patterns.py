"""No text from outside makes one of our own regular expressions slow: steps are counted, and grow with the length."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from preceptor.prompts import verdict
from tests.counted import FUNCTIONS, PUMPS, SLOW
from tests.steps import TOO_MANY, Steps, TooManyStepsError, hostile

READERS = (
    "preceptor.constitution.checks",
    "preceptor.prompts",
    "preceptor.judge.audit.canaries",
    "preceptor.judge.audit.biases",
    "preceptor.judge.pairs",
    "preceptor.judge.models",
    "preceptor.evaluation.probes",
    "preceptor.train.embedded.oracle",
    "preceptor.train.evaluation.probes",
)
"""Packages and modules that read what models, servers and files bring."""
ROOT = Path(__file__).parent.parent
SIZE = 32


def modules() -> list[ModuleType]:
    found = []
    for name in READERS:
        module = importlib.import_module(name)
        found.append(module)
        for inner in pkgutil.walk_packages(getattr(module, "__path__", []), f"{name}."):
            found.append(importlib.import_module(inner.name))
    return found


def patterns() -> dict[str, re.Pattern[str]]:
    found = {
        f"{module.__name__}.{name}": of_text(value)
        for module in modules()
        for name, value in vars(module).items()
        if isinstance(value, re.Pattern)
    }
    own = {"a": "Output (a)", "b": "Output (b)"}
    for name, menu in (
        ("own", own),
        ("brackets", {"a": "[[A]]", "b": "[[B]]"}),
        ("bare", {"a": "m", "b": "M"}),
        ("words", {"a": "first reply", "b": "second reply"}),
    ):
        built = verdict._patterns(tuple(menu.items()))
        found |= {f"menu {name} {letter}": pattern for letter, _, pattern in built.letters}
        found |= {f"menu {name} hedge": built.hedge}
        found |= {f"menu {name} prefix": built.prefix} if built.prefix else {}
    return found


def of_text(pattern: re.Pattern[str] | re.Pattern[bytes]) -> re.Pattern[str]:
    """A pattern of bytes as one of text."""
    if isinstance(pattern.pattern, bytes):
        return re.compile(pattern.pattern.decode(), pattern.flags)
    return re.compile(pattern.pattern, pattern.flags)


def growth(pattern: re.Pattern[str]) -> tuple[float, str]:
    """The worst growth of the steps when a hostile text doubles: 2 is linear, 4 is quadratic."""
    steps = Steps(pattern)
    worst = (0.0, "")
    for text in hostile(pattern):
        try:
            for longer in (1, 3, 16):  # a long beginning, and bounds within the pattern, can look like growth
                steps_of = [steps.of(text(SIZE * longer * factor)) for factor in (1, 2, 4)]
                if grows(steps_of) <= 2.5:
                    break
        except (TooManyStepsError, RecursionError):
            return float("inf"), text(SIZE)
        if (grown := grows(steps_of)) > 2.5:
            return grown, text(SIZE)
        worst = max(worst, (grown, text(SIZE)))
    return worst


def grows(steps: list[int]) -> float:
    one, two, four = steps
    return (four - two) / (two - one) if two > one else 0.0


def test_all_patterns_are_found() -> None:
    assert len(patterns()) >= 30


@pytest.mark.parametrize("name", sorted(patterns()))
def test_the_steps_grow_with_the_length_alone(name: str) -> None:
    grown, text = growth(patterns()[name])
    assert grown <= 2.5, text


@pytest.fixture(scope="module")
def counted() -> Mapping[str, list[Any]]:
    """In a process of its own: whatever other tests have hooked into this interpreter would be traced too, and once it
    hung there for good."""
    words = [sys.executable, "-m", "tests.counted"]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True, timeout=900)
    found: dict[str, list[Any]] = json.loads(ended.stdout)
    return found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_as_long_at_work_as_its_text_is_long(
    name: str, counted: Mapping[str, list[Any]]
) -> None:
    """Instructions are counted, not time: twice the text takes about twice as many."""
    assert len(counted[name]) == 2 * len(PUMPS)
    for start, pump, (one, two, four) in counted[name]:
        assert four - two <= 2.6 * max(two - one, 500), (start, pump, one, two, four)


def test_the_count_tells_a_slow_loop(counted: Mapping[str, list[Any]]) -> None:
    for _, _, (one, two, four) in counted[SLOW]:
        assert four - two > 3.5 * (two - one)


@pytest.mark.parametrize(
    "slow",
    [
        r"<{3,}(?=\s*(?:END_)?(?:REPLY))",
        r"Verdict:[*_`]*[\s*_`]*A",
        r"[\W_]+$",
        r"[^.]+\.(?= |$)",
        r"(?:a+)+b",
        r"\s+(?=but)",
    ],
)
def test_the_count_tells_a_slow_pattern(slow: str) -> None:
    """What these do to `re` was measured: minutes for 40,000 characters."""
    assert growth(re.compile(slow))[0] > 3


@pytest.mark.parametrize(
    "pattern", [r"a*b|[^x]c{2,3}?d", r"(?i)(?<!q)Ver(?:dict)?:\s*+(?=A)", r"^\w+$", r"\bi\b.*?,"]
)
def test_the_count_finds_what_re_finds(pattern: str) -> None:
    """A matcher that went other ways would count other steps."""
    compiled = re.compile(pattern)
    for text in ("aab", "xccd accd", "verdict:  A", "VER:A qver:A", "one\ntwo", "i am, so i, will", ""):
        steps = Steps(compiled)
        steps.of(text)
        for at in range(len(text) + 1):
            found = compiled.match(text, at)
            assert next(steps._all(steps._tree, 0, at), None) == (found.end() if found else None)
    assert steps.count < TOO_MANY
