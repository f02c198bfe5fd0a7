"""`doctor --models`: what the providers' lists say of the models that are named. And a model that is gone is told
before anything is asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from preceptor.judge.asking import prices
from tests.command_line import Preceptor
from tests.preceptor.conftest import AtHome
from tests.servers.llm import LLMServer

Start = Callable[..., LLMServer]


def claude(name: str, lifecycle: str = "active", retires_at: str | None = None) -> dict[str, Any]:
    def can(*names: str) -> dict[str, Any]:
        return {name: {"supported": True} for name in names} | {"supported": True}

    return {
        "id": name,
        "type": "model",
        "lifecycle": lifecycle,
        "retires_at": retires_at,
        "capabilities": {
            "effort": can("low", "medium", "high") | {"max": {"supported": False}},
            "thinking": can() | {"types": {"disabled": {"supported": True}}},
            "structured_outputs": {"supported": True},
        },
    }


def gpt(name: str, shutdown_date: str | None = None) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "openai", "shutdown_date": shutdown_date}


def found(ended: Any) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(ended.out)
    return told


def test_there_until_when_and_what_each_can_do(
    preceptor: Preceptor, start_server: Start, at_home: AtHome
) -> None:
    server = start_server(
        models=[
            gpt("gpt-6-luna"),
            gpt("gpt-6.1-sol"),
            gpt("gpt-5-mini", "2026-12-11"),
            claude("claude-haiku-5-5-20261007"),
            claude("claude-sonnet-4-5-20250929", "retired", "2026-11-30T00:00:00Z"),
        ],
        page=2,
    )
    at_home(server)
    names = (
        "openai/gpt-6-luna",
        "openai/gpt-6.1-sol",
        "openai/gpt-5-mini",
        "anthropic/claude-haiku-5-5",
        "embedded",
    )
    words = [word for name in names for word in ("--judge", name)]
    ended = preceptor("doctor", "--models", *words, "--json")
    told = found(ended)
    assert ended.code == 0, ended.out
    assert server.bodies == [], "nothing that is paid for was asked"
    assert [told[name]["there"] for name in names] == [True] * 5
    assert told[names[0]] | {"found": ""} == {
        "found": "",
        "ok": True,
        "there": True,
        "gone_on": None,
        "retired": False,
        "successor": None,
        "efforts": ["none", "low", "medium", "high", "xhigh", "max"],
        "logprobs": "with effort none",
        "structured": True,
    }
    assert told[names[1]]["logprobs"] == "never"
    assert (told[names[2]]["gone_on"], told[names[2]]["successor"]) == ("2026-12-11", "openai/gpt-6.1-terra")
    assert "there until 2026-12-11; its successor is openai/gpt-6.1-terra" in told[names[2]]["found"]
    assert told[names[3]]["efforts"] == ["none", "low", "medium", "high"], (
        "its own list goes before our table"
    )
    assert "openai/gpt-5-mini is shut down on 2026-12-11, in 11 days" in ended.err

    gone = preceptor("doctor", "--models", "--policy", "anthropic/claude-sonnet-4-5", "--json")
    told = found(gone)["anthropic/claude-sonnet-4-5"]
    assert (gone.code, told["ok"], told["retired"]) == (1, False, True)
    assert told["found"] == (
        "in the list, and retired; shut down on 2026-11-30; its successor is anthropic/claude-sonnet-5-5"
    )


def test_any_compatible_server_is_asked_and_a_name_that_is_not_there_has_its_neighbours(
    preceptor: Preceptor, start_server: Start
) -> None:
    server = start_server(models=[{"id": "qwen3:latest"}, {"id": "llama-3-8b"}])
    there = preceptor("doctor", "--models", "--judge", "openai/qwen3", "--base-url", server.url)
    assert there.code == 0
    assert there.out.split(maxsplit=2) == [
        "ok",
        "openai/qwen3",
        "there; nothing is known of --effort; perhaps token probabilities\n",
    ]
    missing = preceptor("doctor", "--models", "--judge", "openai/lama-3-8b", "--base-url", server.url)
    assert (missing.code, "not in the list of 2 models; near it: llama-3-8b" in missing.out) == (1, True)


def test_a_server_without_a_list_is_said(preceptor: Preceptor, start_server: Start) -> None:
    ended = preceptor("doctor", "--models", "--judge", "openai/m", "--base-url", start_server().url)
    assert (ended.code, "/v1/models answered 404: it gives none" in ended.out) == (1, True), ended.out


def test_no_name_and_no_key_and_no_provider(preceptor: Preceptor) -> None:
    nothing = preceptor("doctor", "--models")
    assert (nothing.code, "name a run file, or one with --judge or --policy" in nothing.err) == (2, True)
    keyless = preceptor("doctor", "--models", "--judge", "openai/gpt-6-luna")
    assert (keyless.code, "OPENAI_API_KEY is not set" in keyless.out) == (1, True)
    unknown = preceptor("doctor", "--models", "--judge", "opena/gpt-6-luna")
    assert (unknown.code, "did you mean openai" in unknown.err) == (2, True)


def test_a_run_file_names_the_models(preceptor: Preceptor, start_server: Start, at_home: AtHome) -> None:
    at_home(start_server(models=[gpt("gpt-6-luna"), gpt("gpt-6-sol")]))
    Path("run.yaml").write_text(
        "out: here\nmodel: embedded\njudge: openai/gpt-6-luna\ncritic: openai/gpt-6-sol\nrevise: {}\n"
        "constitution: style\nprompts: {file: starter}\nevaluate: {judge: checks}\n"
    )
    told = found(preceptor("doctor", "run.yaml", "--models", "--json"))
    assert list(told) == ["embedded", "openai/gpt-6-sol", "openai/gpt-6-luna"]


ROW = {"prompt": "q", "response_a": "quality=1", "response_b": "quality=2", "text": "r", "model": "m"}
GONE = "anthropic/claude-sonnet-4-5"


@pytest.mark.parametrize(
    "words",
    [
        ("label", "rows.jsonl", "-c", "style", "--out", "out", "--judge", GONE),
        ("label", "rows.jsonl", "-c", "style", "--out", "out", "--judge", GONE, "--batch"),
        (
            "label",
            "rows.jsonl",
            "-c",
            "style",
            "--out",
            "out",
            "--judge",
            "openai/gpt-6-luna",
            "--escalate-to",
            GONE,
        ),
        ("respond", "rows.jsonl", "--out", "out.jsonl", "--model", GONE),
        ("score", "rows.jsonl", "-c", "style", "--out", "out.jsonl", "--judge", GONE),
        ("audit", "gold.jsonl", "-c", "style", "--judge", GONE),
    ],
)
def test_a_model_that_is_gone_is_told_before_anything_is_asked(
    preceptor: Preceptor, start_server: Start, at_home: AtHome, words: tuple[str, ...]
) -> None:
    server = start_server()
    at_home(server)
    pair = {name: ROW[name] for name in ("prompt", "response_a", "response_b")}
    Path("rows.jsonl").write_text(json.dumps(pair) + "\n")
    Path("gold.jsonl").write_text(json.dumps({**pair, "preferred": "a"}) + "\n")
    ended = preceptor(*words)
    assert ended.code == 2, ended.err
    assert f"{GONE} was shut down on 2026-11-30: name anthropic/claude-sonnet-5-5" in ended.err
    assert server.bodies == []
    assert server.paths == []


def test_what_a_model_that_is_gone_has_answered_stays_of_use(
    preceptor: Preceptor, start_server: Start, at_home: AtHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server()
    at_home(server)
    pair = {name: ROW[name] for name in ("prompt", "response_a", "response_b")}
    Path("rows.jsonl").write_text(json.dumps(pair) + "\n")
    words = ("label", "rows.jsonl", "-c", "style", "--judge", GONE, "--out")
    monkeypatch.setattr(prices, "today", lambda: date(2026, 11, 29))
    assert preceptor(*words, "a").code == 0
    asked = len(server.bodies)
    monkeypatch.setattr(prices, "today", lambda: date(2026, 12, 1))
    assert preceptor(*words, "b").code == 0
    assert len(server.bodies) == asked > 0
