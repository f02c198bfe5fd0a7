"""The seam beside `protocol.Model` for providers that take many requests at once and answer within a day, at half the
price. What is asked and what an answer means is the model's; here it is only sent and fetched.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from preceptor.judge.errors import ModelError
from preceptor.judge.models.protocol import Completion, Request

SLOW_S = 900.0
"""For uploads, and for the first byte of a large file of results."""


class BatchLimits(NamedTuple):
    """The most that one batch may hold."""

    requests: int
    bytes: int


class Remote(NamedTuple):
    """A batch as its provider sees it."""

    id: str
    token: str
    """Ours, where the provider keeps marks; empty: look at its results."""
    created_at: float
    """Seconds since 1970, by the provider's clock."""
    requests: int
    done: int
    ended: bool
    problem: str = ""
    """Why it was not done, or not to the end."""
    refused: ModelError | None = None
    """Where nothing of it was done because the provider would not: what that means for us."""
    places: tuple[str, ...] = ()
    """Where its results lie."""


class BatchResult(NamedTuple):
    """One line of what came back."""

    custom_id: str
    body: Mapping[str, Any]
    too_long: bool = False
    """Whether the line is longer than a reply may be, so that nothing of it was kept."""


class BatchProvider(Protocol):
    """One model through its provider's batch API. Every method raises a `judge.errors.ModelError`."""

    limits: BatchLimits

    def line(self, custom_id: str, request: Request) -> dict[str, Any]:
        """A request as it stands in a batch."""
        ...

    async def submit(self, token: str, run: str, lines: Sequence[Mapping[str, Any]], /) -> Remote:
        """Send a batch. After a Transient nobody knows whether it arrived."""
        ...

    async def retrieve(self, remote_id: str) -> Remote:
        """How far it is; `ended`, with a problem, where the provider does not know it."""
        ...

    def recent(self, since_s: float) -> AsyncIterator[Remote]:
        """The account's batches that were made since, latest first."""
        ...

    async def token_of(self, remote: Remote) -> str:
        """Our token of a batch that has ended; empty where it is not ours."""
        ...

    async def sweep(self, token: str, since_s: float, /) -> None:
        """Throw away what was uploaded for a batch that was never made."""
        ...

    def results(self, remote: Remote) -> AsyncIterator[BatchResult]:
        """What came back, in any order; a line that cannot be read is left out. No line and no file is kept whole that
        is larger than a reply, or a batch, can be."""
        ...

    def read(self, result: BatchResult, request: Request) -> Completion:
        """The answer. Raises Transient where another batch may bring one, Rejected where none can, Unreadable for a
        line that is too long."""
        ...


def custom_id(token: str, key: str) -> str:
    """What names a request in a batch: both APIs take 64 letters, digits, hyphens."""
    return f"{key}-{token}"


def parts_of(name: str) -> tuple[str, str]:
    """(key, token) of a custom id; empty ones where it is not ours."""
    key, _, token = name.partition("-")
    return (key, token) if len(key) == 32 and token else ("", "")
