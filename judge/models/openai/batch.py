"""OpenAI's batch API: a file of requests is uploaded, a batch is made of it, its results are two files."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import openai
from openai.types import Batch, BatchError

from preceptor.judge.errors import ModelError, Transient
from preceptor.judge.models import door
from preceptor.judge.models.batch_protocol import SLOW_S, BatchLimits, BatchResult, Remote
from preceptor.judge.models.http.faults import FaultContext, HttpFault, Throttled, error_of, fault_of
from preceptor.judge.models.http.model import HttpModel
from preceptor.judge.models.http.result_lines import result_lines
from preceptor.judge.models.learned import NOTHING, RefusalLesson, warn_of_lost_effort
from preceptor.judge.models.openai import codec, responses
from preceptor.judge.models.protocol import Completion, Request

ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
MARK = "preceptor_batch"
"""Metadata that holds our token."""
PAGE = 100
AGAIN = ("batch_expired", "batch_cancelled", "server_error", "rate_limit")
"""Codes of what another batch may bring."""


class OpenAIBatches:
    """Satisfies `batching.BatchProvider`."""

    limits = BatchLimits(requests=50_000, bytes=200_000_000)

    def __init__(self, model: HttpModel) -> None:
        self._model = model
        self._client = model.client

    def line(self, custom_id: str, request: Request) -> dict[str, Any]:
        """A request as it stands in the file."""
        body = codec.body_of(request, self._model.learned)
        return {"custom_id": custom_id, "method": "POST", "url": f"/v1{codec.path_of(body)}", "body": body}

    async def submit(self, token: str, run: str, lines: Sequence[Mapping[str, Any]]) -> Remote:
        """Upload and make the batch, with our token in the file's name and in the batch's metadata."""
        lines = _of_one_kind(lines)
        file = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
        with codec.translated_errors(self._model.asked, self._model.server.address):
            uploaded = await self._client.files.create(
                file=(_file_name(token), file), purpose="batch", timeout=SLOW_S
            )
            made = await self._client.batches.create(
                input_file_id=uploaded.id,
                endpoint=lines[0]["url"],
                completion_window="24h",
                metadata={MARK: token, "preceptor_run": run[:512]},
            )
            return self._remote(made)

    async def retrieve(self, remote_id: str) -> Remote:
        """How far it is."""
        with codec.translated_errors(self._model.asked, self._model.server.address):
            try:
                return self._remote(await self._client.batches.retrieve(remote_id))
            except openai.NotFoundError as exc:
                return Remote(
                    remote_id, "", 0.0, 0, 0, True, f"openai does not know this batch: {exc.message}"
                )

    async def recent(self, since_s: float) -> AsyncIterator[Remote]:
        """The account's batches that were made since, latest first."""
        with codec.translated_errors(self._model.asked, self._model.server.address):
            async for made in self._client.batches.list(limit=PAGE):
                if made.created_at < since_s:
                    return
                yield self._remote(made)

    async def token_of(self, remote: Remote) -> str:
        """What the metadata says."""
        return remote.token

    async def sweep(self, token: str, since_s: float) -> None:
        """Delete the file that was uploaded for a batch that was never made."""
        with codec.translated_errors(self._model.asked, self._model.server.address):
            async for file in self._client.files.list(purpose="batch", limit=PAGE):
                if file.created_at < since_s:
                    return
                if file.filename == _file_name(token):
                    await self._client.files.delete(file.id)

    async def results(self, remote: Remote) -> AsyncIterator[BatchResult]:
        """The lines of both files."""
        for place in remote.places:
            with codec.translated_errors(self._model.asked, self._model.server.address):
                reading = self._client.files.with_streaming_response.content(place, timeout=SLOW_S)
                async with reading as answer:
                    async for result in result_lines(answer.iter_bytes(), "openai"):
                        yield result

    def read(self, result: BatchResult, request: Request) -> Completion:
        """The answer; the model learns which optional parameter its server refuses."""
        with door.reading("openai", request):
            return self._completion(result, request)

    def _completion(self, result: BatchResult, request: Request) -> Completion:
        if result.too_long:
            raise door.too_long("openai", request)
        answer = result.body.get("response") or {}
        body = answer.get("body")
        status = int(answer.get("status_code") or 0)
        if 200 <= status < 300:
            return self._learning(codec.completion_of(body, request, self._model.asked))
        fault = fault_of(self._model.asked, status, body or result.body)
        if status in (400, 404, 422):
            lesson = self._lesson(fault, request)
            if lesson is not None:
                warn_of_lost_effort(request, self._model.learned, lesson, fault.message)
                self._model.learned = lesson.learned
                raise Transient(f"openai refused {lesson.change} from now on: {fault.message}")
        raise _error_of(fault)

    def _lesson(self, fault: HttpFault, request: Request) -> RefusalLesson | None:
        """What a refusal teaches of a body with all that may be refused, of either API: another line of the batch may
        have taught which of them is asked by now."""
        learned = self._model.learned
        bodies = (codec.body_of(request, NOTHING._replace(responses=by)) for by in (False, learned.responses))
        return next(filter(None, (codec.lesson(fault, body, learned) for body in bodies)), None)

    def _learning(self, completion: Completion) -> Completion:
        self._model.learned = self._model.learned.after(completion)
        return completion

    def _remote(self, made: Batch) -> Remote:
        counts = made.request_counts
        faults = (made.errors.data if made.errors else None) or []
        said = "; ".join(fault.message or fault.code or "" for fault in faults[:3])
        problem = "" if made.status == "completed" else f"the batch {made.status}{said and f': {said}'}"
        failed = made.status == "failed"
        return Remote(
            id=made.id,
            token=(made.metadata or {}).get(MARK, ""),
            created_at=float(made.created_at),
            requests=counts.total if counts else 0,
            done=counts.completed + counts.failed if counts else 0,
            ended=made.status in ENDED,
            problem=problem if made.status in ENDED else "",
            refused=_error_of(_fault(self._model.asked, problem, faults)) if failed else None,
            places=tuple(place for place in (made.output_file_id, made.error_file_id) if place),
        )


def _of_one_kind(lines: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """A batch is of one API: where a request needs Responses, all go there."""
    other = f"/v1{responses.PATH}"
    if len({line["url"] for line in lines}) == 1:
        return lines
    return [
        line if line["url"] == other else {**line, "url": other, "body": responses.body_of(line["body"])}
        for line in lines
    ]


def _fault(asked: FaultContext, problem: str, faults: Sequence[BatchError]) -> HttpFault:
    code = " ".join(fault.code or "" for fault in faults)
    return HttpFault(asked.provider, asked.model, 400, problem, code, key_variable=asked.key_variable)


def _error_of(fault: HttpFault) -> ModelError:
    if "token_limit" in fault.code:
        return Throttled(f"openai: {fault.message}")
    if not fault.status or any(mark in fault.code for mark in AGAIN):
        return Transient(f"openai: {fault.message}")
    return error_of(fault)


def _file_name(token: str) -> str:
    return f"preceptor-{token}.jsonl"


def open_batches(model: HttpModel) -> OpenAIBatches:
    """The same model through its provider's batch API; what either learns of the server serves both."""
    return OpenAIBatches(model)
