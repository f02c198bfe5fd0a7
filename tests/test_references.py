"""What docstrings and comments name in backticks exists: modules, and what is in them."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("constitution", "prompts", "judge", "train", "preceptor")
REFERENCE = re.compile(
    r"`((?:preceptor\.)?(?:constitution|prompts|judge|train|preceptor)(?:\.\w+)+)(?:\(\))?`"
)
"""A dotted name below one of the packages, with or without `preceptor.` before it."""
FILE = re.compile(r"\.(?:json|jsonl|parquet|csv|yaml|yml|py|html|md)$")
GROUP = re.compile(r"\"(preceptor\.\w+)\"")
"""The name of a group of entry points, as the code has it."""
TEST = re.compile(r"\btests/[\w/]+\.py\b")
TEST_FUNCTION = re.compile(r"(tests/[\w/]+\.py)::(\w+)")
APART = ("CHANGELOG.md", "cli.md")
"""Pages of the past, and of flags and the keys of run files, which look alike."""


def _said(path: Path) -> Iterator[str]:
    """The comments and the strings of a file."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            yield token.string


def _holds(tree: ast.AST, names: list[str]) -> bool:
    """Whether the module or class defines the first name, and so on inward."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found = name
            case ast.Name(id=name, ctx=ast.Store()):
                found = name
            case ast.Attribute(attr=name, ctx=ast.Store()):
                found = name
            case ast.alias(name=name, asname=other):
                found = other or name
            case _:
                continue
        if found == names[0] and (len(names) == 1 or _holds(node, names[1:])):
            return True
    return False


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _exists(reference: str) -> bool:
    parts = reference.removeprefix("preceptor.").split(".")
    if parts[0] not in PACKAGES:
        parts = ["preceptor", *parts]
    for length in range(len(parts), 0, -1):
        module = ROOT.joinpath(*parts[:length])
        path = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
        if path.is_file():
            return length == len(parts) or _holds(_tree(path), parts[length:])
    return False


def _references() -> dict[str, set[str]]:
    """Reference -> the files that make it."""
    found: dict[str, set[str]] = {}
    sources = [path for folder in PACKAGES for path in (ROOT / folder).rglob("*.py")]
    groups = {name for path in sources for name in GROUP.findall(path.read_text(encoding="utf-8"))}
    for folder in (*PACKAGES, "tests", "benchmarks", "examples"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for text in _said(path):
                for reference in REFERENCE.findall(text):
                    if reference not in groups and not FILE.search(reference):
                        found.setdefault(reference, set()).add(str(path.relative_to(ROOT)))
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")):
        if path.name in APART:
            continue
        for reference in REFERENCE.findall(path.read_text(encoding="utf-8")):
            if reference not in groups and not FILE.search(reference):
                found.setdefault(reference, set()).add(str(path.relative_to(ROOT)))
    return found


def test_what_is_named_in_backticks_exists() -> None:
    references = _references()
    assert len(references) > 50
    missing = {name: files for name, files in references.items() if not _exists(name)}
    assert not missing, "\n".join(
        f"{name}: {', '.join(sorted(files))}" for name, files in sorted(missing.items())
    )


def test_tests_that_are_named_exist() -> None:
    sources = [path for folder in PACKAGES for path in (ROOT / folder).rglob("*.py")]
    pages = [path for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")) if path.name not in APART]
    named = {
        (test, path.name)
        for path in (*sources, *pages)
        for test in TEST.findall(path.read_text(encoding="utf-8"))
    }
    assert len(named) > 20
    assert not [(test, page) for test, page in sorted(named) if not (ROOT / test).is_file()]
    functions = {
        (file, function, path.name)
        for path in (*sources, *pages)
        for file, function in TEST_FUNCTION.findall(path.read_text(encoding="utf-8"))
    }
    assert len(functions) > 40
    texts = {file: (ROOT / file).read_text(encoding="utf-8") for file, _, _ in functions}
    assert not [one for one in sorted(functions) if f"def {one[1]}(" not in texts[one[0]]]


def test_a_name_that_is_not_there_is_missed() -> None:
    assert _exists("train.losses.hinge")
    assert not _exists("train.losses.no_such_loss")
    assert not _exists("train.no_such_module.hinge")
