"""OpenAI's chat completions, and every server that speaks them: vLLM, Ollama, llama.cpp, TGI."""

from __future__ import annotations

import json
from typing import Any

import openai

from preceptor.judge.errors import ProviderStopped
from preceptor.judge.models.http.transport import handing_headers_to, http_client
from preceptor.judge.models.learned import NOTHING
from preceptor.judge.models.openai import codec
from preceptor.judge.models.protocol import Capabilities, Completion, OnHeaders, Request

TIMEOUT_S = 60.0
CONNECT_S = 10.0
OWN_ADDRESS = "https://api.openai.com/v1"
AUTH: Any = {"security": {"bearer_auth": True}}
"""As the SDK's own method for chat completions says."""


class OpenAIModel:
    """Satisfies `protocol.Model`. The SDK's own retries are off: they are `judge.asking.fanout`'s."""

    dialect = ""
    capabilities = Capabilities(logprobs=True, structured=True, batches=True, headers=True)

    def __init__(self, name: str, client: openai.AsyncOpenAI) -> None:
        self.name = name
        self.address = str(client.base_url).rstrip("/")
        self.endpoint = "" if self.address == OWN_ADDRESS else self.address
        self.client = client
        self.learned = NOTHING
        """What the server has shown that it refuses; asking in batches adds to it as well."""
        self._url = f"{self.address}/chat/completions"
        """Whole, because the SDK takes its time to join a path to its address, at every call."""

    async def complete(self, request: Request) -> Completion:
        """One call; a second one at once where the server refuses what it then never sees again."""
        while True:
            body = codec.body_of(request, self.learned)
            try:
                # the SDK's typed method checks the parameters against their types once more and makes an object of
                # every token in the reply: a third of a call's CPU time (docs/labelling.md)
                answer = await self.client.post(self._url, cast_to=object, body=body, options=AUTH)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as exc:
                lesson = codec.lesson(codec.Refusal(exc.param, str(exc.message)), body, self.learned)
                if lesson is None:
                    raise codec.mapped(exc, self.name, self.address) from exc
                self.learned = lesson.learned
            except (openai.OpenAIError, json.JSONDecodeError) as exc:
                raise codec.mapped(exc, self.name, self.address) from exc
            else:
                return codec.completion_of(answer, request)

    async def complete_with_headers(self, request: Request, on_headers: OnHeaders) -> Completion:
        """As `complete`; the rate-limit headers of every reply go to `on_headers`."""
        with handing_headers_to(on_headers):
            return await self.complete(request)

    async def close(self) -> None:
        """Close the connections."""
        await self.client.close()


def open_model(name: str, *, base_url: str | None = None, timeout_s: float = TIMEOUT_S) -> OpenAIModel:
    """`openai/<model>`, at base_url or where OPENAI_BASE_URL points or at OpenAI's own address.

    The key comes from the environment by way of the SDK. Raises ProviderStopped where it is missing, unless
    the address is somebody else's: local servers want none.
    """
    timeout = openai.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s))
    options: dict[str, Any] = {
        "base_url": base_url,
        "max_retries": 0,
        "timeout": timeout,
        "http_client": http_client(openai, timeout),
    }
    try:
        client = openai.AsyncOpenAI(**options)
    except openai.OpenAIError as exc:
        client = openai.AsyncOpenAI(api_key="none", **options)
        if str(client.base_url).rstrip("/") == OWN_ADDRESS:
            raise ProviderStopped(
                f"{codec.KEY} is not set and {name} needs it; export it, or name another server with --base-url"
            ) from exc
    return OpenAIModel(name, client)
