"""A provider in a package of its own, installed by pip, in every command that asks a model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from preceptor.judge.models import registry
from tests.command_line import Ended, Preceptor

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "examples" / "extending" / "provider"
JUDGE = "parrot/Verdict: A"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the package is installed, beside everything else that is."""
    target = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source")
    for path in PACKAGE.iterdir():
        if path.is_file():
            (source / path.name).write_bytes(path.read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--target", str(target), str(source)], check=True)
    return target


class User:
    """Somebody with the package at a command line."""

    def __init__(self, folder: Path, preceptor: Preceptor) -> None:
        self.folder = folder
        self._preceptor = preceptor

    def run(self, *words: str, code: int = 0) -> Ended:
        ended = self._preceptor(*words)
        assert ended.code == code, ended.err
        return ended

    def result(self, *words: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run(*words, "--json").out)
        return found


@pytest.fixture
def installs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    """Put a folder of packages on the path, for this test."""

    def forget() -> None:
        registry._added.cache_clear()
        registry._provider.cache_clear()

    def install(folder: Path) -> None:
        monkeypatch.syspath_prepend(folder)
        forget()

    yield install
    monkeypatch.undo()
    forget()


@pytest.fixture
def user(
    tmp_path: Path,
    installed: Path,
    installs: Callable[[Path], None],
    preceptor: Preceptor,
    monkeypatch: pytest.MonkeyPatch,
) -> User:
    installs(installed)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARROT_KEY", "k")
    pairs = [
        {"prompt": f"Say {n}.", "response_a": f"It is {n}.", "response_b": "No.", "preferred": "a"}
        for n in range(3)
    ]
    rows = {
        "pairs.jsonl": pairs,
        "prompts.jsonl": [{"prompt": f"Say {n}."} for n in range(3)],
    }
    for name, lines in rows.items():
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "mine.yaml").write_text(
        "name: mine\nversion: 1.0.0\nprinciples:\n"
        "  - id: good\n    text: Choose the good reply.\n    critique: Where is it bad?\n"
        "    revision: Mend it.\n    examples:\n      - {prompt: Hi., better: Hello., worse: No.}\n"
    )
    return User(tmp_path, preceptor)


def test_every_command_that_asks_takes_it(user: User) -> None:
    rules, judge = ("-c", "mine.yaml"), ("--judge", JUDGE)
    drawn = user.result("respond", "prompts.jsonl", "--model", JUDGE, "--samples", "2", "--out", "r.jsonl")
    assert drawn["calls"]["asked"] == 6
    # 2 words in, 2 tokens out, at 2 and 10 USD for a million
    assert drawn["calls"]["cost_usd"] == pytest.approx(6 * (2 * 2 + 2 * 10) / 1e6)
    assert user.result("revise", "r.jsonl", *rules, "--model", JUDGE, "--out", "v.jsonl")["revisions"] == {
        "ok": 6
    }
    user.run("label", "pairs.jsonl", *rules, *judge, "--out", "labels")
    lines = (user.folder / "labels" / "labels.jsonl").read_text().splitlines()
    labels = [json.loads(line) for line in lines]
    assert [(label["judge"], label["status"]) for label in labels] == [(JUDGE, "inconsistent")] * 3
    assert user.result("audit", "pairs.jsonl", *rules, *judge)["first_share"] == 1.0
    user.run("score", "pairs.jsonl", *rules, "--judge", "parrot/Score: 7", "--out", "scores.jsonl")
    assert "1 flipped" in user.run("constitution", "test", "mine.yaml", *judge, code=1).out


def test_its_prices_hold_the_plan_and_the_cap(user: User) -> None:
    words = ("label", "pairs.jsonl", "-c", "mine.yaml", "--judge", JUDGE, "--out", "labels")
    (line,) = user.result(*words, "--plan")["models"]
    assert line["cost_usd"] > 0
    assert line["batch_cost_usd"] is None
    assert "stopped at the budget" in user.run(*words, "--max-cost", "0.000001", code=3).err
    unknown = (*words[:-2], "--out", "others", "--max-cost", "1")
    assert "price of parrot/x is not known" in user.run(*unknown, "--judge", "parrot/x", code=2).err


def test_it_is_named_where_names_are_wanted_and_asks_for_its_own_key(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("respond", "prompts.jsonl", "--out", "r.jsonl", "--model")
    assert "did you mean parrot/…?" in user.run(*words, "parot/x", code=2).err
    said = user.run(*words, "parrot/x", "--base-url", "http://127.0.0.1:1", code=2).err
    assert "parrot/x does not take --base-url" in said
    monkeypatch.delenv("PARROT_KEY")
    assert "PARROT_KEY is not set" in user.run(*words, "parrot/x", code=4).err


def test_doctor_knows_it_and_tells_one_that_is_broken(user: User, installs: Callable[[Path], None]) -> None:
    found = user.result("doctor")
    assert found["provider parrot"] == {"found": "preceptor-parrot 1.0", "ok": True}
    assert found["PARROT_KEY"] == {"found": "set", "ok": True}
    folder = user.folder / "site" / "broken-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[preceptor.models]\nbroken = nowhere:PROVIDER\n")
    installs(user.folder / "site")
    found = user.result("doctor")
    assert "of the package broken cannot be loaded" in found["provider broken"]["found"]
    said = user.run("respond", "prompts.jsonl", "--out", "r.jsonl", "--model", "broken/x", code=2).err
    assert "of the package broken cannot be loaded (ModuleNotFoundError" in said
