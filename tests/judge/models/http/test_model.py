"""What no reply may do to the line, and how addresses and slow servers are dealt with, over real HTTP."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable

import pytest

from preceptor.constitution.errors import UserError
from preceptor.judge.errors import ModelError, ProviderStopped, Transient
from preceptor.judge.models import door
from preceptor.judge.models.anthropic.model import open_model as open_anthropic
from preceptor.judge.models.http.address import checked, is_near
from preceptor.judge.models.openai.model import open_model as open_openai
from preceptor.judge.models.protocol import Request
from preceptor.prompts.records import Message
from tests.servers.llm import Answer, LLMServer, serve
from tests.servers.odd import OddServer, completion, ok

Start = Callable[..., LLMServer]


def request(model: str = "openai/m") -> Request:
    return Request(model=model, messages=(Message(role="user", content="hello"),), max_tokens=64)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_to_another_server_is_not_followed(status: int) -> None:
    """The key would go there too."""
    with serve(OddServer(lambda *_: ok(completion("caught")))) as there:
        away = Answer(status, b"", {"location": f"{there.url}/chat/completions"})
        with serve(OddServer(lambda *_: away)) as here:
            model = open_openai("openai/m", base_url=here.url)
            with pytest.raises(ProviderStopped, match=r"sends requests on to http://127.0.0.1.*--base-url"):
                await model.complete(request())
            await model.close()
        assert there.bodies == []


async def test_a_redirect_on_the_same_server_is_followed() -> None:
    def answer(_body: object, number: int) -> Answer:
        return ok(completion("there")) if number else Answer(307, b"", {"location": "/v2/chat/completions"})

    with serve(OddServer(answer)) as here:
        model = open_openai("openai/m", base_url=here.url)
        assert (await model.complete(request())).text == "there"
        await model.close()
        assert here.paths == ["/v1/chat/completions", "/v2/chat/completions"]


@pytest.mark.parametrize("status", [301, 302, 303])
async def test_no_page_that_a_redirect_has_fetched_is_a_verdict(status: int) -> None:
    away = Answer(status, b"", {"location": "/v2/chat/completions"})
    with serve(OddServer(lambda *_: away)) as here:
        model = open_openai("openai/m", base_url=here.url)
        with pytest.raises(ProviderStopped, match="becomes the fetching of a page"):
            await model.complete(request())
        await model.close()
        assert len(here.bodies) == 1


@pytest.mark.parametrize("proxy", ["nonsense", "ftp://bob:secret@host"])
def test_a_proxy_that_is_none_is_one_error_when_a_model_is_opened(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)
    said = "HTTP_PROXY"  # of the transport that looks at proxies only when it asks
    try:
        open_openai("openai/m", base_url="http://127.0.0.1:9/v1")
    except UserError as error:
        said = str(error)
    assert "HTTP_PROXY" in said
    assert "secret" not in said


async def test_no_more_is_read_than_a_reply_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preceptor.judge.models.http.transport.LARGEST_BODY", 10_000)
    with serve(OddServer(lambda *_: ok(completion("x" * 20_000)))) as here:
        model = open_openai("openai/m", base_url=here.url)
        with pytest.raises(Transient, match="MiB, which is not read"):
            await model.complete(request())
        await model.close()
    assert door.LARGEST_BODY > 10**7


def nested(where: str, levels: int) -> bytes:
    said = "[" * levels + '"Verdict: A"' + "]" * levels
    if where == "content":
        return json.dumps(completion("@@")).replace('"@@"', said).encode()
    if where in ("reasoning_content", "refusal"):
        return json.dumps(completion("yes", **{where: "@@"})).replace('"@@"', said).encode()
    return ('{"error": {"message": ' + said + "}}").encode()


BREAKING = [
    *(ok(nested("content", levels)) for levels in (330, 900)),
    *(ok(nested(where, 450)) for where in ("reasoning_content", "refusal", "error")),
    Answer(400, nested("error", 950), {}),
    ok(b'{"error": {"code": "\xc2\xb2"}}'),
    *(Answer(302, b"", {"location": there}) for there in ("http://[::1", "\x1b]0;x\x07", "/" + "a" * 70_000)),
    Answer(307, b"", {"location": "http://xn--0000000000000000000000000/"}),
    *(
        Answer(400, b"zz" * 20, {}, f"text/plain; charset={name}")
        for name in ("hex", "base64", "zip", "bz2", "uu", "rot13", "idna", "punycode", "undefined", "none")
    ),
]


@pytest.mark.parametrize("opened", [open_openai, open_anthropic])
async def test_whatever_a_reply_does_to_the_client_is_a_model_error(opened: Callable[..., object]) -> None:
    """Also to the SDK and the HTTP library, which raise errors of their own that none of them declares."""
    name = "openai/m" if opened is open_openai else "anthropic/m"
    with serve(OddServer(lambda _body, number: BREAKING[number])) as here:
        base = here.url if opened is open_openai else here.root
        model = (open_openai if opened is open_openai else open_anthropic)(name, base_url=base)
        for one in BREAKING:
            with pytest.raises(ModelError) as caught:
                await model.complete(request(name))
            if one.status == 400:
                assert "answered 400" in str(caught.value), "its status is heard"
            if one.status == 200 and b"error" not in one.body:
                assert caught.value.paid is not None
        await model.close()
        assert len(here.bodies) == len(BREAKING)


async def test_whatever_a_list_of_models_does_to_the_client_is_a_model_error() -> None:
    class Lists(OddServer):
        async def route(self, *_: object) -> Answer:
            return Answer(302, b"", {"location": "http://[::1"})

    with serve(Lists(lambda *_: BREAKING[0])) as here:
        model = open_openai("openai/m", base_url=here.url)
        with pytest.raises(ModelError):
            await model.listed()
        model.server = model.server._replace(patient=False)
        assert not await model.gives_time()
        await model.close()


def packed(raw: bytes, encoding: str) -> bytes:
    """As `deflate` servers mean zlib's form, or the bare one."""
    if encoding == "gzip":
        return gzip.compress(raw)
    if encoding == "two members":
        return gzip.compress(raw[:50]) + gzip.compress(raw[50:])
    bare = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return zlib.compress(raw) if encoding == "deflate" else bare.compress(raw) + bare.flush()


@pytest.mark.parametrize("encoding", ["gzip", "two members", "deflate", "bare deflate"])
async def test_a_packed_reply_is_read_and_a_bomb_is_not(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    """40 MB in 40 kB: no more is unpacked than a reply may have."""
    monkeypatch.setattr("preceptor.judge.models.http.transport.LARGEST_BODY", 10**6)
    header = {"content-encoding": "gzip" if encoding in ("gzip", "two members") else "deflate"}
    reply = json.dumps(completion("hello")).encode()
    bodies = [packed(reply, encoding), packed(b" " * 4 * 10**7, encoding)]
    with serve(OddServer(lambda _body, number: ok(bodies[number], header))) as here:
        model = open_openai("openai/m", base_url=here.url)
        assert (await model.complete(request())).text == "hello"
        tracemalloc.start()
        with pytest.raises(Transient, match="MiB, which is not read"):
            await model.complete(request())
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        await model.close()
    assert len(bodies[1]) < 10**6
    assert most < 2 * 10**7


@pytest.mark.parametrize(
    ("encoding", "body", "said"),
    [
        ("gzip", b"no gzip at all", "broken body"),
        ("gzip", gzip.compress(b"x" * 10_000, mtime=0)[:-9], "cut short"),
        ("br", b"whatever", "packed as 'br', which was not asked for"),
        ("gzip, gzip", b"whatever", "which was not asked for"),
    ],
)
async def test_a_reply_that_cannot_be_unpacked_may_be_asked_for_again(
    encoding: str, body: bytes, said: str
) -> None:
    with serve(OddServer(lambda *_: ok(body, {"content-encoding": encoding}))) as here:
        model = open_openai("openai/m", base_url=here.url)
        with pytest.raises(Transient, match=said):
            await model.complete(request())
        await model.close()


@pytest.mark.parametrize("opened", [open_openai, open_anthropic])
async def test_a_query_in_the_address_goes_with_every_call(opened: Callable[..., object]) -> None:
    name = "openai/m" if opened is open_openai else "anthropic/m"
    with serve(LLMServer()) as here:
        base = f"{here.url if opened is open_openai else here.root}/?api-version=2026-01-01&x="
        model = (open_openai if opened is open_openai else open_anthropic)(name, base_url=base)
        await model.complete(request(name))
        assert here.paths[0].endswith("?api-version=2026-01-01&x=")
        assert "/v1/" in here.paths[0]
        assert model.endpoint.endswith("?api-version=2026-01-01&x=")
        await model.close()


@pytest.mark.parametrize(
    "address",
    ["localhost:8000", "127.0.0.1:8000/v1", "http//x/v1", "ftp://x/v1", "http://", "http://x:port/v1",
     "http://me:secret@x/v1", "http://a b/v1", "nonsense", "http://[::1/v1", "http://x:0/v1", "http://büro_eins/v1",
     "http://\u2024/v1", "http://ß\u2024de/v1", "http://a..b/v1", f"http://{'a' * 64}/v1", "http://999.1.1.1/v1",
     "http://x/\ud83d", "http://x/" + "a" * 70_000],
)  # fmt: skip
def test_what_is_no_address_is_told_before_any_call(address: str) -> None:
    with pytest.raises(UserError, match=r"--base-url|environment alone") as caught:
        open_openai("openai/m", base_url=address)
    assert "secret" not in str(caught.value)


def test_an_address_in_the_environment_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "nonsense")
    with pytest.raises(UserError, match="check OPENAI_BASE_URL"):
        open_openai("openai/m")


@pytest.mark.parametrize(
    ("base", "near"),
    [
        ("http://localhost:8000/v1", True),
        ("http://127.0.0.1:8000/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://192.168.1.7/v1", True),
        ("http://gpu-box:8000/v1", True),
        ("http://gpu.local/v1", True),
        ("https://api.openai.com/v1", False),
        ("https://8.8.8.8/v1", False),
    ],
)
def test_which_servers_are_near(base: str, near: bool) -> None:
    assert is_near(checked(base, "--base-url").base) is near


async def test_a_near_server_gets_time_and_one_that_is_gone_gets_none(unused_tcp_port: int) -> None:
    with serve(LLMServer()) as here:
        model = open_openai("openai/m", base_url=here.url)
        assert await model.gives_time()
        assert json.dumps(model.server.options)  # the provider's own stay as they are
        assert (await model.complete(request())).text
        await model.close()
    far = open_openai("openai/m", base_url=f"http://127.0.0.1:{unused_tcp_port}/v1")
    far.server = far.server._replace(patient=False)
    assert not await far.gives_time()
    await far.close()


async def test_an_effort_that_a_server_refuses_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    def answer(body: dict[str, object], _number: int) -> Answer:
        if "reasoning_effort" in body:
            said = {"message": "Unrecognized request argument supplied: reasoning_effort"}
            return Answer(400, {"error": said}, {})
        return ok(completion("there"))

    with serve(OddServer(answer)) as here:
        model = open_openai("openai/m", base_url=here.url)
        for _ in range(2):
            assert (await model.complete(request().model_copy(update={"effort": "high"}))).text == "there"
        await model.close()
    (said,) = caplog.messages
    assert said.startswith(
        "openai/m refused reasoning_effort, so its effort is not high but its own from now on"
    )
    assert len(here.bodies) == 3
