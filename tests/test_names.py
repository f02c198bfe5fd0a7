"""One word, one thing: a public class name is defined once, whatever package it is in."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("constitution", "prompts", "judge", "train", "preceptor")
ROWS = ("Prompt", "Response", "Critique", "Revision", "Judgement", "Preference")
"""The rows of the data: each word is one class, in the module of its package's records."""
SHAPES = ("Bool", "Float", "Float32", "Int64", "Shaped")
"""jaxtyping's: an alias of one of these is the shape of an array, which every module writes down for itself."""
TWICE: dict[str, str] = {}
"""Name -> why it may be defined more than once."""


def _capitalised(name: str) -> bool:
    return name[0].isupper() and not name.isupper()


def _names(tree: ast.Module) -> Iterator[str]:
    """Public classes and aliases of types, but type variables and shapes."""
    for node in tree.body:
        match node:
            case ast.ClassDef(name=name):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                called = isinstance(value, ast.Call) and ast.unparse(value.func) == "TypeVar"
                shape = isinstance(value, ast.Subscript) and ast.unparse(value.value) in SHAPES
                if _capitalised(name) and not called and not shape:
                    yield name


def _defined() -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for name in _names(ast.parse(path.read_text(encoding="utf-8"))):
                if not name.startswith("_"):
                    found[name].append(str(path.relative_to(ROOT)))
    return found


DEFINED = _defined()


def test_public_class_names_are_unique_but_for_a_short_list() -> None:
    twice = {name: paths for name, paths in DEFINED.items() if len(paths) > 1 and name not in TWICE}
    assert not twice, "name each thing for what it is:\n" + "\n".join(
        f"  {name}: {', '.join(paths)}" for name, paths in sorted(twice.items())
    )


def test_the_short_list_holds_no_name_that_is_unique() -> None:
    assert [name for name in TWICE if len(DEFINED[name]) < 2] == []


def test_the_words_of_the_rows_mean_one_thing() -> None:
    assert {name: DEFINED[name] for name in ROWS} == {
        "Prompt": ["prompts/records.py"],
        **{name: ["judge/records.py"] for name in ROWS[1:]},
    }
