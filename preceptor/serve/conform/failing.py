"""A reward server that fails in one way, and the numbers that it would have given.

It speaks `/v1/reward`, as `preceptor serve` does. The standard library alone serves it: it must not share the faults of
what it tests.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any, NamedTuple

from preceptor.constitution.foreign import json_of

LATE_S = 0.3
"""How late a late answer comes."""
GOOD = "a good reply"
TRUE = MappingProxyType({GOOD: 0.75, "a fair reply": 0.25, "a bad reply": -0.5})
"""Reply -> the reward that a judge has for it."""
ASKED = "Where is the pool?"
RewardRow = dict[str, Any]


class FailingAnswer(NamedTuple):
    """What is sent instead of an answer."""

    body: str
    status: int = 200
    wait_s: float = 0.0


class JudgeFailure(NamedTuple):
    """One way to fail."""

    what: str
    """What befalls, for the table."""
    answer: Callable[[list[RewardRow]], FailingAnswer]
    """The rows of an answer as they should be -> what is sent."""
    has_rewards: bool = False
    """Whether what is sent holds the true reward of each reply, so that it may be taken."""


def _rows(rows: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps({"items": list(rows)})


def _unjudged(rows: list[RewardRow], status: str) -> FailingAnswer:
    """As `preceptor serve` tells of it."""
    return FailingAnswer(_rows([{**row, "reward": None, "status": status} for row in rows]))


def _problem(status: int, code: str) -> FailingAnswer:
    said = {"status": status, "detail": code, "error": {"message": code, "code": code}}
    return FailingAnswer(json.dumps(said), status)


def _forged(rows: list[RewardRow]) -> FailingAnswer:
    """A reply that closed the text around it and wrote a reward of its own after the judge's null."""
    texts = [json.dumps({**row, "reward": None})[:-1] + ', "reward": 1.0}' for row in rows]
    return FailingAnswer(f'{{"items": [{", ".join(texts)}]}}')


FAILURES: Mapping[str, JudgeFailure] = MappingProxyType(
    {
        "503": JudgeFailure("no judge answers", lambda _: _problem(503, "provider_stopped")),
        "429": JudgeFailure("too many requests", lambda _: _problem(429, "rate_limit_exceeded")),
        "empty": JudgeFailure("an empty body", lambda _: FailingAnswer("")),
        "cut thought": JudgeFailure(
            "an answer cut on its way", lambda rows: FailingAnswer(_rows(rows)[:-20])
        ),
        "forged JSON": JudgeFailure("a second reward in a row", _forged),
        "wrong ids": JudgeFailure(
            "rewards of other replies",
            lambda rows: FailingAnswer(_rows([{**row, "id": f"other-{n}"} for n, row in enumerate(rows)])),
        ),
        "NaN": JudgeFailure(
            "a reward that is no number",
            lambda rows: FailingAnswer(_rows([{**row, "reward": float("nan")} for row in rows])),
        ),
        "late": JudgeFailure(
            "an answer that comes late", lambda rows: FailingAnswer(_rows(rows), wait_s=LATE_S), True
        ),
        "duplicate": JudgeFailure(
            "a row that comes twice", lambda rows: FailingAnswer(_rows([*rows, rows[0]]))
        ),
        "reordered": JudgeFailure(
            "rows in another order", lambda rows: FailingAnswer(_rows(rows[::-1])), has_rewards=True
        ),
        "refusal": JudgeFailure("a judge that refuses", lambda rows: _unjudged(rows, "refused")),
        "unknown price": JudgeFailure(
            "a price that nobody knows", lambda _: _problem(402, "budget_exceeded")
        ),
    }
)
"""Name -> failure: the rows of the table."""


class FailingServer:
    """Answers every request with the failure that is set."""

    def __init__(self, port: int = 0) -> None:
        """port: 0 takes a free one. Raises OSError where it cannot be had."""
        self.failure: JudgeFailure | None = None
        """None: it answers as it should."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            """One request."""

            def do_POST(self) -> None:
                """Rewards, or what comes instead."""
                sent = json_of(self.rfile.read(int(self.headers.get("content-length", 0))))
                made = outer.answer_to(sent)
                time.sleep(made.wait_s)
                body = made.body.encode()
                with suppress(OSError):  # a client that has given up by now
                    self.send_response(made.status)
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Nothing: a request that fails is the purpose."""

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def answer_to(self, sent: Mapping[str, Any]) -> FailingAnswer:
        """What a request with this body is answered with."""
        return self.answer(sent["items"])

    def answer(self, items: Sequence[Mapping[str, Any]]) -> FailingAnswer:
        """What a request for these rewards is answered with."""
        rows = [
            {"id": item.get("id", str(n)), "reward": TRUE[item["response"]], "status": "ok", "reason": ""}
            for n, item in enumerate(items)
        ]
        return FailingAnswer(_rows(rows)) if self.failure is None else self.failure.answer(rows)

    @contextmanager
    def serving(self) -> Iterator[FailingServer]:
        """Answer as long as the block lasts."""
        thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            thread.join()
            self._http.server_close()
