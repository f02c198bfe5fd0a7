"""Every command works with the models of today by their documented rules: what each refuses, thinks and bills.

At its provider's own address a model is known by its name and nothing is refused; elsewhere its ways are learned.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from preceptor.judge.asking import batch_submit
from preceptor.judge.asking.prices import Prices
from preceptor.judge.models.anthropic import codec as anthropic
from preceptor.judge.models.effort import ROOM
from preceptor.judge.models.openai import codec as openai
from preceptor.judge.models.protocol import Request
from preceptor.judge.models.reply_limits import billed_tokens
from preceptor.prompts.records import Message
from tests.command_line import Preceptor
from tests.preceptor.conftest import AtHome
from tests.servers.llm import serve
from tests.servers.today import MODELS, NO_CHAT, THOUGHT, TodayServer, effort_of_body

NAMES = [f"{rules.protocol}/{model}" for model, rules in MODELS.items()]
PAIRS = 3


@pytest.fixture
def server() -> Iterator[TodayServer]:
    with serve(TodayServer()) as running:
        assert isinstance(running, TodayServer)
        yield running


@pytest.fixture(autouse=True)
def _rows(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FIRST_POLL_S": 0.02, "LAST_POLL_S": 0.05, "SETTLE_S": 0.2}.items():
        monkeypatch.setattr(batch_submit, name, value)
    pairs = [
        {"prompt": f"q{n}", "response_a": f"quality={9 - n}", "response_b": f"quality={n}"}
        for n in range(PAIRS)
    ]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    Path("prompts.jsonl").write_text("".join(json.dumps({"prompt": row["prompt"]}) + "\n" for row in pairs))


def rows_of(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def usd(model: str, server: TodayServer) -> float:
    """What the server has billed, by the list."""
    price = Prices.load().price(model)
    assert price is not None
    total = 0.0
    for usage in server.billed:
        if model.startswith("openai/"):
            read, wrote = ("input", "output") if "input_tokens" in usage else ("prompt", "completion")
            total += usage[f"{read}_tokens"] * price.input + usage[f"{wrote}_tokens"] * price.output
        else:
            assert price.cached_input is not None
            assert price.cache_write is not None
            total += usage["input_tokens"] * price.input + usage["output_tokens"] * price.output
            total += usage["cache_read_input_tokens"] * price.cached_input
            total += usage["cache_creation_input_tokens"] * price.cache_write
    return total / 1e6


def result(ended: Any) -> dict[str, Any]:
    assert ended.code == 0, ended.err
    told: dict[str, Any] = json.loads(ended.out)
    return told


def room(body: dict[str, Any]) -> int:
    names = ("max_completion_tokens", "max_output_tokens", "max_tokens")
    found = next(body[name] for name in names if name in body)
    assert isinstance(found, int)
    return found


def address(model: str, server: TodayServer) -> tuple[str, str]:
    return "--base-url", server.url if model.startswith("openai/") else server.root


@pytest.mark.parametrize("model", NAMES)
def test_a_bare_verdict_thinks_the_least_and_costs_what_was_planned_at_most(
    model: str, preceptor: Preceptor, server: TodayServer, at_home: AtHome
) -> None:
    at_home(server)
    words = (
        "label",
        "pairs.jsonl",
        "-c",
        "helpful-harmless",
        "--judge",
        model,
        "--concurrency",
        1,
        "--out",
        "out",
    )
    (line,) = result(preceptor(*words, "--plan", "--json"))["models"]
    spent = result(preceptor(*words, "--max-cost", line["cost_usd"] * 2, "--json"))["calls"]["cost_usd"]
    assert server.refused == []
    assert len(server.bodies) == 2 * PAIRS
    assert 0 < spent == pytest.approx(usd(model, server))
    labels = rows_of("out/labels.jsonl")
    assert [row["status"] for row in labels] == ["ok"] * PAIRS
    assert all(row["probability"] > 0.5 for row in labels)

    rules = MODELS[model.partition("/")[2]]
    least = "none" if rules.off or "none" in rules.efforts else "low"
    thought = [
        usage.get("completion_tokens_details", usage.get("output_tokens_details", {}))
        for usage in server.billed
    ]
    assert all(sum(one.values()) == (0 if least == "none" else 300) for one in thought)
    assert {room(body) for body in server.bodies} == {
        (32 if rules.protocol == "openai" else 512) + ROOM[least]
    }
    assert line["tokens_out"] == len(server.bodies) * room(server.bodies[0])
    if rules.protocol == "openai" and least == "none":
        assert labels[0]["probability"] == pytest.approx(1 / (1 + math.exp(-0.9)), abs=1e-3), (
            "read from its tokens"
        )


@pytest.mark.parametrize("model", NAMES)
def test_every_way_of_asking_works_by_its_rules(
    model: str, preceptor: Preceptor, server: TodayServer, at_home: AtHome
) -> None:
    at_home(server)
    rules = ("-c", "style", "--judge", model, "--concurrency", 1)
    pairs = ("label", "pairs.jsonl", *rules)
    result(preceptor(*pairs, "--structured", "--out", "structured", "--json"))
    result(preceptor(*pairs, "--reasoning", "--effort", "high", "--out", "reasoned", "--json"))
    result(preceptor(*pairs, "--seed", 1, "--batch", "--out", "batch", "--json"))
    for folder in ("structured", "reasoned", "batch"):
        assert [row["status"] for row in rows_of(f"{folder}/labels.jsonl")] == ["ok"] * PAIRS
    sampling = ("--model", model, "--samples", 1, "--temperature", 0.7, "--top-p", 0.9)
    result(preceptor("respond", "prompts.jsonl", *sampling, "--out", "replies.jsonl", "--json"))
    assert [row["status"] for row in rows_of("replies.jsonl")] == ["ok"] * PAIRS
    server.verdict = "Score: 7"
    result(preceptor("score", "replies.jsonl", *rules, "--out", "scores.jsonl", "--json"))
    assert [row["score"] for row in rows_of("scores.jsonl")] == [7.0] * PAIRS
    assert server.refused == []
    assert len(server.made) == 1


@pytest.mark.parametrize("model", NAMES)
def test_at_another_address_the_same_is_learned_from_what_is_refused(
    model: str, preceptor: Preceptor, server: TodayServer
) -> None:
    words = (
        "label",
        "pairs.jsonl",
        "-c",
        "style",
        "--judge",
        model,
        *address(model, server),
        "--concurrency",
        1,
    )
    spent = result(preceptor(*words, "--out", "out", "--json"))["calls"]["cost_usd"]
    assert [row["status"] for row in rows_of("out/labels.jsonl")] == ["ok"] * PAIRS
    assert 0 < len(server.refused) <= 4, "each rule is met once"
    assert spent == pytest.approx(usd(model, server))


@pytest.mark.parametrize("model", NAMES)
@pytest.mark.parametrize("level", list(ROOM))
def test_every_level_that_can_be_wished_is_taken_and_has_room(model: str, level: str) -> None:
    """A level that a model lacks is the next that it has."""
    asked = Request(
        model=model,
        messages=(Message(role="user", content="q"),),
        max_tokens=100,
        temperature=0.7,
        top_p=0.9,
        effort=level,
    )
    codec = openai if model.startswith("openai/") else anthropic
    for request in (asked, asked.model_copy(update={"menu": {"a": "A", "b": "B"}, "reasoning": False})):
        body = codec.body_of(request)
        taken = effort_of_body(body, by_responses="input" in body)
        assert THOUGHT[taken] < room(body) == billed_tokens(request)
        rules = MODELS[model.partition("/")[2]]
        if level in rules.efforts:
            assert taken == level


def test_what_chat_completions_cannot_do_is_asked_through_responses_and_nothing_else_is(
    preceptor: Preceptor, server: TodayServer, at_home: AtHome
) -> None:
    """`max` of gpt-6.1-sol, by the model's entry, directly and in batches; what is kept at the provider is nothing."""
    at_home(server)
    words = ("label", "pairs.jsonl", "-c", "style", "--judge", "openai/gpt-6.1-sol", "--concurrency", 1)
    for level, way in (("max", ()), ("max", ("--batch", "--structured")), ("xhigh", ())):
        server.paths.clear()
        server.bodies.clear()
        out = f"out-{level}-{len(way)}"
        result(preceptor(*words, "--effort", level, *way, "--out", out, "--json"))
        assert [row["status"] for row in rows_of(f"{out}/labels.jsonl")] == ["ok"] * PAIRS
        place = "/v1/responses" if level == "max" else "/v1/chat/completions"
        assert set(server.paths) == {place}
        assert all(body.get("store", False) is False for body in server.bodies)
    assert server.refused == []


def test_a_server_that_names_responses_in_its_refusal_is_asked_there_from_then_on(
    preceptor: Preceptor, server: TodayServer
) -> None:
    """label with probabilities, --structured, score, respond and batches, of a model that no table knows."""
    model = f"openai/{NO_CHAT}"
    asked = ("--base-url", server.url, "--concurrency", 1, "--price", "1,5")
    judge = ("-c", "style", "--judge", model, *asked)
    result(preceptor("label", "pairs.jsonl", *judge, "--effort", "none", "--out", "plain", "--json"))
    labels = rows_of("plain/labels.jsonl")
    assert labels[0]["probability"] == pytest.approx(1 / (1 + math.exp(-0.9)), abs=1e-3), "of its tokens"
    assert [path for path in server.paths if not path.endswith("/responses")] == []
    assert [body["model"] for body in server.refused] == [NO_CHAT], "one refusal is enough"
    result(preceptor("label", "pairs.jsonl", *judge, "--structured", "--out", "structured", "--json"))
    batch = ("--effort", "none", "--seed", 1, "--batch", "--out", "batch")
    result(preceptor("label", "pairs.jsonl", *judge, *batch, "--json"))
    for folder in ("plain", "structured", "batch"):
        assert [row["status"] for row in rows_of(f"{folder}/labels.jsonl")] == ["ok"] * PAIRS
    sampling = ("--model", model, "--samples", 1, "--temperature", 0.7)
    result(preceptor("respond", "prompts.jsonl", *sampling, *asked, "--out", "replies.jsonl", "--json"))
    assert [row["status"] for row in rows_of("replies.jsonl")] == ["ok"] * PAIRS
    server.verdict = "Score: 7"
    server.billed.clear()
    told = result(preceptor("score", "replies.jsonl", *judge, "--out", "scores.jsonl", "--json"))
    assert [row["score"] for row in rows_of("scores.jsonl")] == [7.0] * PAIRS
    billed = sum(usage["input_tokens"] + 5 * usage["output_tokens"] for usage in server.billed) / 1e6
    assert told["calls"]["cost_usd"] == pytest.approx(billed)
