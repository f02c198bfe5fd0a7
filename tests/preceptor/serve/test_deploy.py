"""What deploy/ holds names commands, options and a configuration that are there. No image is built here."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from typer.main import get_command

from preceptor.cli.app import app
from preceptor.serve.config import read_config

DEPLOY = Path(__file__).parents[3] / "deploy"


def documents(name: str) -> list[Any]:
    return list(YAML(typ="safe", pure=True).load_all((DEPLOY / name).read_text(encoding="utf-8")))


def commands() -> Iterator[list[str]]:
    """Every command line of Preceptor's."""
    yield json.loads(re.findall(r"^CMD (.*)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)[-1])
    (started,) = re.findall(r"^ExecStart=(.*)$", (DEPLOY / "preceptor.service").read_text(), re.MULTILINE)
    yield ["preceptor", *shlex.split(started)[1:]]
    (compose,) = documents("compose.yaml")
    yield from (one["command"] for one in compose["services"].values() if "command" in one)
    for one in documents("kubernetes/preceptor.yaml"):
        if one["kind"] == "Deployment":
            yield from (box["args"] for box in one["spec"]["template"]["spec"]["containers"])


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_a_command_and_its_options_are_there(words: list[str]) -> None:
    program, name, *rest = words
    assert program == "preceptor"
    command = get_command(app).commands[name]  # type: ignore[attr-defined]
    command.make_context(name, list(rest), resilient_parsing=False)


def test_the_configuration_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    assert set(read_config(DEPLOY / "serve.yaml").rewards) == {"good"}
