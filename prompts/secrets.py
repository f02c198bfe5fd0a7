"""What must be written and shown nowhere: keys of the environment, and what an address or a ledger's URL carries.

A secret lives in the client that sends it. Whatever comes from outside passes `redacted` before it is written down, for
a server may repeat what it was sent; whatever is printed passes it once more.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

VARIABLES = {
    "OPENAI_API_KEY",
    "OPENAI_ADMIN_KEY",
    "AZURE_OPENAI_API_KEY",
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "WANDB_API_KEY",
    "PGPASSWORD",
}
"""Environment variables that hold a secret; providers add theirs by `watch`."""
SHORTEST = 12
"""A value of fewer characters is a placeholder (EMPTY, ollama, not-needed), and a word that replies may hold."""
SHORTEST_PASSWORD = 6
"""Of a value that stands where a secret must: in the place of a password, or of a key in an address."""
HIDDEN = "[redacted]"
_SECRET_NAME = re.compile(
    r"key|token|secret|sig(?:nature)?$|pass(?:word|wd)?$|^p(?:ass)?wd$|auth|credential|jwt|bearer|^code$|^sas$",
    re.IGNORECASE,
)
HARMLESS = frozenset(
    {
        "api-version",
        "api_version",
        "apiversion",
        "version",
        "v",
        "deployment",
        "deployment-id",
        "deployment_id",
        "model",
        "model-version",
        "model_version",
        "engine",
        "provider",
        "region",
        "location",
        "project",
        "beta",
        "format",
        "stream",
        "timeout",
        "sslmode",
        "connect_timeout",
        "application_name",
        "target_session_attrs",
        "host",
        "port",
    }
)
"""Parameters of an address whose values may be read by anybody. What any other holds nobody knows: it is not shown."""
_kept: set[str] = set()


def watch(variable: str) -> None:
    """Have the value of an environment variable redacted too."""
    if variable:
        VARIABLES.add(variable)


def keep(value: str | None, shortest: int = SHORTEST) -> None:
    """Have a value redacted from now on, which came another way than by the environment."""
    if value and len(value) >= shortest:
        _kept.update((value, quote(value, safe="")))


def is_secret(name: str) -> bool:
    """Whether a parameter of an address of this name is known to hold a secret."""
    return name.lower() not in HARMLESS and _SECRET_NAME.search(name) is not None


def keep_parameter(name: str, value: str) -> None:
    """Have the value of an address's parameter redacted from now on, unless it is a harmless one. A parameter that
    nobody knows may also hold a plain word."""
    if name.lower() not in HARMLESS:
        keep(value, shortest=SHORTEST_PASSWORD if is_secret(name) else SHORTEST)


def shown_parameters(given: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The parameters of an address as others may see them: known secrets are left out, and a value is shown of harmless
    ones alone."""
    return [
        (name, value if name.lower() in HARMLESS or not value else HIDDEN)
        for name, value in given
        if not is_secret(name)
    ]


def redacted(text: str) -> str:
    """The text without any secret that is known."""
    for value in _secrets():
        if value in text:
            text = text.replace(value, HIDDEN)
    return text


def shown_address(address: str) -> str:
    """An address as others may see it: without a user's name and password, and `shown_parameters` alone."""
    try:
        parts = urlsplit(address)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return HIDDEN  # whatever it is, it is no address
    given = parse_qsl(parts.query, keep_blank_values=True)
    query = shown_parameters(given)
    if not parts.hostname:  # a file's name, or an address without its scheme
        return address if query == given else address.partition("?")[0]
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return urlunsplit((parts.scheme, host + port, parts.path, urlencode(query, safe="[]"), ""))


def _secrets() -> list[str]:
    """The longest first, for one may hold another."""
    found = {value for name in VARIABLES if len(value := os.environ.get(name, "")) >= SHORTEST}
    return sorted(found | _kept, key=len, reverse=True)
