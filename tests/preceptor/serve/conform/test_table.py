"""The kit of failures: it finds invented numbers where there are some, and ours invents none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from preceptor.constitution.errors import UserError
from preceptor.serve.conform.clients import CONTROL, OWN
from preceptor.serve.conform.failing import FAILURES
from preceptor.serve.conform.table import Table, invented, looked_at, markdown_of
from tests.command_line import Preceptor

PAGE = Path(__file__).parents[4] / "docs" / "service.md"


@pytest.fixture(scope="module")
def table() -> Table:
    return looked_at([*OWN, CONTROL])


def test_ours_invents_nothing_at_any_of_twelve_failures(table: Table) -> None:
    assert len(table) == 12
    assert [found for found in invented(table) if found[1] != CONTROL] == []
    for failure, row in table.items():
        for name in OWN:
            right = FAILURES[failure].has_rewards
            assert (row[name].outcome == "right") is right, (failure, name, row[name])


def test_a_client_that_invents_is_found_out(table: Table) -> None:
    """At every failure but a late answer, which it waits for, and NaN, which trainers leave out."""
    found = {failure for failure, name in invented(table) if name == CONTROL}
    assert found == FAILURES.keys() - {"late", "NaN"}
    assert table["reordered"][CONTROL].said == "-0.5, 0.75"


def test_the_page_shows_the_table(table: Table) -> None:
    assert markdown_of(table) in PAGE.read_text(encoding="utf-8")


def test_the_command_looks_at_ones_own_client(
    preceptor: Preceptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(OF_ONES_OWN)
    monkeypatch.syspath_prepend(tmp_path)
    ended = preceptor("conform", "mine:careful", "--json")
    assert ended.code == 0, ended.err
    told = json.loads(ended.out)
    assert told["invented"] == 0
    assert {cell["mine:careful"]["outcome"] for cell in told["failures"].values()} == {"raises", "right"}
    ended = preceptor("conform", "mine:careless")
    assert ended.code == 1
    assert "mine:careless at unknown price" in ended.err
    assert "**invented** 0.1" in ended.out
    ended = preceptor("conform", "mine:deaf")
    assert ended.code == 2
    assert "does not take a right answer" in ended.err


@pytest.mark.parametrize(("name", "said"), [("nobody", "is no client"), ("nowhere:x", "cannot be imported")])
def test_a_client_that_is_none_is_refused(name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        looked_at([name])


OF_ONES_OWN = """
import httpx

def careful(url):
    def reward(prompts, completions):
        sent = [{"id": str(n), "prompt": p, "response": c} for n, (p, c) in enumerate(zip(prompts, completions))]
        answer = httpx.post(url + "/v1/reward", json={"items": sent}, trust_env=False).raise_for_status()
        if "null" in answer.text:
            raise ValueError("no reward")
        rows = answer.json()["items"]
        found = {row["id"]: row["reward"] for row in rows}
        if len(rows) != len(sent) or any(value != value for value in found.values()):
            raise ValueError("not what was asked")
        return [found[row["id"]] for row in sent]
    return reward

def careless(url):
    def reward(prompts, completions):
        try:
            return careful(url)(prompts, completions)
        except Exception:
            return [0.1] * len(prompts)
    return reward

def deaf(url):
    return lambda prompts, completions: [None] * len(prompts)
"""
