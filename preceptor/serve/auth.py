"""Who asks: the key of a request, what it may do, and how often."""

from __future__ import annotations

import base64
import binascii
import time
from collections import Counter
from collections.abc import Callable
from typing import Annotated, NamedTuple

from fastapi import Depends, Request

from preceptor.serve.keys import SCOPES, Key, Keyring
from preceptor.serve.problems import Problem, unavailable

CHALLENGE = {"WWW-Authenticate": 'Bearer realm="preceptor", Basic realm="preceptor"'}


class Caller(NamedTuple):
    """Whoever sent a request."""

    key: str
    """The key's id; empty on loopback where no key was ever made."""
    scopes: frozenset[str]
    budget_usd: float | None = None
    """What may be spent with the key, ever; None: no cap of its own."""
    spent_usd: float = 0.0
    """What was spent with it so far, as it is written down."""

    def may(self, scope: str) -> bool:
        """Whether the scope is among those of the key."""
        return scope in self.scopes or "admin" in self.scopes


ANYBODY = Caller("", frozenset(SCOPES))
"""Who asks on loopback where no key was ever made."""


class Doorkeeper:
    """Looks at keys, and counts what each asks for a minute."""

    def __init__(self, keys: Keyring, *, open_without_keys: bool, max_per_key: int | None = None) -> None:
        """open_without_keys: whether everybody may enter as long as no key was ever made. max_per_key: requests of one
        key at once."""
        self._keys = keys
        self._most = max_per_key
        self._there: Counter[str] = Counter()
        """Key -> requests of its that are being answered."""
        self._open = open_without_keys
        self._left: dict[str, tuple[float, float]] = {}
        """Of a key with a rate: (requests that it has left, when that was counted)."""

    @property
    def open(self) -> bool:
        """Whether everybody may enter."""
        return self._open and self._keys.none_made

    def caller(self, authorization: str | None) -> Caller:
        """Who sends this header. Raises Problem 401 and 429."""
        if self.open:
            return ANYBODY
        shown = _shown(authorization)
        key = self._keys.found(shown) if shown else None
        if key is None:
            said = "this key is not known, revoked or at its end" if shown else "no key came"
            raise Problem(
                401,
                "invalid_api_key",
                f"{said}; wanted `Authorization: Bearer KEY`, or Basic with the key as password",
                "authentication_error",
                headers=CHALLENGE,
            )
        return self.admitted(key)

    def admitted(self, key: Key) -> Caller:
        """Whoever has shown this key, which is in use. Raises Problem 429."""
        self._count(key)
        return Caller(key.id, key.scopes, key.budget_usd, key.spent_usd)

    def enter(self, asking: Caller) -> Callable[[], None]:
        """Count a request as being answered, until what is given back is called. Raises Problem 503, which every client
        asks again after: some take 429 for final."""
        if asking is ANYBODY:
            return lambda: None
        if self._most is not None and self._there[asking.key] >= self._most:
            raise unavailable("too_many_requests", f"this key may ask {self._most} requests at once", 1)
        self._there[asking.key] += 1

        def leave() -> None:
            self._there[asking.key] -= 1
            if not self._there[asking.key]:
                del self._there[asking.key]

        return leave

    def _count(self, key: Key) -> None:
        if key.per_minute is None:
            return
        now = time.monotonic()
        left, counted_at = self._left.get(key.id, (float(key.per_minute), now))
        left = min(float(key.per_minute), left + (now - counted_at) * key.per_minute / 60)
        if left < 1:
            wait_s = (1 - left) * 60 / key.per_minute
            raise Problem(
                429,
                "rate_limit_exceeded",
                f"this key may ask {key.per_minute} times a minute",
                "rate_limit_error",
                headers={"Retry-After": str(max(1, round(wait_s + 0.5)))},
            )
        self._left[key.id] = left - 1, now


def _shown(authorization: str | None) -> str | None:
    kind, _, value = (authorization or "").strip().partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return None
    return None


async def caller(request: Request) -> Caller:
    """Who asks, as a dependency of a route."""
    doorkeeper: Doorkeeper = request.app.state.doorkeeper
    found = doorkeeper.caller(request.headers.get("authorization"))
    request.state.caller = found
    if (
        "leave" not in request.scope["state"]
    ):  # whoever lets requests in also sees them out (`preceptor.serve.gate`)
        request.scope["state"]["leave"] = doorkeeper.enter(found)
    return found


def require(asking: Caller, scope: str) -> Caller:
    """The caller, where its key has the scope. Raises Problem 403."""
    if not asking.may(scope):
        raise Problem(403, "missing_scope", f"this key lacks the scope {scope}", "permission_error")
    return asking


def needs(scope: str) -> Callable[..., Caller]:
    """A dependency that gives the caller, where its key has the scope. Raises Problem 403."""

    def checked(asking: Annotated[Caller, Depends(caller)]) -> Caller:
        return require(asking, scope)

    return checked
