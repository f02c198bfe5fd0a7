"""`preceptor mcp`: an agent's way in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from preceptor.cli import console
from preceptor.constitution.errors import UserError


def mcp(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="Models and constitutions, as `preceptor serve` reads them; else those that are there.",
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option("--url", metavar="URL", help="Act through a `preceptor serve` that runs there."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port", metavar="INT", min=0, max=65535, help="Offer HTTP on 127.0.0.1 instead; 0: a free one."
        ),
    ] = None,
) -> None:
    """Offer agents plan, label, audit, diff, train and report as tools of the Model Context Protocol.

    Over stdin and stdout, as agents start it, with the key in PRECEPTOR_KEY where the service wants one; with --port
    over HTTP, where each client sends its own. Nothing is spent without a plan that was approved at its price.
    """
    if config is not None and url is not None:
        raise UserError(
            "--config and --url do not go together: the service at --url has its own configuration"
        )
    if url is not None:
        from preceptor.judge.models.http.address import checked

        checked(url, "--url")
    from preceptor.doctor import need_agents

    need_agents()
    from preceptor.serve.agent.running import run

    run(config, url, port, console.show)
