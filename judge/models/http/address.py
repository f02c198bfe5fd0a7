"""Where a server is asked: checked when a model is opened, so that a slip of the pen is told before the first call."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import httpx2

from preceptor.constitution.errors import UserError
from preceptor.prompts.secrets import keep_parameter, shown_parameters


class Address(NamedTuple):
    """A server's address, apart from what every request to it carries along."""

    base: str
    """Without a slash at its end."""
    query: dict[str, str]
    """Azure's `api-version`, a gateway's own marks."""

    @property
    def shown(self) -> str:
        """As requests, ledger and messages name it: the client alone has what its parameters hold, harmless ones
        aside."""
        told = shown_parameters(self.query.items())
        return self.base + ("?" + "&".join(f"{name}={value}" for name, value in told) if told else "")


def checked(given: str, where: str) -> Address:
    """The parts of an address. where: the flag or variable that it came from. Raises UserError."""
    wanted = f"wanted an address such as http://127.0.0.1:8000/v1: check {where}"
    try:
        parts = urlsplit(given.strip())
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise UserError(f"{_told(given)} is no address ({exc}); {wanted}") from exc
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise UserError(f"{_told(given)} is no address; {wanted}")
    if any(mark.isspace() or not mark.isprintable() for mark in given.strip()):
        raise UserError(f"{_told(given)} holds white space; {wanted}")
    if parts.username or parts.password:
        raise UserError(
            f"the address of {host} holds a user name or password; a key comes from the environment alone"
        )
    base = urlunsplit((parts.scheme, parts.netloc, parts.path, "", "")).rstrip("/")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    try:
        # as the client and the resolver will have it: labels of 1 to 63 characters, of a form that names can have
        httpx2.URL(base, params=query).raw_host.decode("ascii").encode("idna")
    except (httpx2.InvalidURL, ValueError) as exc:  # with a UnicodeError
        raise UserError(f"{_told(given)} is no address (no server can have that name); {wanted}") from exc
    for name, value in query.items():
        keep_parameter(name, value)
    return Address(base, query)


def _told(given: str) -> str:
    """What is no address may hold a password all the same."""
    return repr("…@" + given.rpartition("@")[2] if "@" in given else given.partition("?")[0])


def is_near(base: str) -> bool:
    """Whether the server is this machine, or in its own network: it may have to load a model first."""
    host = urlsplit(base).hostname or ""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith((".local", ".localhost", ".internal")) or "." not in host
    return found.is_private or found.is_loopback or found.is_link_local
