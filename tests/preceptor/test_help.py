"""What a new user meets first: help, version, init, doctor."""

from __future__ import annotations

import json
from pathlib import Path

from typer.main import get_command

from preceptor import __version__
from preceptor.cli.app import app
from preceptor.constitution.files import load as load_constitution
from preceptor.constitution.lint import lint
from preceptor.run.config import load
from tests.command_line import Preceptor


def test_help_lists_every_command(preceptor: Preceptor) -> None:
    ended = preceptor("--help")
    assert ended.code == 0
    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert len(commands) > 15
    for command in commands:
        assert f" {command} " in ended.out


def test_version(preceptor: Preceptor) -> None:
    assert preceptor("--version").out.strip() == __version__


def test_what_init_writes_can_be_used(preceptor: Preceptor) -> None:
    assert preceptor("init", "mine").code == 0
    config = load(Path("mine/run.yaml"))
    constitution = load_constitution(config.constitution)
    assert lint(constitution) == ()
    assert len(constitution.principles) > 10
    again = preceptor("init", "mine")
    assert (again.code, "choose another name" in again.err) == (2, True)


def test_doctor_finds_the_embedded_model_and_shows_no_key(preceptor: Preceptor) -> None:
    ended = preceptor("doctor", "--json")
    found = json.loads(ended.out)
    assert ended.code == 0
    assert found["embedded model"]["found"].startswith("weights:")
    assert found["smollm2"]["ok"] or "preceptor[smollm2]" in found["smollm2"]["found"]
    assert found["OPENAI_API_KEY"] == {"found": "not set", "ok": False}


def test_prompt_pools_are_listed_and_shown(preceptor: Preceptor) -> None:
    assert "front-desk-held-out\t" in preceptor("prompts", "list").out
    rows = preceptor("prompts", "show", "starter", "--limit", 2).out.splitlines()
    assert [json.loads(row)["messages"][0]["role"] for row in rows] == ["user", "user"]


def test_quickstart_names_the_models_that_it_knows(preceptor: Preceptor) -> None:
    ended = preceptor("quickstart", "--model", "smolm2")
    assert ended.code == 2
    assert "wanted embedded or smollm2" in ended.err
    assert not Path("quickstart").exists()
