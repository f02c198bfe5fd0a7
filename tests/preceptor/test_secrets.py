"""No secret is written or shown anywhere, whichever command runs and whatever a server repeats of what it was sent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from preceptor.prompts.secrets import HIDDEN, is_secret, keep, redacted, shown_address
from preceptor.settings import Asking
from tests.command_line import Preceptor
from tests.servers.llm import Answer, LLMServer, serve

KEY = "sk-marker-4e1f0c9ab7d24d55"
QUERY = "query-marker-77aa01b3c5"
MARKERS = (KEY, QUERY)


class Echo(LLMServer):
    """Repeats the key and the address of every request in every field that has room for words."""

    status = 200

    async def route(self, method: str, path: str, head: str, raw: bytes) -> Answer:  # noqa: ARG002
        sent = f"you sent {' '.join(re.findall(r'(?i)(?:authorization|x-api-key): *(.*)', head)).strip()} to {path}"
        self.paths.append(path)
        if self.status != 200:
            error = {"message": sent, "type": sent, "code": sent, "param": sent}
            return Answer(self.status, {"type": "error", "error": error, "detail": sent}, {"x-echo": sent})
        text = f"{sent}\nVerdict: A" if "REPLY_A" in raw.decode() else f"{sent}\nScore: 7"
        if path.partition("?")[0].endswith("/messages"):
            parts = [{"type": "thinking", "thinking": sent}, {"type": "text", "text": text}]
            return Answer(200, {"model": sent, "stop_reason": "end_turn", "content": parts, "usage": {}}, {})
        message = {"role": "assistant", "content": text, "reasoning_content": sent}
        choice = {
            "index": 0,
            "message": message,
            "finish_reason": f"odd {sent}" if "Say 1" in raw.decode() else "stop",
        }
        return Answer(200, {"id": sent, "model": sent, "choices": [choice]}, {"x-echo": sent})


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> Iterator[Echo]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    rows = [
        {"prompt": f"Say {n}", "response_a": "yes", "response_b": "no", "preferred": "a"} for n in range(2)
    ]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("prompts.jsonl").write_text('{"prompt": "Say 1"}\n{"prompt": "Say 2"}\n')
    with serve(Echo()) as server:
        assert isinstance(server, Echo)
        yield server


COMMANDS = {
    "respond": "respond prompts.jsonl --samples 1 --out {out}.jsonl --model {model} --base-url {url}",
    "revise": "revise responses.jsonl -c style --rounds 1 --out {out}.jsonl --model {model} --base-url {url}",
    "score": "score responses.jsonl -c style --out {out}.jsonl --judge {model} --base-url {url}",
    "label": "label pairs.jsonl -c style --out {out} --judge {model} --base-url {url}",
    "label with reasons": "label pairs.jsonl -c style --reasoning --out {out} --judge {model} --base-url {url}",
    "label by name": "label pairs.jsonl -c style --out {out} --judge {model} --base-url {model}={url}",
    "audit": "audit pairs.jsonl -c style --judge {model} --base-url {url} --json",
    "test": "constitution test style --judge {model} --base-url {url}",
    "evaluate": "evaluate --policy {model} --baseline {model}2 --prompts prompts.jsonl --judge {model}3 -c style "
    "--base-url {url} --json",
    "plan": "label pairs.jsonl -c style --plan --judge {model} --base-url {url}",
}
AFTERWARDS = (
    "ledger show",
    "ledger show --json",
    "ledger bill",
    "ledger export",
    "ledger batches",
    "verify out",
    "doctor",
)


def found_in_files() -> list[str]:
    return [
        f"{path}: {marker}"
        for path in Path().rglob("*")
        if path.is_file()
        for marker in MARKERS
        if marker.encode() in path.read_bytes()
    ]


@pytest.mark.parametrize("status", [200, 400, 401])
@pytest.mark.parametrize("model", ["openai/fake", "anthropic/fake"])
def test_no_command_writes_or_shows_one(echo: Echo, preceptor: Preceptor, model: str, status: int) -> None:
    """Files, ledger, stdout, stderr and pages, of every command that asks a model and of those that tell about it."""
    echo.status = status
    place = echo.url if model.startswith("openai") else echo.root
    unknown = "&".join(f"{name}={QUERY}" for name in ("pwd", "jwt", "bearer", "who-knows"))
    url = f"{place}?api_key={QUERY}&api-version=1&{unknown}"
    responses = [
        {
            "id": f"r{n}",
            "prompt": {"id": f"p{n}", "messages": [{"role": "user", "content": "Say"}]},
            "text": "so",
        }
        | {"model": "m", "sample": 0, "status": "ok", "call": f"{n}"}
        for n in range(2)
    ]
    Path("responses.jsonl").write_text("".join(json.dumps(row) + "\n" for row in responses))
    said = []
    for name, words in COMMANDS.items():
        out = name.replace(" ", "-").replace("label", "out", 1) if name == "label" else name.replace(" ", "-")
        ended = preceptor(*words.format(out=out, model=model, url=url).split())
        assert ended.code in (0, 1, 2, 4), (name, ended.err)
        assert "Traceback" not in ended.err, ended.err
        said.append((name, ended.out + ended.err))
    for command in AFTERWARDS:
        ended = preceptor(*command.split())
        said.append((command, ended.out + ended.err))
    shown = [f"{name}: {marker}" for name, text in said for marker in MARKERS if marker in text]
    assert shown == []
    assert found_in_files() == []
    assert any(QUERY in path for path in echo.paths), "the client alone has it, and sends it"
    if status == 200:
        assert HIDDEN in Path("respond.jsonl").read_text(), "the server did repeat it"


def test_the_password_of_a_ledger_is_not_shown(preceptor: Preceptor) -> None:
    url = f"postgresql://bob:{KEY}@127.0.0.1:9/none?sslpassword={QUERY}"
    for words in ("ledger bill", "ledger show", "ledger batches", "ledger export"):
        ended = preceptor(*words.split(), "--ledger", url)
        assert ended.code == 2
        assert not any(marker in ended.out + ended.err for marker in MARKERS), ended.err


@pytest.mark.parametrize(
    "address",
    [
        f"http://bob:{KEY}@127.0.0.1:9/v1",
        f"http://bob:{KEY}@[::1",
        f"ftp://x?key={KEY}",
        f"{KEY}@x",
    ],
)
def test_what_is_no_address_is_told_without_what_it_carries(
    address: str, preceptor: Preceptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "EMPTY")
    Path("pairs.jsonl").write_text('{"prompt": "Say", "response_a": "a", "response_b": "b"}\n')
    ended = preceptor(
        *["label", "pairs.jsonl", "-c", "style", "--judge", "openai/x", "--out", "out", "--base-url"], address
    )
    assert ended.code == 2
    assert KEY not in ended.err


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        ("https://u:p@host/v1?api-version=1&api_key=x", "https://host/v1?api-version=1"),
        ("http://[::1]:80/v1?sig=x", "http://[::1]:80/v1"),
        ("https://host?subscription-key=x&Authorization=y&access_token=z&a=1", "https://host?a=[redacted]"),
        ("http://x/v1?pwd=abc1&jwt=b&bearer=c&who=d&e=&Model=m", "http://x/v1?who=[redacted]&e=&Model=m"),
        ("host:80/v1?token=x", "host:80/v1"),
        ("folder/what?.db", "folder/what?.db"),
    ],
)
def test_an_address_is_shown_without_what_is_secret(address: str, shown: str) -> None:
    assert shown_address(address) == shown
    assert shown_address(shown) == shown


def test_settings_are_written_without_it() -> None:
    asking = Asking.model_validate({"base_url": f"http://x/v1?key={KEY}"})
    assert KEY not in json.dumps(asking.model_dump(mode="json"))
    assert asking.base_url == {"": f"http://x/v1?key={KEY}"}


def test_placeholders_are_words(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("EMPTY", "ollama", "not-needed"):
        monkeypatch.setenv("OPENAI_API_KEY", value)
        assert redacted(f"say {value}") == f"say {value}"


def test_the_longer_of_two_is_redacted_whole() -> None:
    keep("aaaabbbbcccc1")
    keep("aaaabbbbcccc1dddd2")
    assert redacted("<aaaabbbbcccc1dddd2>") == f"<{HIDDEN}>"
    assert not any(map(is_secret, ("api-version", "deployment", "model", "sigma")))
