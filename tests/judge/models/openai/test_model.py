"""OpenAI's protocol over real HTTP: requests, replies, probabilities, and every fault mapped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import httpx2
import openai
import pytest

from preceptor.judge.errors import ModelError, ProviderStopped, Rejected, Transient, Unreadable
from preceptor.judge.models.http.faults import Unreachable
from preceptor.judge.models.http.model import HttpModel
from preceptor.judge.models.openai.codec import asked_of, body_of, completion_of, mapped
from preceptor.judge.models.openai.model import open_model
from preceptor.judge.models.protocol import Request
from preceptor.judge.models.reply_limits import billed_tokens
from preceptor.prompts.records import Message
from tests.servers.llm import LLMServer

Start = Callable[..., LLMServer]
At = Callable[..., HttpModel]
MENU = {"a": "Verdict: A", "b": "Verdict: B", "tie": "Verdict: tie"}


def request(text: str = "hello", **fields: object) -> Request:
    messages = (Message(role="system", content="be brief"), Message(role="user", content=text))
    return Request.model_validate({"model": "openai/m", "messages": messages, "max_tokens": 64, **fields})


@pytest.fixture
async def model() -> AsyncIterator[Callable[..., HttpModel]]:
    """Open a model at a server; it is closed after the test."""
    opened: list[HttpModel] = []

    def at(server: LLMServer | str, **options: float) -> HttpModel:
        url = server if isinstance(server, str) else server.url
        opened.append(open_model("openai/m", base_url=url, **options))
        return opened[-1]

    yield at
    for one in opened:
        await one.close()


async def test_a_reply_comes_with_its_tokens_and_reason(model: At, start_server: Start) -> None:
    server = start_server()
    got = await model(server).complete(request("quality=9 or quality=1"))
    assert (got.text, got.finish_reason) == ("The marks decide.\nVerdict: A", "stop")
    assert (got.tokens_in, got.tokens_out) == (server.stats()["tokens_in"], server.stats()["tokens_out"])
    assert got.served_by == "m"


async def test_the_body_carries_what_the_key_carries(model: At, start_server: Start) -> None:
    """Two samples and two seeds are four bodies: a server can tell them apart as the ledger does."""
    server = start_server()
    for sample, seed in ((0, 0), (1, 0), (0, 1), (1, 1)):
        await model(server).complete(request(sample=sample, seed=seed, temperature=1.0, top_p=0.9))
    assert server.stats()["answered_twice"] == 0
    body = server.bodies[0]
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (1.0, 0.9, 64)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert "logprobs" not in body


@pytest.mark.parametrize("reasoning", [True, False])
async def test_probabilities_come_from_the_verdict_token(
    model: At, start_server: Start, reasoning: bool
) -> None:
    server = start_server()
    got = await model(server).complete(request("quality=9 or quality=1", menu=MENU, reasoning=reasoning))
    assert got.probabilities == pytest.approx({"a": 0.689974, "b": 0.310026, "tie": 0}, abs=1e-6)
    assert server.bodies[0]["top_logprobs"] == 20


@pytest.mark.parametrize(("asked", "sent"), [(1, 16), (20, 20), (512, 32)])
async def test_a_bare_verdict_gets_room_but_not_much_unless_the_user_says_how_much(
    model: At, start_server: Start, asked: int, sent: int
) -> None:
    server = start_server()
    for own in (False, True):
        await model(server).complete(request(menu=MENU, reasoning=False, max_tokens=asked, own_limit=own))
    assert [body["max_tokens"] for body in server.bodies] == [sent, asked]


async def test_a_server_that_refuses_logprobs_is_asked_without_from_then_on(
    model: At, start_server: Start
) -> None:
    server = start_server(faults=["nologprobs"])
    asked = model(server)
    got = [await asked.complete(request(f"quality={n} quality=1", menu=MENU)) for n in (2, 3)]
    assert [one.probabilities for one in got] == [None, None]
    assert ["logprobs" in body for body in server.bodies] == [True, False, False]
    assert "top_logprobs" not in server.bodies[2]


async def test_reasoning_models_get_room_to_think_and_no_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only at OpenAI's own address: elsewhere the name says nothing about the model."""
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    for name, thinks in (
        ("gpt-5-mini", True),
        ("o4-mini", True),
        ("gpt-4o", False),
        ("gpt-5-chat-latest", False),
    ):
        opened = open_model(f"openai/{name}")
        body = body_of(request(model=f"openai/{name}", menu=MENU, temperature=1.0))
        assert (billed_tokens(request(model=f"openai/{name}", menu=MENU)) > 4000) is thinks
        assert ("max_completion_tokens" in body) is thinks
        assert ("temperature" in body) is ("logprobs" in body) is ("max_tokens" in body) is (not thinks)
        await opened.close()


@pytest.mark.parametrize(
    ("fault", "finish"), [("refusal", "refused"), ("truncate", "length"), ("empty", "stop"), ("ok", "stop")]
)
async def test_how_a_reply_ended(model: At, start_server: Start, fault: str, finish: str) -> None:
    got = await model(start_server(faults=[fault])).complete(request())
    assert got.finish_reason == finish
    assert (got.text == "") is (fault == "empty")


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("429", Transient, "planned 429"),
        ("500", Transient, "planned 500"),
        ("503", Transient, "planned 503"),
        ("529", Transient, "planned 529"),
        ("drop", Transient, "the connection to http://127.0.0.1"),
        ("badjson", Unreadable, "broken body: not JSON"),
        ("html", Transient, "broken body"),
        ("400", Rejected, "planned 400"),
        ("401", ProviderStopped, "set OPENAI_API_KEY to a valid one"),
        ("403", ProviderStopped, "may not use openai/m"),
        ("404", ProviderStopped, "no model openai/m at this address"),
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
    assert not isinstance(caught.value, Unreachable)
    if isinstance(caught.value, Transient):
        assert caught.value.retry_after_s == (7 if fault in ("429", "503", "529") else None)


async def test_nothing_listening(model: At, unused_tcp_port: int) -> None:
    with pytest.raises(Unreachable, match=r"nothing answers at http://127.0.0.1.*--base-url"):
        await model(f"http://127.0.0.1:{unused_tcp_port}/v1").complete(request())


async def test_a_server_that_hangs(model: At, start_server: Start) -> None:
    hung = model(start_server(faults=["slow"]), timeout_s=0.2)
    with pytest.raises(Transient, match="did not answer in time"):
        await hung.complete(request())


def test_a_missing_key_says_so_before_any_request() -> None:
    with pytest.raises(ProviderStopped, match="OPENAI_API_KEY is not set"):
        open_model("openai/gpt-5-mini")


async def test_the_sdks_own_variable_names_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    opened = open_model("openai/m")
    assert opened.endpoint == "http://127.0.0.1:1/v1"
    await opened.close()


def _errors(root: type[Exception]) -> Iterator[type[Exception]]:
    yield root
    for child in root.__subclasses__():
        yield from _errors(child)


@pytest.mark.parametrize("kind", sorted(set(_errors(openai.APIError)), key=lambda kind: kind.__name__))
def test_every_error_of_the_sdk_is_mapped(kind: type[openai.APIError]) -> None:
    asked = httpx2.Request("POST", "http://127.0.0.1:1/v1")
    status = getattr(kind, "status_code", 500)
    response = httpx2.Response(status, request=asked)
    if issubclass(kind, openai.APIStatusError):
        words = () if kind is openai.OAuthError else ("said",)
        error: Exception = kind(*words, response=response, body=None)
    elif issubclass(kind, openai.APIResponseValidationError):
        error = kind(response, None)
    elif issubclass(kind, openai.APITimeoutError):
        error = kind(asked)
    elif issubclass(kind, openai.APIConnectionError):
        error = kind(request=asked)
    else:
        error = kind("said", asked, body=None)
    found = mapped(error, asked_of("openai/m"), "http://127.0.0.1:1/v1")
    wanted = {400: Rejected, 401: ProviderStopped, 403: ProviderStopped, 404: ProviderStopped, 422: Rejected}
    assert isinstance(found, wanted.get(status, Transient))


async def test_a_schema_holds_the_answer_where_it_is_wanted(model: At, start_server: Start) -> None:
    """The verdict is its last field, so that the last words on the menu count as ever."""
    server = start_server()
    menu = {"a": "Verdict: A", "b": "Verdict: B"}
    await model(server).complete(request(menu=menu, reasoning=True, structured=True))
    await model(server).complete(request(menu=menu, reasoning=True))
    schema = server.bodies[0]["response_format"]["json_schema"]
    assert schema["strict"] is True
    assert list(schema["schema"]["properties"]) == ["reasoning", "verdict"]
    assert schema["schema"]["properties"]["verdict"]["enum"] == ["Verdict: A", "Verdict: B"]
    assert "response_format" not in server.bodies[1]


@pytest.mark.parametrize(
    ("said", "tier", "usage"),
    [
        ("default", "", "reported"),
        ("on_demand", "", "reported"),
        (None, "", "reported"),
        ("priority", "priority", "reported"),
        ("Priority", "priority", "reported"),
        ("turbo", "turbo", "estimated"),
    ],
)
async def test_what_a_tier_of_unknown_price_cost_is_marked_as_estimated(
    said: str | None, tier: str, usage: str, start_server: Start
) -> None:
    server = start_server(extra={"service_tier": said})
    model = open_model("openai/m", base_url=server.url)
    got = await model.complete(request())
    assert (got.tier, got.usage) == (tier, usage)
    await model.close()


async def test_the_flex_tier_is_asked_for_and_billed_as_the_server_says(start_server: Start) -> None:
    server = start_server(extra={"service_tier": "flex"})
    opened = open_model("openai/m", base_url=server.url, flex=True)
    got = await opened.complete(request())
    assert (server.bodies[0]["service_tier"], got.tier) == ("flex", "flex")
    assert opened.timeout_s == 900
    await opened.close()
    plain = open_model("openai/m", base_url=server.url)
    await plain.complete(request())
    assert "service_tier" not in server.bodies[1]
    await plain.close()


def test_what_was_written_to_the_cache_is_counted() -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 60},
    }
    choice = {"message": {"content": "x"}, "finish_reason": "stop"}
    answer = {"choices": [choice], "usage": usage, "service_tier": "default"}
    got = completion_of(answer, request(), asked_of("openai/m"))
    assert (got.tokens_in, got.tokens_cached, got.tokens_cache_written, got.tier) == (100, 20, 60, "")
