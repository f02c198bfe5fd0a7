"""OpenAI's chat completions, and every server that speaks them: vLLM, Ollama, llama.cpp, TGI."""

from __future__ import annotations

from typing import Any, cast

import openai

from preceptor.judge.errors import ProviderStopped
from preceptor.judge.models.http.model import Codec, HttpModel, ServerAddress
from preceptor.judge.models.http.opening import opening
from preceptor.judge.models.openai import codec
from preceptor.judge.models.openai.provider import PROVIDER
from preceptor.judge.models.protocol import Capabilities

OWN_ADDRESS = "https://api.openai.com/v1"
AUTH: Any = {"security": {"bearer_auth": True}}
"""As the SDK's own method for chat completions says."""
FLEX = "flex"
CAN = Capabilities(logprobs=True, structured=True, batches=True, headers=True)


FLEX_TIMEOUT_S = 900.0
"""Of a call at the flex tier, which waits for its turn; as OpenAI's guide advises."""


def open_model(
    name: str, *, base_url: str | None = None, timeout_s: float | None = None, flex: bool = False
) -> HttpModel:
    """`openai/<model>`, at base_url or where OPENAI_BASE_URL points or at OpenAI's own address. timeout_s: of one call;
    None: as the address is near or far. flex: at the cheaper and slower tier of service, which is on the bill where the
    server says that it gave it.

    The key comes from the environment by way of the SDK. Raises UserError where the address is none, and
    ProviderStopped where the key is missing, unless the address is somebody else's: local servers want none.
    """
    wait_s = FLEX_TIMEOUT_S if flex and timeout_s is None else timeout_s
    server = opening(openai, OWN_ADDRESS, "OPENAI_BASE_URL", base_url, wait_s)
    try:
        client = openai.AsyncOpenAI(**server.options)
    except openai.OpenAIError as exc:
        client = openai.AsyncOpenAI(api_key="none", **server.options)
        if server.own:
            raise ProviderStopped(
                f"{PROVIDER.key} is not set and {name} needs it; export it, or name another server with "
                "--base-url"
            ) from exc
    base = server.address.base
    fields = {"service_tier": FLEX} if flex else {}
    reached = ServerAddress(base, server.endpoint, AUTH, server.near, f"{base}/models", fields)
    return HttpModel(name, client, cast(Codec, codec), codec.asked_of(name), reached, CAN)
