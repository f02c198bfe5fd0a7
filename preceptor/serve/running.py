"""The server as a process: its socket, its signals, its log."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import uvicorn

from preceptor.constitution.errors import UserError
from preceptor.prompts.secrets import redacted
from preceptor.serve.app import create_app
from preceptor.serve.config import ServeConfig, default_config, read_config
from preceptor.serve.connections import with_limits
from preceptor.serve.keys import Keyring
from preceptor.serve.service import Service, open_service

GRACE_S = 30
"""How long requests in flight may take once the server is to stop."""
LOGGED = "preceptor.serve"
_log = logging.getLogger(LOGGED)


def run(host: str, port: int, config_file: Path | None, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, finish what is in flight, and come back. `ready` is given the address.

    Raises UserError, ProviderStopped and LedgerError for what keeps it from starting.
    """
    config = _config(config_file)
    _log_to_stderr()
    keys = Keyring(config.database)
    try:
        here = is_loopback(host)
        if not here and keys.none_made:
            raise UserError(
                f"{host} is reached from other machines, and there is no key: make one with `preceptor keys create`, "
                "or serve on 127.0.0.1"
            )
        with suppress(KeyboardInterrupt), bound(host, port) as listening:  # by then it has stopped in order
            asyncio.run(_serve(host, config, config_file, keys, listening, ready, here))
    finally:
        keys.close()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _serve(
    host: str,
    config: ServeConfig,
    config_file: Path | None,
    keys: Keyring,
    listening: socket.socket,
    ready: Callable[[str], None],
    here: bool,
) -> None:
    async with open_service(config, keys) as service:
        app = create_app(config, keys=keys, service=service, open_without_keys=here, host=host)
        options = uvicorn.Config(
            app,
            http=with_limits(config.limits),
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            limit_concurrency=2 * config.limits.max_connections,
            timeout_graceful_shutdown=GRACE_S,
        )
        server = Listening(options, lambda: ready(_address(listening)))
        with suppress(AttributeError, NotImplementedError):  # a system without SIGHUP
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _reload, service, config_file)
        await server.serve(sockets=[listening])


class Listening(uvicorn.Server):
    """A server that says when it answers."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn does it; then it answers."""
        await super().startup(sockets)
        self._ready()


def _reload(service: Service, config_file: Path | None) -> None:
    """Read the configuration anew; one with faults changes nothing."""
    try:
        service.take(_config(config_file))
    except Exception as error:
        if not hasattr(error, "exit_code"):
            raise
        _log.error("the configuration was not taken: %s", error)
    else:
        _log.info("the configuration was read anew")


def _config(config_file: Path | None) -> ServeConfig:
    return default_config() if config_file is None else read_config(config_file)


def bound(host: str, port: int) -> socket.socket:
    """A socket at the address. Raises UserError where the address cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UserError(f"--host {host}: no address of this machine ({error})") from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        made.close()
        raise UserError(
            f"{host}:{port} cannot be listened at ({error.strerror}); name another with --host and --port"
        ) from error
    return made


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class JsonLines(logging.Formatter):
    """One JSON object a line, without any secret that is known."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's time, level, logger and message; with its traceback, where it has one."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        fields = getattr(record, "fields", None)
        line |= fields if fields is not None else {"message": record.getMessage()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return redacted(json.dumps(line))


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name, level in ((LOGGED, logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False
