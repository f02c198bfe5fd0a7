"""The import graph is the data flow: constitution <- prompts <- judge <- train <- preceptor."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = ("constitution", "prompts", "judge", "train", "preceptor")
MODULES = sorted(path for package in ORDER for path in (ROOT / package).rglob("*.py"))
STAGES = {
    "judge": {"respond", "revise", "compare", "label", "audit"},
    "train": {"sft", "reward", "dpo", "ppo", "evaluate"},
}
"""Modules that never import one another; `compare` is the exception, the ask on which `label` stands."""
TRAINING = {
    f"preceptor/{name}.py"
    for name in [
        "beside",
        "config",
        "evaluation",
        "guarding",
        "pipeline",
        "plots",
        "probes",
        "report",
        "rounds",
        "run_plan",
        "running",
    ]
}
"""The application's modules that only training commands import, and so may import `train` at once."""
TORCH = {"torch", "transformers", "trl", "peft", "accelerate", "safetensors"}
LOCAL = {f"judge/models/{name}.py" for name in ("local", "loading", "branches", "passes")}
"""The local model's modules, which may import torch, and only inside functions."""
SDKS = {"openai", "anthropic"}
WHERE_USED = {"ray", "psycopg"}
"""Extras, imported by the functions that need them."""
SPEAKERS = {
    f"judge/models/{name}{part}.py" for name in ("openai", "anthropic") for part in ("", "_codec", "_batch")
}
"""The only modules that import a provider's SDK."""


def imports(path: Path) -> list[tuple[str, bool]]:
    """Every module that a file imports, with whether the import stands at module level and runs there."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        top = node in tree.body
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [(f"{node.module}.{alias.name}", top) for alias in node.names]
    return found


def test_the_walk_finds_the_modules() -> None:
    assert len(MODULES) > 40


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    later = set(ORDER[ORDER.index(package) + 1 :])
    wrong = [name for name, _ in imports(path) if name.split(".")[0] in later]
    assert wrong == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_libraries_stay_in_their_rooms(path: Path) -> None:
    place = path.relative_to(ROOT).as_posix()
    for name, top in imports(path):
        root = name.split(".")[0]
        if root in TORCH:
            assert place.startswith("train/") or (place in LOCAL and not top), f"{place} imports {name}"
        assert root not in WHERE_USED or not top, f"{place} imports {name} at module level"
        if root in SDKS:
            assert place in SPEAKERS, f"{place} imports {name}"
        if root == "train" and place.startswith("preceptor/") and place not in TRAINING:
            assert not top, f"{place} imports {name} at module level"


@pytest.mark.parametrize(("package", "stages"), STAGES.items())
def test_stages_do_not_import_one_another(package: str, stages: set[str]) -> None:
    for stage in stages:
        others = {f"{package}.{other}" for other in stages - {stage, "compare"}}
        found = {name for name, _ in imports(ROOT / package / f"{stage}.py")}
        assert not [name for name in found for other in others if name.startswith(f"{other}.")], stage


def test_the_command_line_starts_without_torch_or_an_sdk() -> None:
    code = "import sys, preceptor.cli.app; print(sorted(set(sys.modules) & set(sys.argv[1:])))"
    heavy = sorted(TORCH | SDKS | WHERE_USED | {"pydantic", "sqlalchemy", "sklearn", "scipy", "matplotlib"})
    ran = subprocess.run(
        [sys.executable, "-c", code, *heavy], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert ran.stdout.strip() == "[]"
