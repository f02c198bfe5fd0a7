"""What tests of the command line share beside the command itself."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pytest

from preceptor.judge.asking import prices
from preceptor.judge.models.anthropic import model as anthropic
from preceptor.judge.models.openai import model as openai
from tests.servers.llm import LLMServer

AtHome = Callable[[LLMServer], None]


@pytest.fixture
def at_home(monkeypatch: pytest.MonkeyPatch) -> AtHome:
    """Have a server's address be both providers' own, on the day on which their documentation was read."""
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.setattr(prices, "today", lambda: date(2026, 11, 30))

    def at(server: LLMServer) -> None:
        monkeypatch.setattr(openai, "OWN_ADDRESS", server.url)
        monkeypatch.setattr(anthropic, "OWN_ADDRESS", server.root)

    return at
