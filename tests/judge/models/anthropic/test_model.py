"""Anthropic's protocol over real HTTP: requests, replies, and every fault mapped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import anthropic
import httpx2
import pytest

from preceptor.judge.errors import ModelError, ProviderStopped, Rejected, Transient, Unreadable
from preceptor.judge.models.anthropic.codec import asked_of, completion_of, mapped
from preceptor.judge.models.anthropic.model import open_model
from preceptor.judge.models.http.faults import Unreachable
from preceptor.judge.models.http.model import HttpModel
from preceptor.judge.models.protocol import Request
from preceptor.prompts.records import Message
from tests.servers.llm import LLMServer

Start = Callable[..., LLMServer]
At = Callable[..., HttpModel]


def request(**fields: object) -> Request:
    messages = (
        Message(role="system", content="be brief"),
        Message(role="user", content="quality=1 quality=9"),
    )
    return Request.model_validate({"model": "anthropic/m", "messages": messages, "max_tokens": 64, **fields})


@pytest.fixture
async def model() -> AsyncIterator[At]:
    """Open a model at a server; it is closed after the test."""
    opened: list[HttpModel] = []

    def at(server: LLMServer | str) -> HttpModel:
        opened.append(open_model("anthropic/m", base_url=server if isinstance(server, str) else server.root))
        return opened[-1]

    yield at
    for one in opened:
        await one.close()


async def test_a_reply_comes_with_its_tokens_and_reason(model: At, start_server: Start) -> None:
    server = start_server()
    got = await model(server).complete(request(temperature=0.5, top_p=0.9))
    assert (got.text, got.finish_reason, got.served_by) == ("The marks decide.\nVerdict: B", "stop", "m")
    assert (got.tokens_in, got.tokens_out) == (server.stats()["tokens_in"], server.stats()["tokens_out"])
    assert got.probabilities is None
    body = server.bodies[0]
    assert (body["temperature"], body["top_p"]) == (0.5, 0.9)
    assert body["system"] == [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}]
    assert [message["role"] for message in body["messages"]] == ["user"]


@pytest.mark.parametrize(
    ("fault", "finish"), [("refusal", "refused"), ("truncate", "length"), ("empty", "stop")]
)
async def test_how_a_reply_ended(model: At, start_server: Start, fault: str, finish: str) -> None:
    assert (await model(start_server(faults=[fault])).complete(request())).finish_reason == finish


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("429", Transient, "planned 429"),
        ("529", Transient, "planned 529"),
        ("500", Transient, "planned 500"),
        ("drop", Transient, "the connection to http://127.0.0.1"),
        ("badjson", Unreadable, "broken body: not JSON"),
        ("html", Transient, "broken body"),
        ("400", Rejected, "planned 400"),
        ("401", ProviderStopped, "set ANTHROPIC_API_KEY to a valid one"),
        ("403", ProviderStopped, "may not use anthropic/m"),
        ("404", ProviderStopped, "no model anthropic/m at this address"),
        ("quota", ProviderStopped, "quota or credit is used up"),
    ],
)
async def test_faults(
    model: At, start_server: Start, fault: str, error: type[ModelError], words: str
) -> None:
    server = start_server(faults=[fault], retry_after="7")
    with pytest.raises(error, match=words) as caught:
        await model(server).complete(request())
    assert len(server.bodies) == 1, "the SDK retried"
    if isinstance(caught.value, Transient):
        assert caught.value.retry_after_s == (7 if fault in ("429", "529") else None)


async def test_nothing_listening(model: At, unused_tcp_port: int) -> None:
    with pytest.raises(Unreachable, match=r"nothing answers at http://127.0.0.1.*--base-url"):
        await model(f"http://127.0.0.1:{unused_tcp_port}").complete(request())


def test_a_missing_key_says_so_before_any_request() -> None:
    with pytest.raises(ProviderStopped, match="ANTHROPIC_API_KEY is not set"):
        open_model("anthropic/claude-sonnet-4-5")


def _errors(root: type[Exception]) -> Iterator[type[Exception]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__.startswith("anthropic._exceptions") or child.__module__ == "anthropic":
            yield from _errors(child)


KINDS = sorted(set(_errors(anthropic.APIError)), key=lambda kind: kind.__name__)


def test_the_walk_finds_the_errors() -> None:
    assert len(KINDS) >= 20


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_of_the_sdk_is_mapped(kind: type[anthropic.APIError]) -> None:
    """By status, as far as the class has one; a class without is a fault of the line and so transient."""
    asked = httpx2.Request("POST", "http://127.0.0.1:1/v1")
    status = getattr(kind, "status_code", 500)
    response = httpx2.Response(status, request=asked)
    if issubclass(kind, anthropic.APIStatusError):
        error: Exception = kind("said", response=response, body=None)
    elif issubclass(kind, anthropic.APIResponseValidationError):
        error = kind(response, None)
    elif issubclass(kind, anthropic.APITimeoutError):
        error = kind(asked)
    elif issubclass(kind, anthropic.APIConnectionError):
        error = kind(request=asked)
    else:
        error = kind("said", asked, body=None)
    stopped = (401, 402, 403, 404)
    rejected = (400, 412, 413, 422, 431, 499)
    wanted = ProviderStopped if status in stopped else Rejected if status in rejected else Transient
    assert isinstance(mapped(error, asked_of("anthropic/m"), "http://127.0.0.1:1"), wanted)


async def test_a_schema_holds_the_answer_where_it_is_wanted(model: At, start_server: Start) -> None:
    server = start_server()
    menu = {"a": "Verdict: A", "b": "Verdict: B"}
    await model(server).complete(request(menu=menu, reasoning=False, structured=True))
    format_ = server.bodies[0]["output_config"]["format"]
    assert format_["type"] == "json_schema"
    assert list(format_["schema"]["properties"]) == ["verdict"]


def test_what_was_written_to_the_cache_is_counted_by_its_lifetime() -> None:
    usage = {
        "input_tokens": 10,
        "output_tokens": 5,
        "cache_read_input_tokens": 20,
        "cache_creation_input_tokens": 70,
        "cache_creation": {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 40},
        "service_tier": "standard",
    }
    answer = {"content": [{"type": "text", "text": "x"}], "stop_reason": "end_turn", "usage": usage}
    got = completion_of(answer, request(), asked_of("anthropic/m"))
    assert (got.tokens_in, got.tokens_cached, got.tokens_cache_written) == (100, 20, 70)
    assert (got.tokens_cache_written_long, got.tier) == (40, "")
    plain = {**answer, "usage": usage | {"cache_creation": None}}
    assert completion_of(plain, request(), asked_of("anthropic/m")).tokens_cache_written_long == 0
