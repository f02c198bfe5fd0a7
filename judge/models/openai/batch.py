"""OpenAI's batch API: a file of requests is uploaded, a batch is made of it, its results are two files."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import openai
from openai.types import Batch

from preceptor.judge.errors import ModelError, Transient
from preceptor.judge.models.batch_protocol import SLOW_S, BatchLimits, Remote, Result
from preceptor.judge.models.http.faults import Crowded, Fault, error_of
from preceptor.judge.models.openai.model import KEY, OpenAIModel, completion_of, refused_parameter
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

    def __init__(self, model: OpenAIModel, client: openai.AsyncOpenAI) -> None:
        self._model = model
        self._client = client

    def line(self, custom_id: str, request: Request) -> dict[str, Any]:
        """A request as it stands in the file."""
        body = self._model.body(request)
        return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}

    async def submit(self, token: str, run: str, lines: Sequence[Mapping[str, Any]]) -> Remote:
        """Upload and make the batch, with our token in the file's name and in the batch's metadata."""
        file = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
        with _ours(self._model.mapped):
            uploaded = await self._client.files.create(
                file=(_file_name(token), file), purpose="batch", timeout=SLOW_S
            )
            made = await self._client.batches.create(
                input_file_id=uploaded.id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={MARK: token, "preceptor_run": run[:512]},
            )
        return self._remote(made)

    async def retrieve(self, remote_id: str) -> Remote:
        """How far it is."""
        with _ours(self._model.mapped):
            try:
                return self._remote(await self._client.batches.retrieve(remote_id))
            except openai.NotFoundError as exc:
                return Remote(
                    remote_id, "", 0.0, 0, 0, True, f"openai does not know this batch: {exc.message}"
                )

    async def recent(self, since_s: float) -> AsyncIterator[Remote]:
        """The account's batches that were made since, latest first."""
        with _ours(self._model.mapped):
            async for made in self._client.batches.list(limit=PAGE):
                if made.created_at < since_s:
                    return
                yield self._remote(made)

    async def token_of(self, remote: Remote) -> str:
        """What the metadata says."""
        return remote.token

    async def sweep(self, token: str, since_s: float) -> None:
        """Delete the file that was uploaded for a batch that was never made."""
        with _ours(self._model.mapped):
            async for file in self._client.files.list(purpose="batch", limit=PAGE):
                if file.created_at < since_s:
                    return
                if file.filename == _file_name(token):
                    await self._client.files.delete(file.id)

    async def results(self, remote: Remote) -> AsyncIterator[Result]:
        """The lines of both files."""
        for place in remote.places:
            with _ours(self._model.mapped):
                reading = self._client.files.with_streaming_response.content(place, timeout=SLOW_S)
                async with reading as answer:
                    async for text in answer.iter_lines():
                        line = _line(text)
                        if line is not None:
                            yield line

    def read(self, result: Result, request: Request) -> Completion:
        """The answer; the model learns which optional parameter its server refuses."""
        answer = result.body.get("response") or {}
        body = answer.get("body")
        status = int(answer.get("status_code") or 0)
        if 200 <= status < 300:
            return completion_of(body, request)
        error = (body.get("error") if isinstance(body, dict) else None) or result.body.get("error") or {}
        said = str(error.get("message") or error.get("code") or "no reason given")
        code = " ".join(str(error[name]) for name in ("code", "type") if error.get(name))
        if status in (400, 422):
            full = self._model.body(request, frozenset())
            refused = refused_parameter(error.get("param"), said, full)
            if refused is not None:
                self._model.drop(refused)
                raise Transient(f"openai refused {refused}, which is left out from now on: {said}")
        raise self._fault(status, said, code)

    def _fault(self, status: int, said: str, code: str) -> ModelError:
        if "token_limit" in code:
            return Crowded(f"openai: {said}")
        if not status or any(mark in code for mark in AGAIN):
            return Transient(f"openai: {said}")
        return error_of(Fault("openai", self._model.name, status, said, code, {}, KEY))

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
            refused=self._fault(400, problem, " ".join(fault.code or "" for fault in faults))
            if failed
            else None,
            places=tuple(place for place in (made.output_file_id, made.error_file_id) if place),
        )


def _line(text: str) -> Result | None:
    try:
        line = json.loads(text)
        return Result(str(line["custom_id"]), line)
    except (ValueError, KeyError, TypeError):
        return None


def _file_name(token: str) -> str:
    return f"preceptor-{token}.jsonl"


@contextmanager
def _ours(mapped: Callable[[Exception], ModelError]) -> Iterator[None]:
    try:
        yield
    except (openai.OpenAIError, json.JSONDecodeError) as exc:
        raise mapped(exc) from exc
