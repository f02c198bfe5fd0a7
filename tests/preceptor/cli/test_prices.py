"""`preceptor prices`: what is known, what a file says, one entry more; and who else speaks of old prices."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from preceptor import doctor
from preceptor.judge.asking import prices as table
from tests.command_line import Preceptor

TODAY = date(2026, 11, 30)


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place of the user's own file; and the day is fixed."""
    monkeypatch.setattr(table, "today", lambda: TODAY)
    home = Path.home() / "config"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    return home / "preceptor" / "prices.yaml"


def test_show_has_every_kind_of_price(preceptor: Preceptor) -> None:
    ended = preceptor("prices", "show", "gpt-6.1-terra", "--json")
    assert json.loads(ended.out) == {
        "openai/gpt-6.1-terra": {
            "input": 1.0,
            "output": 5.0,
            "cached_input": 0.05,
            "cache_write": 1.25,
            "cache_write_long": 2.5,
            "flex_input": 0.5,
            "flex_output": 2.5,
            "batch": {"input": 0.5, "output": 2.5},
            "own": False,
            "long": [
                {"above": 272000, "input": 2.0, "output": 7.5, "cached_input": 0.1}
                | {"cache_write": 2.5, "cache_write_long": 5.0}
            ],
            "shutdown": "",
            "successor": "",
            "dated": "2026-11-30",
            "source": "https://developers.openai.com/api/docs/pricing",
        }
    }
    shown = preceptor("prices", "show", "sonnet-4-5")
    assert shown.out == ""
    assert "2026-11-30  claude-sonnet-5-5" in shown.err
    assert preceptor("prices", "show", "nothing-like-it").code == 2


def test_add_then_check_then_show(preceptor: Preceptor, own: Path) -> None:
    nothing = preceptor("prices", "check")
    assert (nothing.code, "there is no file of prices" in nothing.err) == (0, True)
    added = preceptor(
        *("prices", "add", "openai/ours", "--input", 0.2, "--output", 0.8, "--cache-write-long", 0.4),
        *("--long", "above=1000,input=1,output=2", "--flex-input", 0.1, "--flex-output", 0.4),
    )
    assert (added.code, added.out.strip()) == (0, str(own))
    assert own.read_text() == (
        "openai/ours: {input: 0.2, output: 0.8, cache_write_long: 0.4, flex_input: 0.1, flex_output: 0.4, "
        "long: [{above: 1000, input: 1.0, output: 2.0}], dated: 2026-11-30}\n"
    )
    checked = preceptor("prices", "check", "--json")
    told = json.loads(checked.out)
    assert (checked.code, told["ok"], told["faults"], told["warnings"]) == (0, True, [], [])
    assert json.loads(preceptor("prices", "show", "ours", "--json").out)["openai/ours"]["own"] is True
    again = preceptor("prices", "add", "openai/ours", "--input", 1, "--output", 1)
    assert (again.code, "add --replace" in again.err) == (2, True)


def test_check_tells_faults_by_line_and_what_is_old_or_gone(preceptor: Preceptor) -> None:
    Path("mine.yaml").write_text(
        "openai/a: {input: 1}\n"
        "openai/b: {input: 1, output: 1, dated: 2026-01-01}\n"
        "openai/c: {input: 1, output: 1, dated: 2026-11-01, shutdown: 2026-12-24, successor: d}\n"
        "openai/e: {input: 1, output: 1, dated: 2026-11-01, shutdown: 2026-11-30, successor: f}\n"
    )
    ended = preceptor("prices", "check", "mine.yaml")
    assert ended.code == 1
    lines = ended.out.splitlines()
    assert [line.split(": ")[0] for line in lines[:2]] == ["mine.yaml:1", "mine.yaml:4"]
    assert "openai/e was shut down on 2026-11-30: name openai/f" in lines[1]
    assert "note: mine.yaml:2: the price of openai/b was last checked on 2026-01-01" in lines[2]
    assert "note: mine.yaml:3: openai/c is shut down on 2026-12-24, in 24 days: name openai/d" in lines[3]
    assert len(lines) == 4
    missing = preceptor("prices", "check", "none.yaml")
    assert (missing.code, "cannot be read" in missing.err) == (2, True)


def test_the_plan_and_doctor_speak_of_old_prices_and_of_models_that_go(
    preceptor: Preceptor, own: Path
) -> None:
    Path("pairs.jsonl").write_text(json.dumps({"prompt": "q", "response_a": "a", "response_b": "b"}) + "\n")
    words = (
        "label",
        "pairs.jsonl",
        "-c",
        "style",
        "--out",
        "out",
        "--plan",
        "--base-url",
        "http://127.0.0.1:1/v1",
    )
    planned = preceptor(*words, "--judge", "openai/gpt-5-mini")
    assert planned.code == 0
    assert (
        "note: openai/gpt-5-mini is shut down on 2026-12-11, in 11 days: name openai/gpt-6.1-terra"
        in planned.err
    )
    assert "note: the price of openai/gpt-5-mini was last checked on 2025-11-01" in planned.err
    own.parent.mkdir(parents=True)
    own.write_text("openai/b: {input: 1, output: 1, dated: 2026-01-01}\n")
    shipped, mine = doctor.prices()
    assert shipped.ok
    assert "gone or going: preceptor prices show" in shipped.found
    assert not mine.ok
    assert "the price of openai/b was last checked on 2026-01-01" in mine.found
    own.write_text("openai/b: {input: 1}\n")
    assert "output: field required" in doctor.prices()[1].found


def test_doctor_finds_a_table_that_has_grown_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "today", lambda: date(2027, 6, 30))
    assert [one.ok for one in doctor.prices()] == [False]
