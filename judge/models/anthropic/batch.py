"""Anthropic's message batches: the requests go in one body, the results come as one stream. A batch carries no mark of
ours but the custom ids of its requests, which can be seen only in its results."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import anthropic
from anthropic.types.messages import MessageBatch

from preceptor.judge.errors import Transient
from preceptor.judge.models import door
from preceptor.judge.models.anthropic import codec
from preceptor.judge.models.batch_protocol import SLOW_S, BatchLimits, BatchResult, Remote, parts_of
from preceptor.judge.models.http.faults import error_of, fault_of, status_in
from preceptor.judge.models.http.model import HttpModel
from preceptor.judge.models.http.result_lines import result_lines
from preceptor.judge.models.learned import warn_of_lost_effort
from preceptor.judge.models.protocol import Completion, Request

PAGE = 100


class AnthropicBatches:
    """Satisfies `batching.BatchProvider`."""

    limits = BatchLimits(requests=100_000, bytes=256_000_000)

    def __init__(self, model: HttpModel) -> None:
        self._model = model
        self._client = model.client

    def line(self, custom_id: str, request: Request) -> dict[str, Any]:
        """A request as it stands in the body."""
        return {"custom_id": custom_id, "params": codec.body_of(request, self._model.learned)}

    async def submit(self, _token: str, _run: str, lines: Sequence[Mapping[str, Any]]) -> Remote:
        """Make the batch; the API takes neither token nor run."""
        requests: Any = lines
        with codec.translated_errors(self._model.asked, self._model.server.address):
            return _remote(await self._client.messages.batches.create(requests=requests, timeout=SLOW_S))

    async def retrieve(self, remote_id: str) -> Remote:
        """How far it is."""
        with codec.translated_errors(self._model.asked, self._model.server.address):
            try:
                return _remote(await self._client.messages.batches.retrieve(remote_id))
            except anthropic.NotFoundError as exc:
                said = exc.api_message or exc.message
                return Remote(remote_id, "", 0.0, 0, 0, True, f"anthropic does not know this batch: {said}")

    async def recent(self, since_s: float) -> AsyncIterator[Remote]:
        """The workspace's batches that were made since, latest first."""
        with codec.translated_errors(self._model.asked, self._model.server.address):
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

    async def results(self, remote: Remote) -> AsyncIterator[BatchResult]:
        """The stream's lines."""
        if not remote.places:
            return
        with codec.translated_errors(self._model.asked, self._model.server.address):
            batches = self._client.messages.batches.with_streaming_response
            async with batches.results(remote.id, timeout=SLOW_S) as answer:
                async for result in result_lines(answer.iter_bytes(), "anthropic"):
                    yield result

    def read(self, result: BatchResult, request: Request) -> Completion:
        """The answer; the model learns which optional parameter it refuses."""
        with door.reading("anthropic", request):
            return self._completion(result, request)

    def _completion(self, result: BatchResult, request: Request) -> Completion:
        if result.too_long:
            raise door.too_long("anthropic", request)
        came = result.body.get("result")
        came = came if isinstance(came, Mapping) else {}
        if came.get("type") == "succeeded":
            completion = codec.completion_of(came.get("message"), request, self._model.asked)
            self._model.learned = self._model.learned.after(completion)
            return completion
        if came.get("type") != "errored":
            raise Transient(f"anthropic: the request {str(came.get('type'))[:100]} in its batch")
        body = came.get("error")
        fault = fault_of(self._model.asked, status_in(body), body)
        if fault.status == 400:
            lesson = codec.lesson(fault, codec.body_of(request), self._model.learned)
            if lesson is not None:
                warn_of_lost_effort(request, self._model.learned, lesson, fault.message)
                self._model.learned = lesson.learned
                raise Transient(f"anthropic refused {lesson.change} from now on: {fault.message}")
        raise error_of(fault)


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


def open_batches(model: HttpModel) -> AnthropicBatches:
    """The same model through its provider's batch API; what either learns of the model serves both."""
    return AnthropicBatches(model)
