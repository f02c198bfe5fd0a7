"""Anthropic's messages, and every server that speaks them. The API gives no token probabilities."""

from __future__ import annotations

from typing import cast

import anthropic

from preceptor.judge.errors import ProviderStopped
from preceptor.judge.models.anthropic import codec
from preceptor.judge.models.anthropic.provider import PROVIDER
from preceptor.judge.models.http.model import Codec, HttpModel, ServerAddress
from preceptor.judge.models.http.opening import opening
from preceptor.judge.models.protocol import Capabilities

OWN_ADDRESS = "https://api.anthropic.com"
CAN = Capabilities(structured=True, batches=True, headers=True)


def open_model(name: str, *, base_url: str | None = None, timeout_s: float | None = None) -> HttpModel:
    """`anthropic/<model>`, at base_url or where ANTHROPIC_BASE_URL points or at Anthropic's own address. timeout_s:
    of one call; None: as the address is near or far.

    The key comes from the environment by way of the SDK. Raises UserError where the address is none, and
    ProviderStopped where the key is missing, unless the address is somebody else's: local servers want none.
    """
    server = opening(anthropic, OWN_ADDRESS, "ANTHROPIC_BASE_URL", base_url, timeout_s)
    try:
        client = anthropic.AsyncAnthropic(**server.options)
    except anthropic.AnthropicError as exc:
        raise ProviderStopped(f"{name}: the credentials cannot be read: {exc}") from exc
    if client.api_key is None and client.auth_token is None and client.credentials is None:
        if server.own:
            raise ProviderStopped(
                f"{PROVIDER.key} is not set and {name} needs it; export it, or name another server with "
                "--base-url"
            )
        client = anthropic.AsyncAnthropic(api_key="none", **server.options)
    base = server.address.base
    reached = ServerAddress(base, server.endpoint, {}, server.near, f"{base}/v1/models")
    return HttpModel(name, client, cast(Codec, codec), codec.asked_of(name), reached, CAN)
