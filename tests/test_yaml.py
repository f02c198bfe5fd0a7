"""YAML is read alike on every machine, by ruamel's own parser; the C one is there on some machines only."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
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
    found = [f"{path}:{node.lineno}" for path, node in calls if not _pure(node)]
    assert found == []


def _pure(call: ast.Call) -> bool:
    told = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
    return told.get("typ", "rt") == "rt" or told.get("pure") is True
