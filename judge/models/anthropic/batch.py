"""Anthropic's message batches: the requests go in one body, the results come as one stream. A batch carries no mark of
ours but the custom ids of its requests, which can be seen only in its results."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import anthropic
from anthropic.types.messages import MessageBatch

from preceptor.judge.errors import ModelError, Transient
from preceptor.judge.models.anthropic.model import KEY, AnthropicModel, completion_of
from preceptor.judge.models.batch_protocol import SLOW_S, BatchLimits, Remote, Result, parts_of
from preceptor.judge.models.http.faults import Fault, error_of
from preceptor.judge.models.protocol import Completion, Request

PAGE = 100
STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The HTTP status of an error of this type, where it stands alone."""


class AnthropicBatches:
    """Satisfies `batching.BatchProvider`."""

    limits = BatchLimits(requests=100_000, bytes=256_000_000)

    def __init__(self, model: AnthropicModel, client: anthropic.AsyncAnthropic) -> None:
        self._model = model
        self._client = client

    def line(self, custom_id: str, request: Request) -> dict[str, Any]:
        """A request as it stands in the body."""
        return {
            "custom_id": custom_id,
            "params": {**self._model.body(request), **self._model.optional(request)},
        }

    async def submit(self, _token: str, _run: str, lines: Sequence[Mapping[str, Any]]) -> Remote:
        """Make the batch; the API takes neither token nor run."""
        requests: Any = lines
        with _ours(self._model.mapped):
            return _remote(await self._client.messages.batches.create(requests=requests, timeout=SLOW_S))

    async def retrieve(self, remote_id: str) -> Remote:
        """How far it is."""
        with _ours(self._model.mapped):
            try:
                return _remote(await self._client.messages.batches.retrieve(remote_id))
            except anthropic.NotFoundError as exc:
                said = exc.api_message or exc.message
                return Remote(remote_id, "", 0.0, 0, 0, True, f"anthropic does not know this batch: {said}")

    async def recent(self, since_s: float) -> AsyncIterator[Remote]:
        """The workspace's batches that were made since, latest first."""
        with _ours(self._model.mapped):
            async for made in self._client.messages.batches.list(limit=PAGE):
                if made.created_at.timestamp() < since_s:
                    return
                yield _remote(made)

    async def token_of(self, remote: Remote) -> str:
        """The token in the first of its custom ids."""
        async for result in self.results(remote):
            return parts_of(result.custom_id)[1]
        return ""

    async def sweep(self, _token: str, _since_s: float) -> None:
        """Nothing is uploaded apart."""

    async def results(self, remote: Remote) -> AsyncIterator[Result]:
        """The stream's lines."""
        if not remote.places:
            return
        with _ours(self._model.mapped):
            reading = await self._client.messages.batches.results(remote.id, timeout=SLOW_S)
            try:
                async for line in reading:
                    yield Result(line.custom_id, {"result": line.result})
            finally:
                await reading.close()

    def read(self, result: Result, request: Request) -> Completion:
        """The answer; the model learns which optional parameter it refuses."""
        came = result.body["result"]
        if came.type == "succeeded":
            return completion_of(came.message)
        if came.type != "errored":
            raise Transient(f"anthropic: the request {came.type} in its batch")
        error = came.error.error
        said, kind = str(error.message), str(error.type)
        if kind == "invalid_request_error":
            full = self._model.optional(request, frozenset())
            refused = [name for name in full if re.search(rf"\b{name}\b", said)]
            if refused:
                self._model.drop(refused[-1])
                raise Transient(f"anthropic refused {refused[-1]}, which is left out from now on: {said}")
        raise error_of(Fault("anthropic", self._model.name, STATUSES.get(kind, 500), said, kind, {}, KEY))


def _remote(made: MessageBatch) -> Remote:
    counts = made.request_counts
    done = counts.succeeded + counts.errored + counts.canceled + counts.expired
    ended = made.processing_status == "ended"
    gone = ended and not made.results_url
    return Remote(
        id=made.id,
        token="",
        created_at=made.created_at.timestamp(),
        requests=done + counts.processing,
        done=done,
        ended=ended,
        problem="anthropic has thrown its results away" if gone else "",
        places=(made.results_url,) if made.results_url else (),
    )


@contextmanager
def _ours(mapped: Callable[[Exception], ModelError]) -> Iterator[None]:
    try:
        yield
    except (anthropic.AnthropicError, json.JSONDecodeError) as exc:
        raise mapped(exc) from exc
