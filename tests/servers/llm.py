"""A small real HTTP server that speaks OpenAI's chat completions and Anthropic's messages, with no model
behind it.

What it answers, in this order:
  recordings      a request whose text contains a recording's `first` and `second` gets its `reply`; which of
  the two
                  stands first in the text must agree with the recording, the longest that fits wins.
  quality marks   a text with two `quality=N` marks or more: the first mark is answer A's, the second B's; the
  higher
                  wins, equal ones tie.
  otherwise       a hash of the body decides between A and B.
The reply is a reason and a verdict line. Where logprobs are asked for they stand at the verdict's letter,
with P(A) = sigmoid((first mark - second mark) / 10).

Faults are planned, not drawn: `faults` lists what befalls the first requests in turn, `ok` for nothing. GET
/stats tells what was served; `answered_twice` counts answers to bodies that had been answered before, `answered_most`
how often the one was that was answered most often.

    python -m tests.servers.llm --port 8900 --replay FILE     # JSON lines of {"first": …, "second": …,
    "reply": …}
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import math
import re
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

MARK = re.compile(r"quality=(-?\d+)")
FAULTS = frozenset(
    {
        "ok",
        "408",
        "409",
        "425",
        "429",
        "500",
        "503",
        "529",
        "401",
        "403",
        "404",
        "400",
        "quota",
        "drop",
        "badjson",
    }
    | {"html", "refusal", "truncate", "empty", "garbage", "slow", "nologprobs"}
)


class Recording(NamedTuple):
    """A reply to a comparison of two texts, shown in this order."""

    first: str
    second: str
    reply: str
    asked: str = ""
    """The instruction that both answer, where it is needed to tell recordings apart."""


class Said(NamedTuple):
    """A reply's text and the probability that it is for A."""

    text: str
    p_a: float


class Answer(NamedTuple):
    """An HTTP answer; `body` None: the connection is dropped instead."""

    status: int
    body: dict[str, Any] | bytes | None
    headers: dict[str, str]
    content_type: str = "application/json"


class LLMServer:
    """The server's behaviour and what it has served; `serve` runs it."""

    def __init__(
        self,
        *,
        recordings: Sequence[Recording] = (),
        faults: Sequence[str] = (),
        once: Collection[str] = (),
        verdict: str = "Verdict: {letter}",
        latency_s: float = 0.0,
        retry_after: str | Callable[[], str] = "0.05",
        reach: int = 0,
        slow_s: float = 3600.0,
        headers: Callable[[], dict[str, str]] = dict,
        extra: dict[str, Any] | None = None,
        models: Sequence[dict[str, Any]] | None = None,
        page: int = 100,
    ) -> None:
        """once: faults of which no request meets a second: it is answered instead. Two in a row end a row, and which
        request meets which fault is chance. extra: fields of every good answer. models: the list of models, if there
        is one, of which so many are in one page. verdict: the verdict line. latency_s: before each answer.
        retry_after: of 429, 503 and 529. reach: number of requests at which `reached` is set. slow_s: what `slow`
        takes longer. headers: of every answer."""
        if unknown := set(faults) - FAULTS:
            raise ValueError(f"unknown faults {sorted(unknown)}; there are {sorted(FAULTS)}")
        self.recordings = recordings
        self.faults = list(faults)
        self.once = frozenset(once)
        self.verdict = verdict
        self.latency_s = latency_s
        self.retry_after = retry_after
        self.slow_s = slow_s
        self.headers = headers
        self.extra = extra or {}
        self.models = models
        self.page = page
        self.url = ""
        """Address with /v1, as OpenAI's clients want it, once it listens."""
        self.root = ""
        """The same without /v1, as Anthropic's clients want it."""
        self.reached = threading.Event()
        self._reach = reach
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self._answered: Counter[bytes] = Counter()
        self._met: set[bytes] = set()
        self._running = self._peak = self._tokens_in = self._tokens_out = 0
        self._faulted: Counter[str] = Counter()

    def stats(self) -> dict[str, Any]:
        """What was served so far."""
        return {
            "requests": len(self.bodies),
            "answered": sum(self._answered.values()),
            "answered_twice": sum(count - 1 for count in self._answered.values()),
            "answered_most": max(self._answered.values(), default=0),
            "faults": dict(self._faulted),
            "max_concurrency": self._peak,
            "tokens_in": self._tokens_in,
            "tokens_out": self._tokens_out,
        }

    def wait_for(self, requests: int, timeout_s: float = 600.0) -> bool:
        """Wait until so many requests have come; False where they do not come in time."""
        self.reached.clear()
        self._reach = requests
        return len(self.bodies) >= requests or self.reached.wait(timeout_s)

    async def answer(self, path: str, raw: bytes) -> Answer:
        """The answer to one POST."""
        try:
            body = json.loads(raw)
        except ValueError:
            return Answer(400, {"error": {"message": "the body is not JSON"}}, {})
        number = len(self.bodies)
        self.bodies.append(body)
        self.paths.append(path)
        if len(self.bodies) == self._reach:
            self.reached.set()
        fault = self.faults[number] if number < len(self.faults) else "ok"
        if fault in self.once:
            call = hashlib.sha256(raw).digest()
            fault = "ok" if call in self._met else fault
            self._met.add(call)
        if fault != "ok":
            self._faulted[fault] += 1
        await asyncio.sleep(self.latency_s + (self.slow_s if fault == "slow" else 0))
        if (failed := self._fail(fault, body)) is not None:
            return failed
        text = conversation(body)
        said = self._say(text, raw)
        reason = "stop"
        if fault == "refusal":
            said, reason = Said("I cannot compare these.", 0.5), "refused"
        elif fault == "truncate":
            said, reason = said._replace(text=said.text[: len(said.text) // 2]), "length"
        elif fault == "garbage":
            said = Said("Both have their merits, and it is hard to say.", 0.5)
        elif fault == "empty":
            said = said._replace(text="")
        self._answered[hashlib.sha256(raw).digest()] += 1
        self._tokens_in += len(text) // 4 + 1
        self._tokens_out += len(said.text) // 4 + 1
        usage = (len(text) // 4 + 1, len(said.text) // 4 + 1)
        made = BODIES[path.partition("?")[0].rpartition("/")[2]]
        return Answer(200, {**made(body, said, reason, usage), **self.extra}, {})

    def _fail(self, fault: str, body: dict[str, Any]) -> Answer | None:
        if fault == "drop":
            return Answer(0, None, {})
        if fault == "badjson":
            return Answer(200, b'{"id": "x", "choices": [{"mess', {})
        if fault == "html":
            return Answer(200, b"<html>the proxy says hello</html>", {}, "text/html")
        if fault == "quota":
            error = {
                "message": "You exceeded your current quota",
                "type": "insufficient_quota",
                "code": "insufficient_quota",
            }
            return Answer(429, {"type": "error", "error": error}, {})
        if fault == "nologprobs" or ("nologprobs" in self.faults and "logprobs" in body):
            return Answer(
                400, {"error": {"message": "This model does not support logprobs", "param": "logprobs"}}, {}
            )
        if fault.isdigit():
            wait = self.retry_after if isinstance(self.retry_after, str) else self.retry_after()
            headers = {"retry-after": wait} if fault in ("429", "503", "529") else {}
            return Answer(
                int(fault),
                {"type": "error", "error": {"message": f"planned {fault}", "type": "planned"}},
                headers,
            )
        return None

    def _say(self, text: str, raw: bytes) -> Said:
        found = self._recorded(text)
        if found is not None:
            return Said(found, 0.5)
        marks = [int(mark) for mark in MARK.findall(text)]
        if len(marks) >= 2:
            p_a = 1 / (1 + math.exp((marks[1] - marks[0]) / 10))
            letter = "tie" if marks[0] == marks[1] else "A" if marks[0] > marks[1] else "B"
            return Said("The marks decide.\n" + self.verdict.format(letter=letter), p_a)
        p_a = (hashlib.sha256(raw).digest()[0] + 0.5) / 256
        return Said("A hash decides.\n" + self.verdict.format(letter="A" if p_a > 0.5 else "B"), p_a)

    def _recorded(self, text: str) -> str | None:
        """The reply of the longest recording that the text contains in the recording's order."""
        text = _squeeze(text)
        best: tuple[int, str] | None = None
        for recording in self.recordings:
            asked, first, second = map(_squeeze, (recording.asked, recording.first, recording.second))
            size = len(asked) + len(first) + len(second)
            if asked not in text or (best is not None and size <= best[0]):
                continue
            # the instruction may quote an output: its place is blanked out
            rest = text.replace(asked, "\0" * len(asked), 1) if asked else text
            if _stands_before(rest, first, second):
                best = (size, recording.reply)
        return best[1] if best else None

    async def route(self, method: str, path: str, head: str, raw: bytes) -> Answer:  # noqa: ARG002 a server above reads it
        """The answer to any request."""
        if method == "GET" and path == "/stats":
            return Answer(200, self.stats(), {})
        if method == "GET" and path.partition("?")[0] == "/v1/models" and self.models is not None:
            return self._page_of_models(path)
        if method == "POST" and path.partition("?")[0].endswith(
            ("/chat/completions", "/responses", "/messages")
        ):
            self._running += 1
            self._peak = max(self._peak, self._running)
            try:
                return await self.answer(path, raw)
            finally:
                self._running -= 1
        return Answer(404, {"error": {"message": f"no {method} {path} here"}}, {})

    def _page_of_models(self, path: str) -> Answer:
        assert self.models is not None
        after = parse_qs(urlsplit(path).query).get("after_id", [""])[0]
        names = [model["id"] for model in self.models]
        start = names.index(after) + 1 if after else 0
        end = start + self.page
        rows = list(self.models[start:end])
        return Answer(200, {"object": "list", "data": rows, "has_more": end < len(names)}, {})

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until the client closes it."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                method, path, _ = head.split("\r\n", 1)[0].split(" ", 2)
                size = re.search(r"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
                raw = await reader.readexactly(int(size[1])) if size else b""
                answer = await self.route(method, path, head, raw)
                if answer.body is None:
                    writer.transport.abort()
                    return
                data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                headers = {
                    "content-type": answer.content_type,
                    "content-length": str(len(data)),
                    **self.headers(),
                    **answer.headers,
                }
                lines = [
                    f"HTTP/1.1 {answer.status} X",
                    *(f"{name}: {value}" for name, value in headers.items()),
                    "",
                    "",
                ]
                writer.write("\r\n".join(lines).encode() + data)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client or the test is done; a cancelled connection would be logged as an error by asyncio
        finally:
            writer.close()


def conversation(body: dict[str, Any]) -> str:
    """All texts of a request, system prompt first."""
    messages = body.get("messages") or body.get("input") or ()
    texts = [body.get("system") or "", *(message["content"] for message in messages)]
    return "\n".join(
        text if isinstance(text, str) else " ".join(part["text"] for part in text) for text in texts
    )


def openai_body(body: dict[str, Any], said: Said, reason: str, usage: tuple[int, int]) -> dict[str, Any]:
    """A chat completion; logprobs, where asked for, say p_a at the last token, which is the letter."""
    refused = reason == "refused"
    message = {
        "role": "assistant",
        "content": None if refused else said.text,
        "refusal": said.text if refused else None,
    }
    choice: dict[str, Any] = {
        "index": 0,
        "message": message,
        "finish_reason": "length" if reason == "length" else "stop",
    }
    if body.get("logprobs"):
        top = [
            {"token": f" {letter}", "logprob": math.log(max(share, 1e-9))}
            for letter, share in (("A", said.p_a), ("B", 1 - said.p_a))
        ]
        tokens = [
            {"token": token, "logprob": -0.01, "top_logprobs": []}
            for token in re.findall(r"\s*\S+", said.text)
        ]
        if tokens:
            tokens[-1] |= {"logprob": max(one["logprob"] for one in top), "top_logprobs": top}
        choice["logprobs"] = {"content": tokens}
    counts = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    shell = {"id": "c-1", "object": "chat.completion", "created": 0, "model": body.get("model")}
    return {**shell, "choices": [choice], "usage": counts}


def responses_body(body: dict[str, Any], said: Said, reason: str, usage: tuple[int, int]) -> dict[str, Any]:
    """A response of OpenAI's Responses API."""
    wanted = {
        "logprobs": "message.output_text.logprobs" in body.get("include", ()),
        "model": body.get("model"),
    }
    (choice,) = openai_body(wanted, said, reason, usage)["choices"]
    tokens = (choice.get("logprobs") or {}).get("content", [])
    part = {"type": "output_text", "text": said.text, "annotations": [], "logprobs": tokens}
    if reason == "refused":
        part = {"type": "refusal", "refusal": said.text}
    message = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }
    return {
        "id": "resp_1",
        "object": "response",
        "model": body.get("model"),
        "status": "incomplete" if reason == "length" else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if reason == "length" else None,
        "error": None,
        "output": [message],
        "usage": {"input_tokens": usage[0], "output_tokens": usage[1], "total_tokens": sum(usage)},
    }


def anthropic_body(body: dict[str, Any], said: Said, reason: str, usage: tuple[int, int]) -> dict[str, Any]:
    """A message."""
    stop = {"stop": "end_turn", "length": "max_tokens", "refused": "refusal"}[reason]
    return {
        "id": "m-1",
        "type": "message",
        "role": "assistant",
        "model": body.get("model"),
        "content": [{"type": "text", "text": said.text}],
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {"input_tokens": usage[0], "output_tokens": usage[1]},
    }


BODIES = {"completions": openai_body, "responses": responses_body, "messages": anthropic_body}
"""End of a path -> the form of its answers."""


def _squeeze(text: str) -> str:
    """White space folded, so that a template's indentation hides no recorded text."""
    return " ".join(text.split())


def _stands_before(text: str, first: str, second: str) -> bool:
    """Whether both texts stand in the text, apart from one another and in this order, last occurrences counted."""
    longer, shorter = (first, second) if len(first) >= len(second) else (second, first)
    place = _last(text, longer)
    if place < 0:
        return False
    # one may quote the other: what is placed already is blanked out
    other = _last(text[:place] + "\0" * len(longer) + text[place + len(longer) :], shorter)
    return other >= 0 and (place < other) == (longer is first)


def _last(text: str, wanted: str) -> int:
    """Where `wanted` stands last and not inside a longer word, as a short output may within a marker; -1: nowhere."""
    place = text.rfind(wanted)
    while place >= 0:
        around = text[max(0, place - 1) : place], text[place + len(wanted) : place + len(wanted) + 1]
        if not any(letter.isalnum() for letter in around):
            return place
        place = text.rfind(wanted, 0, place + len(wanted) - 1)
    return -1


@contextlib.contextmanager
def serve(server: LLMServer, port: int = 0) -> Iterator[LLMServer]:
    """Run the server on 127.0.0.1 in a thread of its own, for tests with and without an event loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="llm-server", daemon=True)
    thread.start()
    opening = asyncio.start_server(server.connection, "127.0.0.1", port, limit=2**20)
    listening = asyncio.run_coroutine_threadsafe(opening, loop).result(10)
    server.root = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    server.url = f"{server.root}/v1"
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(_shut(listening), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _shut(listening: asyncio.Server) -> None:
    listening.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def read_recordings(path: Path) -> list[Recording]:
    """JSON lines of {"first": …, "second": …, "reply": …}."""
    return [Recording(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A real HTTP server that plays OpenAI and Anthropic.")
    parser.add_argument("--port", type=int, default=8900)
    parser.add_argument("--replay", type=Path)
    arguments = parser.parse_args()
    with serve(
        LLMServer(recordings=read_recordings(arguments.replay) if arguments.replay else ()), arguments.port
    ):
        threading.Event().wait()
