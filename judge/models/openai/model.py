"""OpenAI's chat completions, and every server that speaks them: vLLM, Ollama, llama.cpp, TGI."""

from __future__ import annotations

import os
from typing import Any, cast

import openai

from preceptor.judge.errors import ProviderStopped
from preceptor.judge.models.http.address import checked, is_near
from preceptor.judge.models.http.model import Codec, HttpModel, ServerAddress
from preceptor.judge.models.http.transport import http_client
from preceptor.judge.models.openai import codec
from preceptor.judge.models.openai.provider import PROVIDER
from preceptor.judge.models.protocol import Capabilities

TIMEOUT_S = 60.0
NEAR_TIMEOUT_S = 600.0
"""Of a server on this machine or beside it, which may have to load its model first."""
CONNECT_S = 10.0
OWN_ADDRESS = "https://api.openai.com/v1"
AUTH: Any = {"security": {"bearer_auth": True}}
"""As the SDK's own method for chat completions says."""
CAN = Capabilities(logprobs=True, structured=True, batches=True, headers=True)


def open_model(name: str, *, base_url: str | None = None, timeout_s: float | None = None) -> HttpModel:
    """`openai/<model>`, at base_url or where OPENAI_BASE_URL points or at OpenAI's own address. timeout_s: of one call;
    None: as the address is near or far.

    The key comes from the environment by way of the SDK. Raises UserError where the address is none, and
    ProviderStopped where the key is missing, unless the address is somebody else's: local servers want none.
    """
    given = base_url or os.environ.get("OPENAI_BASE_URL") or OWN_ADDRESS
    address = checked(given, "--base-url" if base_url else "OPENAI_BASE_URL")
    near = is_near(address.base)
    wait_s = timeout_s or (NEAR_TIMEOUT_S if near else TIMEOUT_S)
    timeout = openai.Timeout(wait_s, connect=min(CONNECT_S, wait_s))
    options: dict[str, Any] = {
        "base_url": address.base,
        "default_query": address.query or None,
        "max_retries": 0,
        "timeout": timeout,
        "http_client": http_client(openai, timeout),
    }
    try:
        client = openai.AsyncOpenAI(**options)
    except openai.OpenAIError as exc:
        client = openai.AsyncOpenAI(api_key="none", **options)
        if address.base == OWN_ADDRESS:
            raise ProviderStopped(
                f"{PROVIDER.key} is not set and {name} needs it; export it, or name another server with "
                "--base-url"
            ) from exc
    endpoint = "" if address.base == OWN_ADDRESS else address.whole
    line = ServerAddress(address.base, f"{address.base}/chat/completions", endpoint, AUTH, near)
    return HttpModel(name, client, cast(Codec, codec), codec.asked_of(name), line, CAN)
