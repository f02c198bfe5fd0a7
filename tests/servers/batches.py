"""The server of `tests.servers.llm` with both providers' batch APIs: files and batches as OpenAI has them, message
batches as Anthropic has them.

A batch is done as soon as it is made, and says so after some looks at it. What befalls it is planned: `plans` holds
one Plan for each batch in the order in which they are made; after the last, all goes well. Results come in an order of
their own. `stall` names the step at which the server does what it is asked and then never answers, so that a test can
kill the client there; `lose` names steps whose first answer is lost on the line, `deaf` those whose first request is.
"""

from __future__ import annotations

import asyncio
import email
import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from tests.servers.llm import Answer, LLMServer

ANTHROPIC_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
OPENAI_ENDS = ("completed", "expired", "cancelled", "failed")


class Plan(NamedTuple):
    """What befalls one batch."""

    end: str = "completed"
    """Or `expired`, `cancelled`, `failed`. The requests in `undone` are then those that were not reached; for a failed
    batch all of them."""
    undone: tuple[int, ...] = ()
    faults: Mapping[int, str] = {}
    """Number of a request -> `400`, `500`, `lost` (no line comes back), `broken` (its line is not JSON),
    `long` (its line has a megabyte), `refuses NAME`
    (a 400 about that parameter where the body has it)."""
    looks: int = 2
    """Looks until it has ended."""
    message: str = ""
    """Of a failed batch, as is `code`."""
    code: str = "invalid_request"


class Made(NamedTuple):
    """A batch."""

    id: str
    kind: str
    requests: list[dict[str, Any]]
    plan: Plan
    created_at: float
    metadata: dict[str, str]
    input_file: str
    results: list[tuple[str, Any]]
    """(custom id, the result in the protocol's own form), in the order in which they are handed out."""


class BatchServer(LLMServer):
    """Run by `tests.servers.llm.serve`."""

    def __init__(
        self,
        *,
        plans: Sequence[Plan] = (),
        stall: str = "",
        lose: Sequence[str] = (),
        deaf: Sequence[str] = (),
        page: int = 100,
        most_requests: int = 100_000,
        most_bytes: int = 256_000_000,
        most_waiting: int = 100_000,
        **behaviour: Any,
    ) -> None:
        """stall, lose, deaf: `upload`, `create`, `results`. page: most batches or files in one page of a
        list. most_waiting: requests in OpenAI's batches that have not ended; one batch more fails."""
        super().__init__(page=page, **behaviour)
        self.plans = list(plans)
        self.stall = stall
        self.lose = list(lose)
        self.deaf = list(deaf)
        self.most_requests = most_requests
        self.most_bytes = most_bytes
        self.most_waiting = most_waiting
        self.stalled = threading.Event()
        self.files: dict[str, tuple[str, bytes, int]] = {}
        """Id -> name, content, when it was made."""
        self.made: dict[str, Made] = {}
        self.looks: dict[str, int] = {}

    async def route(self, method: str, path: str, head: str, raw: bytes) -> Answer:
        parts = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        place = parts.path.removeprefix("/v1").strip("/").split("/")
        step = {("POST", "files"): "upload", ("POST", "batches"): "create"}.get((method, place[0]), "")
        if place[:2] == ["messages", "batches"]:
            step = "create" if (method, len(place)) == ("POST", 2) else ""
        if place[-1] in ("content", "results"):
            step = "results"
        if step and step in self.deaf:
            self.deaf.remove(step)
            return Answer(0, None, {})
        answer = await self._answer_to(method, place, query, head, raw)
        if answer is None:
            return await super().route(method, path, head, raw)
        if step and step == self.stall:
            self.stalled.set()
            await asyncio.sleep(3600)
        if step and step in self.lose:
            self.lose.remove(step)
            return Answer(0, None, {})
        return answer

    async def _answer_to(
        self, method: str, place: list[str], query: dict[str, str], head: str, raw: bytes
    ) -> Answer | None:
        match method, place:
            case "POST", ["files"]:
                return self._upload(head, raw)
            case "GET", ["files"]:
                return _page([self._file(name) for name in reversed(self.files)], query, self.page, "after")
            case "GET", ["files", name, "content"]:
                return Answer(200, self.files[name][1], {}, "application/octet-stream")
            case "DELETE", ["files", name]:
                del self.files[name]
                return Answer(200, {"id": name, "object": "file", "deleted": True}, {})
            case "POST", ["batches"]:
                return await self._make_openai(json.loads(raw))
            case "POST", ["messages", "batches"]:
                return await self._make_anthropic(raw)
            case "GET", ["batches"] | ["messages", "batches"]:
                kind = "openai" if len(place) == 1 else "anthropic"
                made = [self._shown(one) for one in reversed(self.made.values()) if one.kind == kind]
                return _page(made, query, self.page, "after" if kind == "openai" else "after_id")
            case "GET", ["messages", "batches", name, "results"]:
                return Answer(200, _jsonl(self.made[name].results), {}, "application/x-jsonl")
            case (_, ["batches", name, *rest]) | (_, ["messages", "batches", name, *rest]):
                if name not in self.made:
                    return _error(404, "no such batch")
                if rest == ["cancel"]:
                    self._cancel(name)
                else:
                    self.looks[name] += 1
                return Answer(200, self._shown(self.made[name]), {})
        return None

    def _upload(self, head: str, raw: bytes) -> Answer:
        kind = re.search(r"\r\ncontent-type: *([^\r]+)", head, re.IGNORECASE)
        assert kind is not None
        form = email.message_from_bytes(f"Content-Type: {kind[1]}\r\n\r\n".encode() + raw)
        for part in form.walk():
            if (file := part.get_filename()) is not None:
                name = f"file-{len(self.files)}"
                content = part.get_payload(decode=True)
                assert isinstance(content, bytes)
                if len(content) > self.most_bytes:
                    return _error(413, "the file is too large")
                self.files[name] = (file, content, int(time.time()))
                return Answer(200, self._file(name), {})
        return _error(400, "no file came")

    def _file(self, name: str) -> dict[str, Any]:
        file, content, created = self.files[name]
        shell = {"object": "file", "purpose": "batch", "status": "processed"}
        return {"id": name, "filename": file, "bytes": len(content), "created_at": created, **shell}

    async def _make_openai(self, body: dict[str, Any]) -> Answer:
        lines = [json.loads(line) for line in self.files[body["input_file_id"]][1].splitlines()]
        plan = self._plan()
        models = {line["body"]["model"] for line in lines}
        faulty = len(models) > 1 or len({line["custom_id"] for line in lines}) < len(lines)
        if len(lines) > self.most_requests or faulty:
            plan = Plan("failed", message="too many requests, two models, or a custom id twice")
        waiting = sum(len(one.requests) for one in self.made.values() if self.looks[one.id] < one.plan.looks)
        if waiting + len(lines) > self.most_waiting:
            plan = Plan(
                "failed", message="Enqueued token limit reached", code="token_limit_exceeded", looks=0
            )
        requests = [(line["custom_id"], line["body"]) for line in lines]
        assert {line["url"] for line in lines} == {body["endpoint"]}
        results = await self._done("openai", requests, plan, body["endpoint"])
        made = self._keep("openai", lines, plan, results, body.get("metadata") or {}, body["input_file_id"])
        return Answer(200, self._shown(made), {})

    async def _make_anthropic(self, raw: bytes) -> Answer:
        lines = json.loads(raw)["requests"]
        names = [line["custom_id"] for line in lines]
        if len(lines) > self.most_requests or len(raw) > self.most_bytes:
            return _error(413, "the batch is too large")
        if len(set(names)) < len(names) or not all(map(ANTHROPIC_ID.fullmatch, names)):
            return _error(400, "a custom id is faulty or comes twice")
        plan = self._plan()
        requests = [(line["custom_id"], line["params"]) for line in lines]
        made = self._keep("anthropic", lines, plan, await self._done("anthropic", requests, plan), {}, "")
        return Answer(200, self._shown(made), {})

    def _plan(self) -> Plan:
        return self.plans[len(self.made)] if len(self.made) < len(self.plans) else Plan()

    async def _done(
        self,
        kind: str,
        requests: list[tuple[str, dict[str, Any]]],
        plan: Plan,
        path: str = "/v1/messages",
    ) -> list[tuple[str, Any]]:
        """The results that there are, in an order of their own."""
        results: list[tuple[str, Any]] = []
        for number, (name, body) in enumerate(requests):
            if plan.end == "failed" or number in plan.undone:
                why = "expired" if plan.end == "expired" else "cancelled"
                if kind == "anthropic":
                    results.append((name, {"type": why.replace("cancelled", "canceled")}))
                elif plan.end != "failed":
                    error = {"code": f"batch_{why}", "message": f"this request was {why}"}
                    results.append((name, {"response": None, "error": error}))
                continue
            fault = plan.faults.get(number, "ok")
            if fault.startswith("refuses "):
                fault = "400" if fault.split()[1] in body else "ok"
                said = f"Unsupported parameter: {plan.faults[number].split()[1]}"
            else:
                said = f"planned {fault}"
            if fault == "lost":
                continue
            if fault == "broken":
                results.append((name, None))
                continue
            if fault == "long":
                results.append((name, {"response" if kind == "openai" else "type": "x" * 10**6}))
                continue
            answer = await self.answer(path, json.dumps(body).encode()) if fault == "ok" else None
            results.append((name, _result(kind, answer, fault, said)))
        return sorted(results, key=lambda result: hashlib.sha256(result[0].encode()).digest())

    def _keep(
        self,
        kind: str,
        lines: list[dict[str, Any]],
        plan: Plan,
        results: list[tuple[str, Any]],
        metadata: dict[str, str],
        file: str,
    ) -> Made:
        name = f"{'batch' if kind == 'openai' else 'msgbatch'}_{len(self.made)}"
        self.looks[name] = 0
        self.made[name] = Made(name, kind, lines, plan, time.time(), metadata, file, results)
        return self.made[name]

    def _cancel(self, name: str) -> None:
        self.looks[name] = 10**6

    def _shown(self, made: Made) -> dict[str, Any]:
        ended = self.looks[made.id] >= made.plan.looks
        return (
            self._shown_openai(made, ended) if made.kind == "openai" else self._shown_anthropic(made, ended)
        )

    def _shown_openai(self, made: Made, ended: bool) -> dict[str, Any]:
        files: dict[str, Any] = {"output_file_id": None, "error_file_id": None}
        good = [result for result in made.results if result[1] is None or not _failed(result[1])]
        bad = [result for result in made.results if result not in good]
        if ended:
            for place, results in (("output_file_id", good), ("error_file_id", bad)):
                if results:
                    files[place] = f"{made.id}-{place}"
                    self.files[files[place]] = (f"{made.id}.jsonl", _jsonl(results), int(made.created_at))
        errors = {"object": "list", "data": [{"code": made.plan.code, "message": made.plan.message}]}
        failed = ended and made.plan.end == "failed"
        counts = {"total": len(made.requests), "completed": len(good) * ended, "failed": len(bad) * ended}
        return {
            "id": made.id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "input_file_id": made.input_file,
            "created_at": int(made.created_at),
            "status": made.plan.end if ended else "in_progress",
            "errors": errors if failed else None,
            "metadata": made.metadata,
            "request_counts": counts,
            **files,
        }

    def _shown_anthropic(self, made: Made, ended: bool) -> dict[str, Any]:
        kinds = [(result or {"type": "succeeded"})["type"] for _, result in made.results]
        counts = {kind: kinds.count(kind) * ended for kind in ("succeeded", "errored", "canceled", "expired")}
        moment = datetime.fromtimestamp(made.created_at, UTC).isoformat()
        # a lost line is one that the provider counts and does not hand out
        counts["succeeded"] += (len(made.requests) - len(made.results)) * ended
        return {
            "id": made.id,
            "type": "message_batch",
            "processing_status": "ended" if ended else "in_progress",
            "request_counts": counts | {"processing": 0 if ended else len(made.requests)},
            "created_at": moment,
            "expires_at": moment,
            "ended_at": moment if ended else None,
            "cancel_initiated_at": None,
            "archived_at": None,
            "results_url": f"{self.root}/v1/messages/batches/{made.id}/results" if ended else None,
        }


def _result(kind: str, answer: Answer | None, fault: str, said: str) -> dict[str, Any]:
    if kind == "openai":
        body = answer.body if answer else {"error": {"message": said, "type": "planned", "code": None}}
        status = answer.status if answer else int(fault)
        return {"response": {"status_code": status, "request_id": "r", "body": body}, "error": None}
    if answer is not None and answer.status == 200:
        return {"type": "succeeded", "message": answer.body}
    if answer is not None:
        return {"type": "errored", "error": {**answer.body, "request_id": "r"}}  # type: ignore[dict-item]
    error = {"type": "invalid_request_error" if fault == "400" else "api_error", "message": said}
    return {"type": "errored", "error": {"type": "error", "error": error, "request_id": "r"}}


def _failed(result: dict[str, Any]) -> bool:
    return not isinstance(result["response"], dict) or result["response"]["status_code"] != 200


def _jsonl(results: list[tuple[str, Any]]) -> bytes:
    lines = []
    for name, result in results:
        if result is None:
            lines.append('{"id": "x", "custom_i')
        elif "response" in result:
            lines.append(json.dumps({"id": "x", "custom_id": name, **result}))
        else:
            lines.append(json.dumps({"custom_id": name, "result": result}))
    return "".join(line + "\n" for line in lines).encode()


def _page(rows: list[dict[str, Any]], query: dict[str, str], most: int, cursor: str) -> Answer:
    names = [row["id"] for row in rows]
    start = names.index(query[cursor]) + 1 if cursor in query else 0
    shown = rows[start : start + min(most, int(query.get("limit", 20)))]
    more = start + len(shown) < len(rows)
    ends = {"first_id": shown[0]["id"], "last_id": shown[-1]["id"]} if shown else {}
    return Answer(200, {"object": "list", "data": shown, "has_more": more, **ends}, {})


def _error(status: int, said: str) -> Answer:
    return Answer(status, {"type": "error", "error": {"message": said, "type": "invalid_request_error"}}, {})
