"""The HTTP beneath both SDKs: the fast transport where it is installed, and an ear for rate-limit headers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

Hear = Callable[[Mapping[str, str]], None]


class Ear:
    """Hands the rate-limit headers of every reply on to whoever listens; nothing where there are none."""

    def __init__(self) -> None:
        self.listener: Hear | None = None

    async def __call__(self, response: Any) -> None:
        """A response hook of the HTTP client, called in the task that made the request."""
        if self.listener is None:
            return
        said = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in response.headers.raw
            if b"ratelimit" in name.lower()
        }
        if said:
            self.listener(said)


def fast_transport() -> bool:
    """Whether the SDKs' aiohttp transport can be had: half the CPU time a call (docs/labelling.md)."""
    return find_spec("aiohttp") is not None


def http_client(sdk: Any, timeout: Any, ear: Ear) -> Any:
    """The SDK's own HTTP client on the fastest transport that is installed."""
    kind = sdk.DefaultAioHttpClient if fast_transport() else sdk.DefaultAsyncHttpxClient
    return kind(timeout=timeout, event_hooks={"response": [ear]})
