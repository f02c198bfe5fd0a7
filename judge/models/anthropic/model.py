"""Anthropic's messages, and every server that speaks them. The API gives no token probabilities."""

from __future__ import annotations

import json
import re
from typing import Any

import anthropic
from anthropic.types import Message

from preceptor.judge.errors import ModelError, ProviderStopped, Transient
from preceptor.judge.models.batch_protocol import BatchProvider
from preceptor.judge.models.http.faults import Fault, broken_body, error_of, unreachable
from preceptor.judge.models.http.transport import Ear, Hear, http_client
from preceptor.judge.models.http.verdict_schema import verdict_schema
from preceptor.judge.models.protocol import Completion, FinishReason, Request

TIMEOUT_S = 60.0
CONNECT_S = 10.0
OWN_ADDRESS = "https://api.anthropic.com"
KEY = "ANTHROPIC_API_KEY"

FINISHES: dict[str, FinishReason] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refused",
}


class AnthropicModel:
    """Satisfies `protocol.Model`. The SDK's own retries are off: they are `judge.asking.fanout`'s."""

    dialect = ""
    structures = True
    """It can hold a reply to a JSON schema."""

    def __init__(self, name: str, client: anthropic.AsyncAnthropic, ear: Ear | None = None) -> None:
        self.name = name
        address = str(client.base_url).rstrip("/")
        self.endpoint = "" if address == OWN_ADDRESS else address
        self._client = client
        self._ear = ear
        self._address = address
        self._model = name.partition("/")[2]
        self._refused: frozenset[str] = frozenset()

    async def complete(self, request: Request) -> Completion:
        """One call; a second one at once where the model refuses an optional parameter, which it then never
        sees again. The API takes no seed: samples of one prompt are equal bodies."""
        while True:
            optional = self.optional(request)
            try:
                answer = await self._client.messages.create(**self.body(request), extra_body=optional)
            except anthropic.BadRequestError as exc:
                said = str(exc.message)
                refused = [name for name in optional if re.search(rf"\b{name}\b", said)]
                # where both are named together, one of them may still stay
                if not refused:
                    raise self.mapped(exc) from exc
                self.drop(refused[-1])
            except (anthropic.AnthropicError, json.JSONDecodeError) as exc:
                raise self.mapped(exc) from exc
            else:
                return completion_of(answer)

    def batches(self) -> BatchProvider:
        """The same model through its provider's batch API."""
        from preceptor.judge.models.anthropic.batch import AnthropicBatches

        return AnthropicBatches(self, self._client)

    def drop(self, parameter: str) -> None:
        """Never send an optional parameter again: the model refuses it."""
        self._refused |= {parameter}

    def listen(self, hear: Hear) -> None:
        """Have the rate-limit headers of every reply handed on."""
        if self._ear is not None:
            self._ear.listener = hear

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def body(self, request: Request) -> dict[str, Any]:
        """The request's parameters, without the optional ones."""
        system = "\n\n".join(message.content for message in request.messages if message.role == "system")
        turns = [message.model_dump() for message in request.messages if message.role != "system"]
        body: dict[str, Any] = {"model": self._model, "max_tokens": request.max_tokens, "messages": turns}
        if system:
            # instructions and constitution are the same in every ask of a run: read from the cache at a tenth
            body["system"] = [{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}]
        return body

    def optional(self, request: Request, refused: frozenset[str] | None = None) -> dict[str, Any]:
        """What goes beside the SDK's own parameters, but for what is refused: None, what the model is known to
        refuse."""
        refused = self._refused if refused is None else refused
        optional: dict[str, Any] = {"temperature": request.temperature}
        if request.top_p < 1:
            optional["top_p"] = request.top_p
        if request.structured and request.menu:
            optional["output_config"] = {"format": {"type": "json_schema", "schema": verdict_schema(request)}}
        return {name: value for name, value in optional.items() if name not in refused}

    def mapped(self, exc: Exception) -> ModelError:
        """Our error for any of the SDK's."""
        if isinstance(exc, anthropic.APIStatusError):
            code = " ".join(filter(None, (exc.type, exc.error_code)))
            said = exc.api_message or exc.message
            return error_of(
                Fault("anthropic", self.name, exc.status_code, said, code, exc.response.headers, KEY)
            )
        if isinstance(exc, anthropic.APIConnectionError):
            return unreachable(self._address, exc)
        if isinstance(exc, anthropic.APIResponseValidationError | json.JSONDecodeError):
            return broken_body("anthropic", exc)
        if isinstance(exc, anthropic.APIError | anthropic.RetryableError):
            return Transient(f"anthropic: {exc}")
        return ProviderStopped(f"the anthropic client cannot send requests: {exc}")


def completion_of(answer: object) -> Completion:
    """Raises Transient where the body has not the protocol's form; the SDK does not check it."""
    try:
        if not isinstance(answer, Message):  # the SDK hands plain text on where the body is not called JSON
            raise TypeError(f"not JSON but {type(answer).__name__}")
        usage = answer.usage
        cached = (usage.cache_read_input_tokens or 0) if usage else 0
        written = (usage.cache_creation_input_tokens or 0) if usage else 0
        return Completion(
            text="".join(block.text for block in answer.content if block.type == "text"),
            finish_reason=FINISHES.get(answer.stop_reason or "", "stop"),
            served_by=answer.model or "",
            # the API counts what came from or went to the cache apart
            tokens_in=(usage.input_tokens or 0) + cached + written if usage else 0,
            tokens_out=(usage.output_tokens or 0) if usage else 0,
            tokens_cached=cached,
            tokens_cache_written=written,
        )
    except (AttributeError, TypeError, ValueError) as exc:
        raise broken_body("anthropic", exc) from exc


def open_model(name: str, *, base_url: str | None = None, timeout_s: float = TIMEOUT_S) -> AnthropicModel:
    """`anthropic/<model>`, at base_url or where ANTHROPIC_BASE_URL points or at Anthropic's own address.

    The key comes from the environment by way of the SDK. Raises ProviderStopped where it is missing, unless
    the address is somebody else's: local servers want none.
    """
    timeout = anthropic.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s))
    ear = Ear()
    options: dict[str, Any] = {
        "base_url": base_url,
        "max_retries": 0,
        "timeout": timeout,
        "http_client": http_client(anthropic, timeout, ear),
    }
    try:
        client = anthropic.AsyncAnthropic(**options)
    except anthropic.AnthropicError as exc:
        raise ProviderStopped(f"{name}: the credentials cannot be read: {exc}") from exc
    if client.api_key is None and client.auth_token is None and client.credentials is None:
        if str(client.base_url).rstrip("/") == OWN_ADDRESS:
            raise ProviderStopped(
                f"{KEY} is not set and {name} needs it; export it, or name another server with --base-url"
            )
        client = anthropic.AsyncAnthropic(api_key="none", **options)
    return AnthropicModel(name, client, ear)
