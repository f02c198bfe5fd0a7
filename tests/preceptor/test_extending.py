"""The examples of docs/extending.md work as they stand there: each is used as an outsider would use it.

The provider's is tests/preceptor/test_foreign_provider.py.
"""

from __future__ import annotations

import configparser
import json
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from preceptor.constitution.checks import catalogue, validate
from preceptor.constitution.checks import catalogue as listed
from preceptor.constitution.checks.catalogue import checks
from preceptor.train.pair_losses import loss_names, pair_loss
from preceptor.train.rollout.rewards import function_of
from tests.command_line import Preceptor

EXTENDING = Path(__file__).parents[2] / "examples" / "extending"
PAIR = {"prompt": "Hi", "response_a": "Good day.", "response_b": "Hi!!! Welcome!!!"}


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Lay an example's package out as an installer leaves it, and put it on the path."""

    def installed(name: str) -> None:
        source, target = EXTENDING / name, tmp_path / f"site-{name}"
        about = tomllib.loads((source / "pyproject.toml").read_text())["project"]
        info = target / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
        info.mkdir(parents=True)
        for module in source.glob("*.py"):
            shutil.copy(module, target)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n"
        )
        points = configparser.ConfigParser()
        points.read_dict(about["entry-points"])
        with (info / "entry_points.txt").open("w") as file:
            points.write(file)
        monkeypatch.syspath_prepend(str(target))
        checks.cache_clear()

    yield installed
    monkeypatch.undo()
    checks.cache_clear()


def test_every_example_is_told_and_tested() -> None:
    page = (EXTENDING.parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
    for path in EXTENDING.iterdir():
        if path.name != "__pycache__":
            assert f"examples/extending/{path.name}" in page, path.name


def test_a_check_of_ones_own_decides_in_a_constitution(
    install: Callable[[str], None], tmp_path: Path, preceptor: Preceptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert validate({"max_exclamations": 1}) != []
    install("check")
    assert validate({"max_exclamations": 1}) == []
    assert validate({"max_exclamations": -1}) == [
        "check max_exclamations with -1; wanted a whole number from 0"
    ]
    assert "max_exclamations" in [info.name for info in catalogue()]
    monkeypatch.chdir(tmp_path)
    Path("pairs.jsonl").write_text(json.dumps(PAIR) + "\n")
    Path("calm.yaml").write_text(
        "name: calm\nversion: 1.0.0\nprinciples:\n"
        "  - {id: calm, text: Choose the calmer reply., check: {max_exclamations: 1}}\n"
    )
    ended = preceptor("label", "pairs.jsonl", "-c", "calm.yaml", "--judge", "checks", "--out", "labels")
    assert ended.code == 0, ended.err
    [label] = map(json.loads, Path("labels/labels.jsonl").read_text().splitlines())
    assert (label["status"], label["probability"]) == ("ok", 1.0)


def test_an_added_check_cannot_displace_one_of_ours(install: Callable[[str], None]) -> None:
    ours = {info.name: info for info in listed()}
    install("check")
    after = {info.name: info for info in listed()}
    assert {name: after[name] for name in ours} == ours


def test_a_loss_of_ones_own_is_an_entry_of_the_table(install: Callable[[str], None]) -> None:
    install("loss")
    assert "squared" in loss_names()
    gap = torch.tensor([0.0, 2.0], requires_grad=True)  # (B,)
    loss = pair_loss("squared").loss(gap, {"beta": 0.5})
    assert loss.tolist() == [1.0, 0.0]
    loss.sum().backward()
    assert gap.grad is not None
    assert gap.grad.tolist() == [-1.0, 0.0]


def test_a_reward_of_ones_own_masks_what_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXTENDING))
    reward = function_of("reward:brevity")
    assert reward([], ["Yes.", "Yes, by all means.", ""]) == [1.0, 0.25, None]


def test_a_template_of_ones_own_is_asked_and_read(
    tmp_path: Path, preceptor: Preceptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pairs.jsonl").write_text(json.dumps(PAIR) + "\n")
    Path("judge.jsonl").write_text(
        json.dumps({"match": r"REPLY_A [0-9a-f]+>>>\s+Good", "text": "Winner: first"})
        + "\n"
        + json.dumps({"match": ".", "text": "Winner: second"})
        + "\n"
    )
    ended = preceptor(
        *("label", "pairs.jsonl", "-c", "style", "--judge", "scripted/judge.jsonl", "--out", "labels"),
        *("--template", str(EXTENDING / "strict.jinja"), "--reasoning"),
    )
    assert ended.code == 0, ended.err
    [label] = map(json.loads, Path("labels/labels.jsonl").read_text().splitlines())
    assert (label["status"], label["probability"]) == ("ok", 1.0)
