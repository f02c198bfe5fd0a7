"""What opening a client of either SDK has in common: whose address, how long to wait, which HTTP client."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from preceptor.constitution.errors import UserError
from preceptor.judge.models.http.address import Address, checked, is_near
from preceptor.judge.models.http.transport import http_client

TIMEOUT_S = 60.0
NEAR_TIMEOUT_S = 600.0
"""Of a server on this machine or beside it, which may have to load its model first."""
CONNECT_S = 10.0


class Opening(NamedTuple):
    """A server that is to be asked, and what the SDK's client of it is made with."""

    address: Address
    own: bool
    """Whether it is the provider's own address."""
    near: bool
    """Whether it is this machine or one beside it."""
    options: dict[str, Any]

    @property
    def endpoint(self) -> str:
        """As requests and ledger name it; empty for the provider's own."""
        return "" if self.own else self.address.shown


def opening(sdk: Any, own: str, variable: str, base_url: str | None, timeout_s: float | None) -> Opening:
    """The server at base_url, or where the environment's variable points, or at the provider's own address.

    timeout_s: of one call; None: as the address is near or far. The SDK's own retries are off. Raises UserError where
    the address is none.
    """
    given = base_url or os.environ.get(variable) or own
    address = checked(given, "--base-url" if base_url else variable)
    near = is_near(address.base)
    wait_s = timeout_s or (NEAR_TIMEOUT_S if near else TIMEOUT_S)
    timeout = sdk.Timeout(wait_s, connect=min(CONNECT_S, wait_s))
    try:
        client = http_client(sdk, timeout)
    except (ValueError, TypeError, ImportError) as exc:  # of proxies, which are read from the environment
        raise UserError(
            f"the HTTP client cannot be made ({type(exc).__name__}); look at HTTP_PROXY, HTTPS_PROXY, "
            "ALL_PROXY and SSL_CERT_FILE"
        ) from exc
    options = {
        "base_url": address.base,
        "default_query": address.query or None,
        "max_retries": 0,
        "timeout": timeout,
        "http_client": client,
    }
    return Opening(address, address.base == own, near, options)
