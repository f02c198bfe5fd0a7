"""A server and a provider for a whole module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.preceptor.serve.jobs.serving import Server
from tests.servers.llm import LLMServer, serve


class Served(NamedTuple):
    """Our server, and the provider that it asks."""

    server: Server
    provider: LLMServer


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Started once for a module."""
    with serve(LLMServer()) as provider:
        folder = tmp_path_factory.mktemp("served")
        server = Server(folder, configuration(provider))
        server.start()
        try:
            yield Served(server, provider)
        finally:
            server.close()


def configuration(provider: LLMServer) -> str:
    """One judge at the provider, and the embedded model."""
    return (
        f'models: {{judge: {{model: openai/gpt-4o-mini, base_url: "{provider.url}"}}, embedded: {{model: embedded}}}}\n'
        "database: sqlite:///preceptor.db\n"
    )
