"""A model behind HTTP, whatever protocol it speaks: one call, what its refusals teach, and how long it may take."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import httpx2

from preceptor.judge.errors import ModelError, ProviderStopped, Transient
from preceptor.judge.models import door
from preceptor.judge.models.http.faults import FaultContext, HttpFault, error_of
from preceptor.judge.models.http.listing import page_of
from preceptor.judge.models.learned import NOTHING, Learned, RefusalLesson, warn_of_lost_effort
from preceptor.judge.models.protocol import Capabilities, Completion, ListedModel, OnHeaders, Request
from preceptor.judge.models.reply_limits import billed_tokens

TEACHING = frozenset({400, 404, 422, 500})
"""Statuses by which servers say that they cannot take a part of a request."""
MOST_PAGES = 100
"""Of a list of models, however long a server says that it is."""
HEALTH_S = 5.0
"""How long a server may take to say that it is there."""


class Codec(Protocol):
    """A protocol as bodies; a module each."""

    ERRORS: tuple[type[Exception], ...]
    """All that the protocol's SDK raises."""

    def body_of(self, request: Request, learned: Learned = NOTHING) -> dict[str, Any]: ...

    def path_of(self, body: Mapping[str, Any]) -> str: ...

    def lesson(self, fault: HttpFault, body: Mapping[str, Any], learned: Learned) -> RefusalLesson | None: ...

    def completion_of(self, answer: object, request: Request, asked: FaultContext) -> Completion: ...

    def http_fault(self, exc: Exception, asked: FaultContext) -> HttpFault | None: ...

    def mapped(self, exc: Exception, asked: FaultContext, address: str) -> ModelError: ...


class ServerAddress(NamedTuple):
    """How the server is reached."""

    address: str
    """Its base, as the SDK has it."""
    endpoint: str
    """Empty: the provider's own."""
    options: dict[str, Any]
    """Of every call."""
    patient: bool = False
    """Whether the server is near: it may be loading its model, or be slow, and is not down for that."""
    models: str = ""
    """Of the server's list of models."""
    fields: Mapping[str, Any] = MappingProxyType({})
    """Fields of every body, on which the words of an answer do not depend."""


class HttpModel:
    """Satisfies `protocol.Model`. The SDK's own retries are off: they are `judge.asking.fanout`'s."""

    dialect = ""

    def __init__(
        self,
        name: str,
        client: Any,
        codec: Codec,
        asked: FaultContext,
        server: ServerAddress,
        capabilities: Capabilities,
    ) -> None:
        self.name = name
        self.endpoint = server.endpoint
        self.capabilities = capabilities
        self.client = client
        self.asked = asked
        self.server = server
        self.learned = NOTHING
        """What the server has shown of itself; asking in batches adds to it as well."""
        self._codec = codec
        self._times = 1.0

    async def complete(self, request: Request) -> Completion:
        """One call; another at once where the server refuses what it then never sees again."""
        return await self.complete_with_headers(request, lambda _: None)

    async def complete_with_headers(self, request: Request, on_headers: OnHeaders) -> Completion:
        """As `complete`; the rate-limit headers of every reply go to `on_headers`."""
        while True:
            known = self.learned
            body = {**self._codec.body_of(request, known), **self.server.fields}
            with door.asking(self.asked.provider):
                came = await self._sent(body)
            _tell(on_headers, came.headers)
            if not isinstance(came, HttpFault):
                with door.reading(self.asked.provider, request):
                    completion = self._codec.completion_of(self._read(came, request), request, self.asked)
                self.learned = self.learned.after(completion)
                return completion
            if came.status in TEACHING and known != self.learned:
                continue  # another call has learned something since this one left
            with door.asking(self.asked.provider):
                lesson = self._codec.lesson(came, body, known) if came.status in TEACHING else None
                if lesson is None:
                    raise error_of(came)
            warn_of_lost_effort(request, known, lesson, came.message)
            self.learned = lesson.learned

    async def _sent(self, body: Mapping[str, Any]) -> httpx2.Response | HttpFault:
        """What came for a body: a reply, or what the server had to say instead."""
        try:
            # the SDKs' typed methods check the parameters against their types once more and make an object of
            # every token in the reply: a third of a call's CPU time (docs/labelling.md)
            # an address is whole, because they take their time to join a path to theirs
            response: httpx2.Response = await self.client.post(
                self.server.address + self._codec.path_of(body),
                cast_to=httpx2.Response,
                body=body,
                options=self._options(),
            )
        except self._codec.ERRORS as exc:
            fault = self._codec.http_fault(exc, self.asked)
            if fault is None:
                raise self._codec.mapped(exc, self.asked, self.server.address) from exc
            return fault
        return response

    @property
    def timeout_s(self) -> float:
        """How long one try may take."""
        return float(self.client.timeout.read) * self._times

    def billed_tokens(self, request: Request) -> int:
        """The most tokens that a reply can be billed for, as far as is known by now."""
        return billed_tokens(request) + self.learned.hidden_tokens(request)

    async def gives_time(self) -> bool:
        """After a time-out: whether the server is there and only slow, so that its calls get twice as long from now
        on."""
        if not self.server.patient and not await self._is_there():
            return False
        self._times *= 2
        return True

    async def listed(self) -> list[ListedModel]:
        """The server's list of models, page after page."""
        found: list[ListedModel] = []
        after = ""
        for _ in range(MOST_PAGES):
            options = {**self.server.options, "params": {"after_id": after}} if after else self.server.options
            with door.asking(self.asked.provider):
                page = page_of(await self._list(options), self.asked.provider)
            found += page.models
            if not page.after or page.after == after:
                break
            after = page.after
        return found

    async def _list(self, options: Mapping[str, Any]) -> bytes:
        try:
            answer = await self.client.get(self.server.models, cast_to=httpx2.Response, options=options)
        except self._codec.ERRORS as exc:
            fault = self._codec.http_fault(exc, self.asked)
            if fault is not None and fault.status in (404, 405):
                raise ProviderStopped(f"{self.server.models} answered {fault.status}: it gives none") from exc
            raise self._codec.mapped(exc, self.asked, self.server.address) from exc
        return bytes(answer.content)

    async def close(self) -> None:
        """Close the connections."""
        await self.client.close()

    async def _is_there(self) -> bool:
        try:
            with door.asking(self.asked.provider):
                return await self._gives_a_sign()
        except ModelError:
            return False

    async def _gives_a_sign(self) -> bool:
        try:
            await self.client.get(
                self.server.models,
                cast_to=httpx2.Response,
                options={**self.server.options, "timeout": HEALTH_S},
            )
        except self._codec.ERRORS as exc:
            return self._codec.http_fault(exc, self.asked) is not None
        return True

    def _options(self) -> dict[str, Any]:
        if self._times == 1:
            return self.server.options
        longer = httpx2.Timeout(self.timeout_s, connect=self.client.timeout.connect)
        return {**self.server.options, "timeout": longer}

    def _read(self, response: httpx2.Response, request: Request) -> object:
        raw = response.content
        try:
            return door.json_of(raw)
        except ValueError as exc:
            if door.may_be_json(raw):
                raise door.unreadable(self.asked.provider, f"not JSON ({exc})", request) from exc
            # a page of a proxy's, not a reply of the model's
            raise Transient(f"{self.asked.provider} answered with a broken body: not JSON ({exc})") from exc


def _tell(on_headers: OnHeaders, headers: Mapping[str, str]) -> None:
    said = {name.lower(): value for name, value in headers.items() if "ratelimit" in name.lower()}
    if said:
        on_headers(said)
