"""The tools as a process: over stdin and stdout for one agent, or over HTTP on this machine."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import uvicorn

from preceptor.serve.agent.asking import service_at, service_within
from preceptor.serve.agent.tools import AgentTools, mcp_server
from preceptor.serve.config import default_config, read_config
from preceptor.serve.running import JsonLines, Listening, bound

PATH = "/mcp"
LOOPBACK_HOST = "127.0.0.1"


def run(config_file: Path | None, url: str | None, port: int | None, ready: Callable[[str], None]) -> None:
    """Offer the tools until stdin ends, or over HTTP until SIGTERM or SIGINT. `ready` is given the address.

    url: the service that they ask; None: one within this process, by the configuration. port: of HTTP; None: over stdin
    and stdout. Raises UserError, ProviderStopped, LedgerError for what keeps it from starting.
    """
    _log_to_stderr()
    with suppress(KeyboardInterrupt):  # by then it has stopped in order
        asyncio.run(_offer(config_file, url, port, ready))


async def _offer(
    config_file: Path | None, url: str | None, port: int | None, ready: Callable[[str], None]
) -> None:
    if url is not None:
        opened = service_at(url)
    else:
        opened = service_within(default_config() if config_file is None else read_config(config_file))
    async with opened as service:
        server = mcp_server(AgentTools(service, keys_of_clients=port is not None))
        if port is None:
            await server.run_stdio_async()
            return
        with bound(LOOPBACK_HOST, port) as listening:
            app = server.streamable_http_app(streamable_http_path=PATH, host=LOOPBACK_HOST)
            options = uvicorn.Config(
                app, log_config=None, access_log=False, server_header=False, proxy_headers=False, ws="none"
            )
            await Listening(options, lambda: ready(_address(listening.getsockname()[1]))).serve([listening])


def _address(port: int) -> str:
    return f"http://{LOOPBACK_HOST}:{port}{PATH}"


def _log_to_stderr() -> None:
    """stdout is the protocol's."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
