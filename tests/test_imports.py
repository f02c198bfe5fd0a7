"""The import graph is the data flow: between packages, between the folders of a package, and between files."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("constitution", "prompts", "judge", "train", "preceptor")
"""The folders at the top. Each imports only those before it."""
FOLDERS = {
    "constitution": ("errors.py", "outputs.py", "foreign.py", "added.py", "checks", "", "forms"),
    "prompts": ("", "layouts", "pools", "templates"),
    "judge": (
        "errors.py",
        "clock.py",
        "records.py",
        "groupings.py",
        "settings.py",
        "statistics.py",
        "models",
        "models/http",
        "models/local",
        "models/openai",
        "models/anthropic",
        "ledger",
        "asking",
        "",
        "voting",
        "audit",
        "dataset",
        "reward.py",
    ),
    "train": (
        "errors.py",
        "distributed.py",
        "losses.py",
        "pair_losses.py",
        "settings.py",
        "models",
        "data",
        "forward",
        "estimate",
        "loop",
        "rollout",
        "ppo",
        "grpo",
        "evaluation",
        "guard",
        "export",
        "",
        "embedded",
    ),
    "preceptor": (
        "",
        "asking",
        "label",
        "workbench",
        "evaluation",
        "report",
        "run",
        "serve",
        "cli",
        "reference",
        "__main__.py",
    ),
}
"""The rooms of a package, from those that know less to those that know more. A room imports none after it. A file at
the top of a package is a room of its own where it is named; the others there are together the room ""."""
TORCH = {"torch", "transformers", "trl", "peft", "accelerate", "safetensors"}
SDKS = {"openai", "anthropic"}
ROOM_OF = (
    (TORCH, ("train/", "judge/models/local/")),
    (SDKS, ("judge/models/openai/", "judge/models/anthropic/")),
    ({"ray"}, ("preceptor/asking/",)),
    ({"sqlalchemy", "psycopg"}, ("judge/ledger/", "preceptor/serve/")),
    ({"fastapi", "starlette", "uvicorn", "prometheus_client"}, ("preceptor/serve/",)),
    ({"sqlite3"}, ("judge/ledger/", "train/forward/reference_cache.py")),
)
"""Libraries, and the rooms that may import them."""
IN_FUNCTIONS = TORCH | {"ray", "psycopg"}
"""Libraries of extras: outside `train/` they are imported by the functions that need them."""
TRAINING = ("preceptor/run/", "preceptor/evaluation/", "preceptor/report/")
"""Rooms of the application that only training commands import, and so may import `train` at once."""
TORCHLESS = "preceptor.train.settings."
"""What a command line may import of `train` at once, to make flags of it."""


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by the name under which it is imported."""
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            place = path.relative_to(ROOT).with_suffix("").as_posix().removesuffix("/__init__")
            name = place.replace("/", ".")
            found[name if package == "preceptor" else f"preceptor.{name}"] = path
    return found


PATHS = sorted(modules().values())
BY_PATH = pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.relative_to(ROOT)))


@cache
def imports(path: Path) -> tuple[tuple[str, bool], ...]:
    """(name, whether it is imported as the file is) of everything that a file imports to use it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found: list[tuple[str, bool]] = []
    for node in ast.walk(tree):
        top = node in tree.body
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [(f"{node.module}.{alias.name}", top) for alias in node.names]
    return tuple(found)


@cache
def ours(path: Path) -> frozenset[Path]:
    """The files of the package that a file imports."""
    found = set()
    for name, _ in imports(path):
        while name and name not in modules():
            name = name.rpartition(".")[0]
        if name and name != "preceptor":
            found.add(modules()[name])
    return frozenset(found - {path})


def room(path: Path) -> tuple[str, str]:
    """(package, folder) of a file; the folder of a package's top files is empty."""
    package, *between, _ = path.relative_to(ROOT).parts
    return package, "/".join(between)


def rank(path: Path) -> int:
    """The place of a file's room in the order of its package; a folder that is not named belongs to the one above."""
    package, folder = room(path)
    order = FOLDERS[package]
    if not folder and path.name in order:
        return order.index(path.name)
    while folder not in order:
        folder = folder.rpartition("/")[0]
    return order.index(folder)


def circle(graph: Mapping[Path, frozenset[Path]]) -> list[str]:
    """The files of one circle, or none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [str(path.relative_to(ROOT)) for path in error.args[1]]
    return []


def backwards(path: Path) -> Iterator[str]:
    """Imports of a file that run against the order of the packages or of the rooms."""
    package, _ = room(path)
    for other in ours(path):
        its_package, _ = room(other)
        further = PACKAGES.index(its_package) - PACKAGES.index(package)
        if further > 0 or (not further and rank(other) > rank(path)):
            yield f"{path.relative_to(ROOT)} imports {other.relative_to(ROOT)}"


def test_every_module_is_walked() -> None:
    tracked = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert len(modules()) == len(tracked)
    assert any(ours(path) for path in PATHS)


def test_every_folder_has_a_place_in_the_order() -> None:
    for package, order in FOLDERS.items():
        there = {room(path)[1] for path in PATHS if room(path)[0] == package} - {""}
        subfolders = {
            folder for folder in there if not any(folder.startswith(f"{one}/") for one in order if one)
        }
        data = {"library", "embedded/weights"}
        assert subfolders - data <= set(order), package


@BY_PATH
def test_imports_point_one_way(path: Path) -> None:
    assert list(backwards(path)) == []


def test_no_circle_of_files() -> None:
    assert circle({path: ours(path) for path in PATHS}) == []


def test_the_circle_is_found() -> None:
    one, two = PATHS[:2]
    assert circle({one: frozenset({two}), two: frozenset({one})})


@BY_PATH
def test_everything_is_imported_by_its_one_name(path: Path) -> None:
    """The folders at the top are no packages of their own, though Python would find them at the repository's root."""
    assert [name for name, _ in imports(path) if name.split(".")[0] in PACKAGES[:-1]] == []


@BY_PATH
def test_the_embedded_model_is_reached_by_its_entry_point_alone(path: Path) -> None:
    """It is a model like any other, with a world of its own: whoever wants it asks the registry for it."""
    embedded = ROOT / "train/embedded"
    if not path.is_relative_to(embedded):
        assert [str(other) for other in ours(path) if other.is_relative_to(embedded)] == []


@BY_PATH
def test_libraries_stay_in_their_rooms(path: Path) -> None:
    place = path.relative_to(ROOT).as_posix()
    for name, top in imports(path):
        root = name.split(".")[0]
        for libraries, rooms in ROOM_OF:
            assert root not in libraries or place.startswith(rooms), f"{place} imports {name}"
        if root in IN_FUNCTIONS and not place.startswith("train/"):
            assert not top, f"{place} imports {name} at module level"
        if (
            name.startswith("preceptor.train.")
            and place.startswith("preceptor/")
            and not name.startswith(TORCHLESS)
        ):
            assert not top or place.startswith(TRAINING), f"{place} imports {name} at module level"


def test_help_of_a_training_needs_no_torch() -> None:
    loaded = "import sys, preceptor.cli.train.offline, preceptor.cli.train.ppo"
    code = f"{loaded}; print(*{{'torch', 'trl'}} & {{*sys.modules}})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ran.stdout.strip() == ""


def test_the_command_line_starts_without_torch_or_an_sdk() -> None:
    code = "import sys, preceptor.cli.app; print(sorted(set(sys.modules) & set(sys.argv[1:])))"
    heavy = (
        TORCH
        | SDKS
        | {"fastapi", "uvicorn", "ray", "psycopg", "pydantic", "sqlalchemy", "sklearn", "scipy", "matplotlib"}
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, *sorted(heavy)], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert ran.stdout.strip() == "[]"
