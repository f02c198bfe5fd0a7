"""What commands leave behind as JSON has the keys that its type declares, all of them and no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import pytest

from preceptor.judge.dataset.manifest import LabelManifest
from preceptor.judge.figures import AuditFigures
from tests.command_line import Preceptor
from tests.declared import faults
from tests.servers.llm import LLMServer


@pytest.fixture
def pairs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [
        {
            "id": f"pair-{n}",
            "prompt": {"id": f"p{n}", "messages": [{"role": "user", "content": f"ask {n}"}], "tags": ["t"]},
            "response_a": f"quality={n} and so on",
            "response_b": f"quality={9 - n}",
            "preferred": "a" if n > 4 else "b",
        }
        for n in range(1, 9)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_of_a_label_folder(pairs: Path, preceptor: Preceptor, start_server: Callable[..., LLMServer]) -> None:
    """Alone, and with everything that adds figures: a panel, steps, canaries, a second look."""
    server = start_server()
    words = (
        "label",
        "pairs.jsonl",
        "-c",
        "helpful-harmless",
        "--base-url",
        server.url,
        "--judge",
        "openai/x",
    )
    more = (
        *("--judge", "openai/y", "--escalate-to", "openai/z", "--when", "margin < 0.5"),
        *("--canaries", "50%", "--recheck", "99%"),
    )
    for out, flags in (("plain", ()), ("all", more)):
        ended = preceptor(*words, *flags, "--out", out)
        assert ended.code == 0, ended.err
        manifest = json.loads((pairs / out / "manifest.json").read_text())
        assert list(faults(manifest, LabelManifest)) == []
    assert {"votes", "steps", "canaries", "drift"} <= manifest["audit"].keys(), (
        "each of them was there to be seen"
    )


@pytest.mark.usefixtures("pairs")
def test_of_an_audit(preceptor: Preceptor, start_server: Callable[..., LLMServer]) -> None:
    server = start_server()
    words = ("audit", "pairs.jsonl", "-c", "style", "--judge", "openai/x", "--base-url", server.url)
    ended = preceptor(*words, "--attacks", "--recheck", "50%", "--json")
    assert ended.code == 0, ended.err
    assert list(faults(json.loads(ended.out), AuditFigures)) == []


class Inner(TypedDict):
    share: float | None


class Outer(TypedDict):
    n: int
    rows: list[Inner]
    by_name: NotRequired[dict[str, Inner]]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"n": 1, "rows": [{"share": 1}, {"share": None}], "by_name": {"a": {"share": 0.5}}}, ""),
        ({"rows": []}, ".n: is missing"),
        ({"n": 1, "rows": [], "more": 2}, ".more: is not declared by Outer"),
        ({"n": 1, "rows": [{}]}, ".rows[0].share: is missing"),
        ({"n": True, "rows": []}, ".n: True is no <class 'int'>"),
        (
            {"n": 1, "rows": [], "by_name": {"a": {"share": "x"}}},
            ".by_name.a.share: 'x' is no <class 'float'>",
        ),
        ({"n": 1, "rows": None}, ".rows: None is no list"),
    ],
)
def test_a_key_too_many_or_too_few_or_of_another_type_is_told(value: Any, told: str) -> None:
    assert "".join(faults(value, Outer)) == told
