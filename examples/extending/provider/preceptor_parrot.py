"""A provider: models that answer what they are named for, as `parrot/Verdict: A`."""

from __future__ import annotations

import os

from preceptor.judge.errors import ProviderStopped
from preceptor.judge.models.protocol import Capabilities, Completion, ModelName, Request
from preceptor.judge.models.provider import Provider
from preceptor.judge.settings import Price


class Parrot:
    """Satisfies `judge.models.protocol.Model`."""

    endpoint = ""
    dialect = ""
    capabilities = Capabilities()
    """What it can do beside answering in words: token probabilities, JSON schemas, batches, …"""

    def __init__(self, name: str) -> None:
        self.name = name

    async def complete(self, request: Request) -> Completion:
        """One answer, or one of `judge.errors`' ModelErrors. Nothing is retried, cached or counted here."""
        return Completion(
            text=ModelName.of(self.name).model,
            finish_reason="stop",
            tokens_in=sum(len(message.content.split()) for message in request.messages),
            tokens_out=2,
        )

    async def close(self) -> None:
        """Let go of connections."""


def open_model(name: str) -> Parrot:
    """Options that a user may give, such as base_url, are parameters here."""
    if "PARROT_KEY" not in os.environ:
        raise ProviderStopped(f"PARROT_KEY is not set and {name} needs it; export it")
    return Parrot(name)


PROVIDER = Provider(
    open_model=open_model,
    example="parrot/Verdict: A",
    key="PARROT_KEY",
    prices={"Verdict: A": Price(input=2.0, output=10.0, dated="2026-11-30", source="made up")},
)
