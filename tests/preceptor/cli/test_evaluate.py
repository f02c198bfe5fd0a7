"""`preceptor evaluate` on files whose columns have other names, and with replies that were cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import Preceptor
from tests.servers.llm import LLMServer

Start = Callable[..., LLMServer]

WORDS = "evaluate --policy openai/new --baseline openai/old --judge checks -c style --json"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_columns_have_other_names_and_cut_replies_are_counted(
    place: Path, preceptor: Preceptor, start_server: Start
) -> None:
    """Cut replies are compared unless they are left out, and either is said with the count."""
    server = start_server(faults=["truncate"] * 30)
    rows = [{"question": f"Why {number}?", "prompt": 3} for number in range(3)]
    (place / "named.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def evaluated(*more: object) -> tuple[int, Any, str]:
        ended = preceptor(*WORDS.split(), "--base-url", server.url, "--prompts", "named.jsonl", *more)
        return ended.code, json.loads(ended.out) if ended.out else None, ended.err

    code, _, said = evaluated()
    assert code == 2
    assert "prompt is a number" in said
    code, figures, said = evaluated("--map", "prompt=question")
    assert (code, figures["n"]) == (0, 3), said
    assert "6 of 6 samples were cut at --max-tokens, and are kept" in said
    code, _, said = evaluated("--map", "prompt=question", "--truncated", "drop")
    assert code == 2
    assert "6 of 6 samples were cut at --max-tokens, and are left out" in said
