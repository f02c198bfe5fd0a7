"""YAML is read alike on every machine, by ruamel's own parser; the C one is there on some machines only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

ROOT = Path(__file__).parent.parent
FAST = {"constitution/reading.py", "tests/test_yaml.py"}
"""The first takes the C parser where it is there, and has ruamel's own read whatever it refuses."""
PACKAGES = ("constitution", "prompts", "judge", "train", "preceptor", "tests", "benchmarks")


def test_no_reader_takes_the_parser_that_is_not_there_on_every_machine() -> None:
    """`YAML()` is the parser that keeps comments, which is never the C one."""
    calls = [
        (path.relative_to(ROOT).as_posix(), node)
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "YAML"
    ]
    assert len(calls) > 5
    found = [f"{path}:{node.lineno}" for path, node in calls if not _pure(node) and path not in FAST]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "a: yes\nb: on\nc: null\nd: ~\ne:",
        "a: 010\nb: 0o10\nc: 1_000\nd: 1:30\ne: 1e3\nf: .5\ng: 0x1f",
        "a: 2026-01-01\nb: 2026-01-01 10:00:00",
        "a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}",
        "a: |\n  lines\n  kept\nb: >\n  lines\n  folded\n\n  here",
        "- {question: Really?, right: [a, b]}",
        "a: \"\\u00e9 \\U0001f600\"\nb: 'it''s'",
        *(path.read_text(encoding="utf-8") for path in sorted((ROOT / "constitution").rglob("*.yaml"))),
    ],
)
def test_what_both_parsers_take_they_read_alike(text: str) -> None:
    """So that a constitution has one identity, with the C parser and without."""
    own = YAML(typ="safe", pure=True).load(text)
    try:
        fast = YAML(typ="safe").load(text)
    except YAMLError:
        return
    assert fast == own


def _pure(call: ast.Call) -> bool:
    told = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
    return told.get("typ", "rt") == "rt" or told.get("pure") is True
