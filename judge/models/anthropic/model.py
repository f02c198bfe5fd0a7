"""Anthropic's messages, and every server that speaks them. The API gives no token probabilities."""

from __future__ import annotations

import json
from typing import Any

import anthropic

from preceptor.judge.errors import ProviderStopped
from preceptor.judge.models.anthropic import codec
from preceptor.judge.models.http.transport import handing_headers_to, http_client
from preceptor.judge.models.learned import NOTHING
from preceptor.judge.models.protocol import Capabilities, Completion, OnHeaders, Request

TIMEOUT_S = 60.0
CONNECT_S = 10.0
OWN_ADDRESS = "https://api.anthropic.com"


class AnthropicModel:
    """Satisfies `protocol.Model`. The SDK's own retries are off: they are `judge.asking.fanout`'s."""

    dialect = ""
    capabilities = Capabilities(structured=True, batches=True, headers=True)

    def __init__(self, name: str, client: anthropic.AsyncAnthropic) -> None:
        self.name = name
        self.address = str(client.base_url).rstrip("/")
        self.endpoint = "" if self.address == OWN_ADDRESS else self.address
        self.client = client
        self.learned = NOTHING
        """What the model has shown that it refuses; asking in batches adds to it as well."""
        self._url = f"{self.address}/v1/messages"

    async def complete(self, request: Request) -> Completion:
        """One call; a second one at once where the model refuses what it then never sees again."""
        while True:
            body = codec.body_of(request, self.learned)
            try:
                answer = await self.client.post(self._url, cast_to=object, body=body)
            except anthropic.BadRequestError as exc:
                lesson = codec.lesson(str(exc.message), body, self.learned)
                if lesson is None:
                    raise codec.mapped(exc, self.name, self.address) from exc
                self.learned = lesson.learned
            except (anthropic.AnthropicError, json.JSONDecodeError) as exc:
                raise codec.mapped(exc, self.name, self.address) from exc
            else:
                return codec.completion_of(answer)

    async def complete_with_headers(self, request: Request, on_headers: OnHeaders) -> Completion:
        """As `complete`; the rate-limit headers of every reply go to `on_headers`."""
        with handing_headers_to(on_headers):
            return await self.complete(request)

    async def close(self) -> None:
        """Close the connections."""
        await self.client.close()


def open_model(name: str, *, base_url: str | None = None, timeout_s: float = TIMEOUT_S) -> AnthropicModel:
    """`anthropic/<model>`, at base_url or where ANTHROPIC_BASE_URL points or at Anthropic's own address.

    The key comes from the environment by way of the SDK. Raises ProviderStopped where it is missing, unless
    the address is somebody else's: local servers want none.
    """
    timeout = anthropic.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s))
    options: dict[str, Any] = {
        "base_url": base_url,
        "max_retries": 0,
        "timeout": timeout,
        "http_client": http_client(anthropic, timeout),
    }
    try:
        client = anthropic.AsyncAnthropic(**options)
    except anthropic.AnthropicError as exc:
        raise ProviderStopped(f"{name}: the credentials cannot be read: {exc}") from exc
    if client.api_key is None and client.auth_token is None and client.credentials is None:
        if str(client.base_url).rstrip("/") == OWN_ADDRESS:
            raise ProviderStopped(
                f"{codec.KEY} is not set and {name} needs it; export it, or name another server with --base-url"
            )
        client = anthropic.AsyncAnthropic(api_key="none", **options)
    return AnthropicModel(name, client)
