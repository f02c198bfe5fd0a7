"""Anthropic's messages, and every server that speaks them. The API gives no token probabilities."""

from __future__ import annotations

import os
from typing import Any, cast

import anthropic

from preceptor.judge.errors import ProviderStopped
from preceptor.judge.models.anthropic import codec
from preceptor.judge.models.anthropic.provider import PROVIDER
from preceptor.judge.models.http.address import checked, is_near
from preceptor.judge.models.http.model import Codec, HttpModel, ServerAddress
from preceptor.judge.models.http.transport import http_client
from preceptor.judge.models.protocol import Capabilities

TIMEOUT_S = 60.0
NEAR_TIMEOUT_S = 600.0
"""Of a server on this machine or beside it, which may have to load its model first."""
CONNECT_S = 10.0
OWN_ADDRESS = "https://api.anthropic.com"
CAN = Capabilities(structured=True, batches=True, headers=True)


def open_model(name: str, *, base_url: str | None = None, timeout_s: float | None = None) -> HttpModel:
    """`anthropic/<model>`, at base_url or where ANTHROPIC_BASE_URL points or at Anthropic's own address. timeout_s:
    of one call; None: as the address is near or far.

    The key comes from the environment by way of the SDK. Raises UserError where the address is none, and
    ProviderStopped where the key is missing, unless the address is somebody else's: local servers want none.
    """
    given = base_url or os.environ.get("ANTHROPIC_BASE_URL") or OWN_ADDRESS
    address = checked(given, "--base-url" if base_url else "ANTHROPIC_BASE_URL")
    near = is_near(address.base)
    wait_s = timeout_s or (NEAR_TIMEOUT_S if near else TIMEOUT_S)
    timeout = anthropic.Timeout(wait_s, connect=min(CONNECT_S, wait_s))
    options: dict[str, Any] = {
        "base_url": address.base,
        "default_query": address.query or None,
        "max_retries": 0,
        "timeout": timeout,
        "http_client": http_client(anthropic, timeout),
    }
    try:
        client = anthropic.AsyncAnthropic(**options)
    except anthropic.AnthropicError as exc:
        raise ProviderStopped(f"{name}: the credentials cannot be read: {exc}") from exc
    if client.api_key is None and client.auth_token is None and client.credentials is None:
        if address.base == OWN_ADDRESS:
            raise ProviderStopped(
                f"{PROVIDER.key} is not set and {name} needs it; export it, or name another server with "
                "--base-url"
            )
        client = anthropic.AsyncAnthropic(api_key="none", **options)
    endpoint = "" if address.base == OWN_ADDRESS else address.whole
    line = ServerAddress(address.base, f"{address.base}/v1/messages", endpoint, {}, near)
    return HttpModel(name, client, cast(Codec, codec), codec.asked_of(name), line, CAN)
