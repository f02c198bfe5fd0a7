"""What models that think are asked, at their provider's own address, by the rules of their documentation."""

from __future__ import annotations

from typing import Any

import pytest

from preceptor.judge.models.anthropic import codec as anthropic
from preceptor.judge.models.effort import LEVELS, ROOM
from preceptor.judge.models.openai import codec as openai
from preceptor.judge.models.protocol import Request
from preceptor.judge.models.reply_limits import billed_tokens
from preceptor.prompts.records import Message

MENU = {"a": "Verdict: A", "b": "Verdict: B"}


def request(model: str, **fields: Any) -> Request:
    messages = (Message(role="user", content="hello"),)
    whole = {
        "model": model,
        "messages": messages,
        "max_tokens": 512,
        "temperature": 0.7,
        "top_p": 0.9,
        **fields,
    }
    return Request.model_validate(whole)


def verdict(model: str, **fields: Any) -> Request:
    return request(model, menu=MENU, reasoning=False, **fields)


@pytest.mark.parametrize("model", ["gpt-6-luna", "gpt-6-sol", "gpt-6.1-terra"])
def test_a_bare_verdict_wants_no_thoughts_and_gets_probabilities(model: str) -> None:
    body = openai.body_of(verdict(f"openai/{model}"))
    assert body["reasoning_effort"] == "none"
    assert body["logprobs"] is True
    assert body["max_completion_tokens"] == 32
    assert billed_tokens(verdict(f"openai/{model}")) == 32


@pytest.mark.parametrize("model", ["gpt-6.1-sol", "gpt-6-astra", "o3"])
def test_a_model_that_always_thinks_is_asked_for_the_least(model: str) -> None:
    body = openai.body_of(verdict(f"openai/{model}"))
    assert body["reasoning_effort"] == "low"
    assert not {"logprobs", "top_logprobs", "temperature", "top_p", "max_tokens"} & body.keys()
    assert body["max_completion_tokens"] == 32 + ROOM["low"] == billed_tokens(verdict(f"openai/{model}"))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("model", ["gpt-6-luna", "gpt-6.1-sol", "o3"])
def test_sampling_and_probabilities_go_with_no_thoughts_alone(model: str, level: str) -> None:
    for asked in (request(f"openai/{model}", effort=level), verdict(f"openai/{model}", effort=level)):
        body = openai.body_of(asked)
        by_responses = "input" in body
        assert by_responses is (model == "gpt-6.1-sol" and level == "max")
        effort = body["reasoning"]["effort"] if by_responses else body["reasoning_effort"]
        sampling = {"logprobs", "include", "temperature", "top_p"}
        assert bool(sampling & body.keys()) is (effort == "none")
        limit = "max_output_tokens" if by_responses else "max_completion_tokens"
        assert billed_tokens(asked) == body[limit]
        if level in ("low", "medium", "high") or by_responses:
            assert effort == level


def test_at_another_address_a_name_says_nothing_and_a_wish_is_passed_on() -> None:
    elsewhere = verdict("openai/gpt-6-luna", endpoint="http://127.0.0.1:1/v1")
    assert "reasoning_effort" not in openai.body_of(elsewhere)
    wished = verdict("openai/qwen", endpoint="http://127.0.0.1:1/v1", effort="low")
    assert openai.body_of(wished)["reasoning_effort"] == "low"


def test_haiku_can_be_told_not_to_think_and_others_get_room() -> None:
    body = anthropic.body_of(verdict("anthropic/claude-haiku-5-5"))
    assert body["thinking"] == {"type": "disabled"}
    assert body["max_tokens"] == 512
    body = anthropic.body_of(verdict("anthropic/claude-sonnet-5-5"))
    assert body["thinking"] == {"type": "between_tools"}, "its word for none"
    assert body["max_tokens"] == 512
    for model in ("claude-opus-5-5", "claude-fable-5-1"):
        body = anthropic.body_of(verdict(f"anthropic/{model}"))
        assert "thinking" not in body
        assert body["output_config"] == {"effort": "low"}
        assert body["max_tokens"] == 512 + ROOM["low"]
    for model in ("claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"):
        assert not {"temperature", "top_p"} & anthropic.body_of(request(f"anthropic/{model}")).keys()
    old = anthropic.body_of(request("anthropic/claude-haiku-4-5"))
    assert (old["temperature"], old["top_p"]) == (0.7, 0.9)
    assert "output_config" not in old


def test_effort_and_schema_stand_side_by_side() -> None:
    body = anthropic.body_of(verdict("anthropic/claude-sonnet-5-5", structured=True, effort="medium"))
    assert body["output_config"]["effort"] == "medium"
    assert body["output_config"]["format"]["type"] == "json_schema"


def test_the_effort_is_a_part_of_the_identity_where_it_is_given() -> None:
    plain = request("openai/m")
    assert request("openai/m", effort="").key == plain.key != request("openai/m", effort="low").key
