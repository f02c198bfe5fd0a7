"""Who looks at a page: somebody who has shown a key, or anybody on loopback where no key was ever made.

The cookie holds no key. It names one, and is signed with a secret of this server's folder and the key's hash: whoever
reads the database alone can sign none, and a key that is revoked ends its sessions.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import time
from pathlib import Path
from typing import Annotated, NamedTuple
from urllib.parse import urlsplit

from fastapi import Depends, Request, Response

from preceptor.constitution.foreign import json_of
from preceptor.serve.auth import ANYBODY, Caller, Doorkeeper, require
from preceptor.serve.jobs.native import READ
from preceptor.serve.keys import Key, Keyring
from preceptor.serve.problems import Problem

COOKIE = "preceptor_session"
LASTS_S = 12 * 3600
"""How long a session holds."""
SECRET = "session.secret"
"""In the server's folder, which all servers on one database share."""
LONGEST_NAME = 60


class Visitor(NamedTuple):
    """Whoever looks at a page."""

    caller: Caller
    name: str
    """As corrections and verdicts are signed; empty: not told."""

    @property
    def owner(self) -> str | None:
        """Whose files and jobs are shown: one's own; None: everybody's. Raises Problem 403."""
        return None if require(self.caller, READ).may("admin") else self.caller.key

    def may(self, scope: str) -> bool:
        """Whether the page may offer what the scope is for."""
        return self.caller.may(scope)

    def signed(self) -> str:
        """The name. Raises Problem 422 where none was told."""
        if not self.name:
            raise Problem(422, "no_name", "say who you are first: sign in with a name")
        return self.name


class SignInNeededError(Exception):
    """Nobody has signed in, and somebody has to."""


def require_same_origin(request: Request) -> None:
    """Raises Problem 403 for a form that another site sends, or that comes from no browser."""
    origin = request.headers.get("origin", "")
    if not origin or urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower():
        raise Problem(
            403,
            "foreign_origin",
            "this form did not come from a page of this server; programs use the routes under /v1",
            "permission_error",
        )


async def visitor(request: Request) -> Visitor:
    """Who looks, as a dependency of a page. Raises SignInNeededError, Problem."""
    doorkeeper: Doorkeeper = request.app.state.doorkeeper
    keys: Keyring = request.app.state.keys
    session = _session(request, keys)
    if doorkeeper.open:
        found = Visitor(ANYBODY, session.name if session is not None and not session.key else "")
    elif request.headers.get("authorization"):
        caller = doorkeeper.caller(request.headers["authorization"])
        key = keys.in_use(caller.key)
        found = Visitor(caller, key.name if key else "")
    else:
        key = keys.in_use(session.key) if session is not None and session.key else None
        if key is None or session is None:
            raise SignInNeededError
        found = Visitor(doorkeeper.admitted(key), session.name)
    request.state.caller, request.state.visitor = found.caller, found
    return found


Looking = Annotated[Visitor, Depends(visitor)]


class _Session(NamedTuple):
    key: str
    """Id; empty on loopback where no key was ever made."""
    name: str
    until: float


def sign_in(request: Request, response: Response, key: Key | None, name: str) -> None:
    """Have the browser remember who it is."""
    made = _Session(key.id if key else "", name, time.time() + LASTS_S)
    # without padding: of `=` browsers would make a quoted value
    body = base64.urlsafe_b64encode(json.dumps(made).encode()).decode().rstrip("=")
    response.set_cookie(
        COOKIE,
        f"{body}.{_mac(_secret(_folder(request)), key.sha256 if key else '', body)}",
        max_age=LASTS_S,
        httponly=True,
        samesite="strict",
        # a proxy may speak TLS for us: the browser knows
        secure=request.headers.get("origin", "").startswith("https:"),
    )


def sign_out(response: Response) -> None:
    """Have it forget."""
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")


def _session(request: Request, keys: Keyring) -> _Session | None:
    body, _, shown = request.cookies.get(COOKIE, "").rpartition(".")
    try:
        found = _Session(*json_of(base64.urlsafe_b64decode(f"{body}==")))
        known = keys.in_use(found.key) if found.key else None
        mac = _mac(_secret(_folder(request)), known.sha256 if known else "", body)
        if (
            hmac.compare_digest(mac.encode(), shown.encode())
            and time.time() < found.until
            and (known or not found.key)
        ):
            return found
    except (ValueError, TypeError, RecursionError):
        pass  # of whoever writes cookies of their own
    return None


def _mac(secret: bytes, hashed_key: str, body: str) -> str:
    return hmac.new(secret + hashed_key.encode(), body.encode(), hashlib.sha256).hexdigest()


def _folder(request: Request) -> Path:
    return Path(request.app.state.config.folder)


def _secret(folder: Path) -> bytes:
    path = folder / SECRET
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f"{SECRET}.{secrets.token_hex(4)}"
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(secrets.token_bytes(32))
        try:
            os.link(beside, path)  # whole, and the first one's where two servers start
        except FileExistsError:
            pass
        finally:
            beside.unlink()
    return path.read_bytes()
