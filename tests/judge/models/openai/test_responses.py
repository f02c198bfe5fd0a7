"""The Responses API in the terms of a chat: nothing is lost on the way, and what is no reply is none."""

from __future__ import annotations

from typing import Any

import pytest

from preceptor.judge.errors import Rejected, Transient, Unreadable
from preceptor.judge.models.http.faults import fault_of
from preceptor.judge.models.learned import NOTHING
from preceptor.judge.models.openai import codec, responses
from preceptor.judge.models.protocol import Request
from preceptor.prompts.records import Message

ASKED = codec.asked_of("openai/m")
MENU = {"a": "Verdict: A", "b": "Verdict: B"}
HERE = NOTHING._replace(responses=True)


def request(**fields: Any) -> Request:
    messages = (Message(role="system", content="be brief"), Message(role="user", content="hello"))
    return Request.model_validate({"model": "openai/m", "messages": messages, "max_tokens": 64, **fields})


def answer(*items: dict[str, Any], **fields: Any) -> dict[str, Any]:
    usage = {
        "input_tokens": 50,
        "input_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 10},
        "output_tokens": 30,
        "output_tokens_details": {"reasoning_tokens": 25},
        "total_tokens": 80,
    }
    whole = {"object": "response", "model": "m-1", "status": "completed", "error": None, "usage": usage}
    return {**whole, "output": list(items), **fields}


def said(text: str, **fields: Any) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [], **fields}
    return {"type": "message", "role": "assistant", "status": "completed", "content": [part]}


def test_a_body_says_what_a_chats_says() -> None:
    asked = request(temperature=0.7, top_p=0.9, menu=MENU, reasoning=False, structured=True, own_limit=True)
    chat, body = codec.body_of(asked), codec.body_of(asked, HERE)
    assert codec.path_of(chat) == "/chat/completions"
    assert codec.path_of(body) == "/responses"
    assert body == {
        "model": "m",
        "input": chat["messages"],
        "store": False,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_logprobs": 20,
        "include": ["message.output_text.logprobs"],
        "max_output_tokens": chat["max_tokens"],
        "text": {"format": {"type": "json_schema", **chat["response_format"]["json_schema"]}},
    }
    assert codec.body_of(request(max_tokens=1), HERE)["max_output_tokens"] == 16
    assert codec.body_of(request(effort="high"), HERE)["reasoning"] == {"effort": "high"}


@pytest.mark.parametrize(
    ("refused", "gone"),
    [
        ("logprobs", {"include", "top_logprobs"}),
        ("top_logprobs", {"top_logprobs"}),
        ("reasoning_effort", {"reasoning"}),
        ("response_format", {"text"}),
        ("temperature", {"temperature"}),
    ],
)
def test_what_is_refused_under_its_name_here_is_left_out(refused: str, gone: set[str]) -> None:
    asked = request(menu=MENU, structured=True, effort="low")
    body = codec.body_of(asked, HERE)
    name = responses.NAMES.get(refused, refused)
    said = {"error": {"message": f"Unsupported parameter: '{name}' is not supported", "param": name}}
    learned = codec.lesson(fault_of(ASKED, 400, said), body, HERE)
    assert learned is not None
    assert learned.learned.refused == {refused}
    assert body.keys() - codec.body_of(asked, learned.learned).keys() == gone


def test_a_reply_without_a_bound_is_never_asked_for() -> None:
    fault = fault_of(
        ASKED, 400, {"error": {"message": "no 'max_output_tokens' here", "param": "max_output_tokens"}}
    )
    body = codec.body_of(request(), HERE)
    assert body["max_output_tokens"] == 64
    assert codec.lesson(fault, body, HERE) is None


@pytest.mark.parametrize(
    ("status", "words", "learns"),
    [
        (404, "This model is only supported in v1/responses and not in v1/chat/completions.", True),
        (400, "Unsupported legacy protocol: /v1/chat/completions. Please use /v1/responses.", True),
        (400, "reasoning_effort 'max' is available in the Responses API only", True),
        (404, "This is not a chat model. Did you mean to use v1/completions?", False),
        (404, "The model `m` does not exist or you do not have access to it.", False),
        (400, "max_tokens is too large: 4096 tokens are left for responses", False),
        (500, "upstream /v1/responses is down", False),
    ],
)
def test_only_a_refusal_that_names_the_api_leads_to_it_and_only_once(
    status: int, words: str, learns: bool
) -> None:
    fault = fault_of(ASKED, status, {"error": {"message": words}})
    lesson = codec.lesson(fault, codec.body_of(request()), NOTHING)
    assert (lesson is not None and lesson.learned.responses) is learns
    again = codec.lesson(fault, codec.body_of(request(), HERE), HERE)
    assert again is None or again.learned != HERE, "a call never goes round in a circle"


def test_text_thoughts_tokens_and_counts_arrive() -> None:
    token = {"token": " A", "logprob": -0.1, "top_logprobs": [{"token": " B", "logprob": -2.5}]}
    thinking = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}
    came = answer(
        thinking, said("Verdict:", logprobs=[{**token, "token": "Verdict:"}]), said(" A", logprobs=[token])
    )
    got = codec.completion_of(came, request(menu=MENU), ASKED)
    assert (got.text, got.thoughts, got.finish_reason, got.served_by) == ("Verdict: A", "hm", "stop", "m-1")
    assert (got.tokens_in, got.tokens_out, got.tokens_cached, got.tokens_cache_written) == (50, 30, 20, 10)
    assert got.probabilities is not None
    assert got.probabilities["a"] > got.probabilities["b"] > 0
    assert got.usage == "reported"


@pytest.mark.parametrize(
    ("fields", "finish"),
    [
        ({"status": "completed"}, "stop"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "refused"),
        ({"status": "incomplete", "incomplete_details": None}, "cut"),
        ({"status": "in_progress"}, "cut"),
        ({"status": "cancelled"}, "cut"),
        ({"status": "of tomorrow"}, "cut"),
    ],
)
def test_only_a_good_end_is_one(fields: dict[str, Any], finish: str) -> None:
    assert codec.completion_of(answer(said("so"), **fields), request(), ASKED).finish_reason == finish


def test_a_refusal_and_an_error_are_told() -> None:
    declined = {"type": "message", "content": [{"type": "refusal", "refusal": "I cannot."}]}
    got = codec.completion_of(answer(declined), request(), ASKED)
    assert (got.text, got.finish_reason) == ("I cannot.", "refused")
    error = {"code": "server_error", "message": "it broke"}
    with pytest.raises(Transient, match="it broke"):
        codec.completion_of(answer(status="failed", error=error), request(), ASKED)
    error = {"code": "invalid_request_error", "message": "no such image"}
    with pytest.raises(Rejected, match="no such image"):
        codec.completion_of(answer(status="failed", error=error), request(), ASKED)


@pytest.mark.parametrize("output", [None, "text", 3, {}])
def test_what_has_no_output_is_unreadable_and_billed(output: object) -> None:
    with pytest.raises(Unreadable) as caught:
        codec.completion_of({**answer(), "output": output}, request(), ASKED)
    assert caught.value.paid is not None
    assert (caught.value.paid.tokens_in, caught.value.paid.tokens_out) == (50, 30)
