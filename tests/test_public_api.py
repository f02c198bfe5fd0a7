"""What docs/python.md calls public is there, in `__all__` of its module, and the examples of the page run."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

PAGE = Path(__file__).parent.parent / "docs" / "python.md"
PACKAGES = ("constitution", "prompts", "judge", "train")


def named() -> list[str]:
    """The dotted names of the page's table, those that share a beginning written out."""
    found = []
    for cell in re.findall(r"(?m)^\| (`.*?) \|", PAGE.read_text(encoding="utf-8")):
        first, *others = re.findall(r"`([\w.]+)`", cell)
        found.append(first)
        for other in others:
            package = first.split(".")[:2]
            found.append(".".join([*package, other]))
    return found


def test_the_page_names_some() -> None:
    assert len(named()) >= 11


@pytest.mark.parametrize("name", named())
def test_what_is_named_is_there_and_told(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    found = getattr(importlib.import_module(module), attribute)
    assert found.__doc__
    assert attribute in importlib.import_module(module).__all__


@pytest.mark.parametrize("name", sorted({name.rpartition(".")[0] for name in named()}))
def test_all_is_sorted_and_true(name: str) -> None:
    module = importlib.import_module(name)
    assert list(module.__all__) == sorted(module.__all__)
    for each in module.__all__:
        assert hasattr(module, each), each


def test_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = [
        token.content
        for token in MarkdownIt().parse(PAGE.read_text(encoding="utf-8"))
        if token.type == "fence" and token.info == "python"
    ]
    assert len(blocks) == 3
    for text in blocks:
        exec(compile(text, str(PAGE), "exec"), {"__name__": "page"})
    rows, loss, rewards, known = capsys.readouterr().out.splitlines()
    assert "'in': 2" in rows
    assert float(loss) > 0
    assert -1 <= float(rewards.strip("[]")) <= 1
    assert known == "0"
