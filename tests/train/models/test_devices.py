"""One choice of device, for every training and its plan."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

import preceptor.train
from preceptor.train.models.base import load_base
from preceptor.train.ppo.roles import open_roles
from preceptor.train.settings import PpoSettings


def test_one_function_chooses_the_device_of_all_trainings() -> None:
    """A choice between `cuda` and `cpu` anywhere else could differ from it, as PPO's did from its plan's."""
    package = Path(preceptor.train.__file__).parent
    choices = [
        f"{path.name}:{node.lineno}"
        for path in sorted(package.rglob("*.py"))
        if path.name != "devices.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.IfExp)
        and {"cuda", "cpu"} & {leaf.value for leaf in ast.walk(node) if isinstance(leaf, ast.Constant)}
        and "is_available" in {leaf.attr for leaf in ast.walk(node) if isinstance(leaf, ast.Attribute)}
    ]
    assert choices == []


def test_ppo_stands_where_all_trainings_do(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On `meta`, since no machine has every device."""
    monkeypatch.setattr("preceptor.train.ppo.roles.training_device", lambda: torch.device("meta"))
    roles = open_roles(load_base(str(tiny)), PpoSettings(model=str(tiny), rank=2), None)
    assert roles.device.type == "meta"
    assert {weight.device.type for weight in roles.adapted.parameters()} == {"meta"}
