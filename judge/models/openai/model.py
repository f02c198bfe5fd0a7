"""OpenAI's chat completions, and every server that speaks them: vLLM, Ollama, llama.cpp, TGI."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import openai

from preceptor.judge.errors import ModelError, ProviderStopped, Rejected, Transient
from preceptor.judge.models.batch_protocol import BatchProvider
from preceptor.judge.models.http.faults import Fault, broken_body, error_of, unreachable
from preceptor.judge.models.http.transport import Ear, Hear, http_client
from preceptor.judge.models.http.verdict_schema import verdict_schema
from preceptor.judge.models.protocol import Completion, FinishReason, Request
from preceptor.judge.models.reply_limits import billed_tokens, reply_tokens, thinks
from preceptor.judge.models.verdict_tokens import TokenChoice, verdict_probabilities

TIMEOUT_S = 60.0
CONNECT_S = 10.0
OWN_ADDRESS = "https://api.openai.com/v1"
KEY = "OPENAI_API_KEY"
AUTH: Any = {"security": {"bearer_auth": True}}
"""As the SDK's own method for chat completions says."""

ALTERNATIVES = 20
"""Most alternatives that the API gives at a token."""
OPTIONAL = (
    *("top_logprobs", "logprobs", "seed", "temperature", "top_p"),
    *("reasoning_effort", "max_tokens", "response_format"),
)
"""Parameters that some models or servers refuse, and without which the request still means something."""


class OpenAIModel:
    """Satisfies `protocol.Model`. The SDK's own retries are off: they are `judge.asking.fanout`'s."""

    dialect = ""
    structures = True
    """It can hold a reply to a JSON schema."""

    def __init__(self, name: str, client: openai.AsyncOpenAI, ear: Ear | None = None) -> None:
        self.name = name
        address = str(client.base_url).rstrip("/")
        self.endpoint = "" if address == OWN_ADDRESS else address
        self._client = client
        self._ear = ear
        self._address = address
        self._url = f"{address}/chat/completions"
        """Whole, because the SDK takes its time to join a path to its address, at every call."""
        self._model = name.partition("/")[2]
        self._thinks = thinks(name, self.endpoint)
        self._refused: frozenset[str] = frozenset()

    async def complete(self, request: Request) -> Completion:
        """One call; a second one at once where the server refuses an optional parameter, which it then never
        sees again."""
        while True:
            body = self.body(request)
            try:
                # the SDK's typed method checks the parameters against their types once more and makes an object of
                # every token in the reply: a third of a call's CPU time (docs/labelling.md)
                answer = await self._client.post(self._url, cast_to=object, body=body, options=AUTH)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as exc:
                refused = refused_parameter(exc.param, str(exc.message), body)
                if refused is None:
                    raise self.mapped(exc) from exc
                self.drop(refused)
            except (openai.OpenAIError, json.JSONDecodeError) as exc:
                raise self.mapped(exc) from exc
            else:
                return completion_of(answer, request)

    def batches(self) -> BatchProvider:
        """The same model through its provider's batch API."""
        from preceptor.judge.models.openai.batch import OpenAIBatches

        return OpenAIBatches(self, self._client)

    def drop(self, parameter: str) -> None:
        """Never send an optional parameter again: the server refuses it."""
        self._refused |= {parameter}

    def listen(self, hear: Hear) -> None:
        """Have the rate-limit headers of every reply handed on."""
        if self._ear is not None:
            self._ear.listener = hear

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def body(self, request: Request, refused: frozenset[str] | None = None) -> dict[str, Any]:
        """The request's parameters, but for those that are refused: None, what the server is known to refuse. Seed and
        sample go in, so that two samples are two bodies."""
        refused = self._refused if refused is None else refused
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [message.model_dump() for message in request.messages],
            "seed": (request.seed * 1_000_003 + request.sample) % 2**31,
        }
        if self._thinks:
            body |= {"max_completion_tokens": billed_tokens(request), "reasoning_effort": "low"}
        else:
            body |= {"max_tokens": reply_tokens(request), "temperature": request.temperature}
            if request.top_p < 1:
                body["top_p"] = request.top_p
            if request.menu:
                body |= {"logprobs": True, "top_logprobs": ALTERNATIVES}
        if request.structured and request.menu:
            schema = {"name": "verdict", "strict": True, "schema": verdict_schema(request)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        refused |= {"top_logprobs"} if "logprobs" in refused else set()
        kept = {name: value for name, value in body.items() if name not in refused}
        if "max_tokens" in body and "max_tokens" in refused:
            kept["max_completion_tokens"] = body["max_tokens"]
        return kept

    def mapped(self, exc: Exception) -> ModelError:
        """Our error for any of the SDK's."""
        if isinstance(exc, openai.APIStatusError):
            said = exc.body.get("message") if isinstance(exc.body, dict) else None
            code = " ".join(filter(None, (exc.code, exc.type)))
            headers = exc.response.headers
            return error_of(
                Fault("openai", self.name, exc.status_code, str(said or exc.message), code, headers, KEY)
            )
        if isinstance(exc, openai.APIConnectionError):
            return unreachable(self._address, exc)
        if isinstance(exc, openai.APIResponseValidationError | json.JSONDecodeError):
            return broken_body("openai", exc)
        if isinstance(exc, openai.APIError):
            return Transient(f"openai: {exc.message}")
        if isinstance(exc, openai.LengthFinishReasonError | openai.ContentFilterFinishReasonError):
            return Rejected(str(exc), refused=isinstance(exc, openai.ContentFilterFinishReasonError))
        return ProviderStopped(f"the openai client cannot send requests: {exc}")


def refused_parameter(param: str | None, message: str, body: dict[str, Any]) -> str | None:
    """The optional parameter of the body that a 400 is about, if it is about one."""
    for name in OPTIONAL:
        if name in body and (param == name or re.search(rf"\b{name}\b", message)):
            return name
    return None


def completion_of(answer: object, request: Request) -> Completion:
    """Raises Transient where the body has not the protocol's form; the SDK does not check it."""
    try:
        if not isinstance(answer, dict):  # the SDK hands plain text on where the body is not called JSON
            raise TypeError(f"not JSON but {type(answer).__name__}")
        choice = answer["choices"][0]
        message = choice["message"]
        usage = answer.get("usage") or {}
        details = usage.get("prompt_tokens_details") or {}
        return Completion(
            text=message.get("refusal") or message.get("content") or "",
            finish_reason=_finish(choice),
            probabilities=_probabilities(choice, request),
            served_by=answer.get("model") or "",
            tokens_in=usage.get("prompt_tokens") or 0,
            tokens_out=usage.get("completion_tokens") or 0,
            tokens_cached=details.get("cached_tokens") or 0,
        )
    except KeyError as exc:
        raise broken_body("openai", ValueError(f"it has no {exc}")) from exc
    except (AttributeError, IndexError, TypeError, ValueError) as exc:
        raise broken_body("openai", exc) from exc


def _finish(choice: Mapping[str, Any]) -> FinishReason:
    if choice["message"].get("refusal") or choice.get("finish_reason") == "content_filter":
        return "refused"
    return "length" if choice.get("finish_reason") == "length" else "stop"


def _probabilities(choice: Mapping[str, Any], request: Request) -> dict[str, float] | None:
    tokens_given = (choice.get("logprobs") or {}).get("content")
    if not request.menu or not tokens_given:
        return None
    tokens = [
        TokenChoice(
            token["token"],
            token["logprob"],
            tuple((top["token"], top["logprob"]) for top in token.get("top_logprobs") or ()),
        )
        for token in tokens_given
    ]
    return verdict_probabilities(tokens, request.menu)


def open_model(name: str, *, base_url: str | None = None, timeout_s: float = TIMEOUT_S) -> OpenAIModel:
    """`openai/<model>`, at base_url or where OPENAI_BASE_URL points or at OpenAI's own address.

    The key comes from the environment by way of the SDK. Raises ProviderStopped where it is missing, unless
    the address is somebody else's: local servers want none.
    """
    timeout = openai.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s))
    ear = Ear()
    options: dict[str, Any] = {
        "base_url": base_url,
        "max_retries": 0,
        "timeout": timeout,
        "http_client": http_client(openai, timeout, ear),
    }
    try:
        client = openai.AsyncOpenAI(**options)
    except openai.OpenAIError as exc:
        client = openai.AsyncOpenAI(api_key="none", **options)
        if str(client.base_url).rstrip("/") == OWN_ADDRESS:
            raise ProviderStopped(
                f"{KEY} is not set and {name} needs it; export it, or name another server with --base-url"
            ) from exc
    return OpenAIModel(name, client, ear)
