"""`preceptor serve`: the judge for every trainer, over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from preceptor.cli import console


def serve(
    host: Annotated[
        str,
        typer.Option("--host", metavar="ADDRESS", help="Where to listen; others than loopback need keys."),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", metavar="INT", min=0, max=65535, help="0: a free one.")
    ] = 8080,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="Models, rewards and doors, as YAML; else the models whose keys or packages are there.",
        ),
    ] = None,
) -> None:
    """Answer trainers over HTTP: labels, scores and rewards of judges and reward models."""
    from preceptor.doctor import need_serving

    need_serving()
    from preceptor.serve.running import run

    run(host, port, config, console.show)
