"""Replies in tokens from a vLLM server, by a LoRA adapter that is loaded for them and unloaded again.

    POST /v1/load_lora_adapter      lora_name, lora_path: a folder that the server can read
    POST /v1/completions            prompt as tokens; tokens and log-probabilities come back
    POST /v1/unload_lora_adapter    lora_name

The server must have been started with `--enable-lora` and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True. What its
generation config would add to a request, such as top_k, is asked for explicitly as none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import httpx
from tenacity import AsyncRetrying, retry_if_exception_type, retry_if_result, stop_after_attempt

from preceptor.constitution.errors import UserError
from preceptor.judge.asking.retry import wait_before_next
from preceptor.judge.errors import ProviderStopped
from preceptor.judge.models.door import sound
from preceptor.judge.models.http.address import checked

TIMEOUT_S = 600.0
CONNECT_S = 10.0
CONNECTIONS = 64
TRIES = 5
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may be answered."""
START = "start vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment"


class Draws(NamedTuple):
    """How replies are drawn."""

    samples: int
    """Replies to each prompt."""
    max_tokens: int
    temperature: float
    top_p: float
    stops: Sequence[int]
    """Tokens that end a reply."""


class Drawn(NamedTuple):
    """One reply."""

    tokens: list[int]
    """Up to the token that ended it, with it."""
    logprobs: list[float]
    """Of these tokens by the server's own arithmetic, in nats."""
    ended: bool


async def draw(
    url: str, name: str, adapter: str, prompts: Sequence[list[int]], how: Draws, seeds: Sequence[int]
) -> list[list[Drawn]]:
    """`how.samples` replies to each prompt by the adapter in a folder, given by its whole path, which is `name` to the
    server meanwhile; `seeds`: one for each prompt.

    Raises ProviderStopped where nobody answers at `url`, UserError where it is no address or the server will not do it.
    """
    address = checked(url, "--vllm")
    timeout = httpx.Timeout(TIMEOUT_S, connect=CONNECT_S, pool=None)
    limits = httpx.Limits(max_connections=CONNECTIONS)
    base = address.base.removesuffix("/v1")
    async with httpx.AsyncClient(
        base_url=base, params=address.query or None, timeout=timeout, limits=limits
    ) as client:
        loading = {"lora_name": name, "lora_path": adapter}
        await _post(client, "/v1/load_lora_adapter", loading)
        try:
            asked = [
                _complete(client, name, prompt, how, seed)
                for prompt, seed in zip(prompts, seeds, strict=True)
            ]
            return list(await asyncio.gather(*asked))
        finally:
            await _post(client, "/v1/unload_lora_adapter", {"lora_name": name})


async def _complete(
    client: httpx.AsyncClient, name: str, prompt: list[int], how: Draws, seed: int
) -> list[Drawn]:
    body = {
        "model": name,
        "prompt": prompt,
        "n": how.samples,
        "max_tokens": how.max_tokens,
        "temperature": how.temperature,
        "top_p": how.top_p,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "seed": seed,
        "stop_token_ids": list(how.stops),
        "logprobs": 0,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
        "skip_special_tokens": False,
    }
    answer = await _post(client, "/v1/completions", body)
    try:
        choices = sorted(answer.json()["choices"], key=lambda choice: choice["index"])
        replies = [_reply(choice, how) for choice in choices]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{client.base_url} answered without tokens and log-probabilities ({type(error).__name__}: {error}); "
            "wanted vLLM's /v1/completions, 0.10 or later"
        ) from error
    if len(replies) != how.samples:
        raise UserError(f"{client.base_url} gave {len(replies)} replies where {how.samples} were asked for")
    return replies


def _reply(choice: Mapping[str, Any], how: Draws) -> Drawn:
    said = choice["logprobs"]
    tokens = choice.get("token_ids") or [int(token.removeprefix("token_id:")) for token in said["tokens"]]
    logprobs = [float(value) for value in said["token_logprobs"]]
    if not tokens or len(tokens) != len(logprobs) or len(tokens) > how.max_tokens:
        raise ValueError(
            f"{len(tokens)} tokens and {len(logprobs)} log-probabilities, of at most {how.max_tokens}"
        )
    ended = tokens[-1] in how.stops
    if not ended and len(tokens) < how.max_tokens:
        raise ValueError(f"a reply of {len(tokens)} tokens that no stop token ends")
    return Drawn([int(token) for token in tokens], logprobs, ended)


async def _post(client: httpx.AsyncClient, path: str, body: Mapping[str, Any]) -> httpx.Response:
    """The server's answer; what may pass is tried again."""
    again = AsyncRetrying(
        retry=retry_if_exception_type(httpx.TransportError)
        | retry_if_result(lambda it: it.status_code in PASSING),
        stop=stop_after_attempt(TRIES),
        wait=wait_before_next,
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
    )
    try:
        answer: httpx.Response = await again(client.post, path, json=body)
    except httpx.TransportError as problem:
        raise ProviderStopped(
            f"no answer from {client.base_url} ({type(problem).__name__}: {problem}); start the server and run the "
            "same command again to go on"
        ) from problem
    if not answer.is_success:
        raise UserError(_refusal(client, path, answer))
    return answer


def _refusal(client: httpx.AsyncClient, path: str, answer: httpx.Response) -> str:
    said = sound(" ".join(answer.text.split()))[:300]
    how = f"; {START}" if "lora" in path else ""
    return f"{client.base_url} refused {path} with status {answer.status_code}: {said}{how}"
