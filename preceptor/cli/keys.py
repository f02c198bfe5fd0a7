"""Keys of `preceptor serve`: made, shown and revoked."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from preceptor.cli import console, options

if TYPE_CHECKING:
    from preceptor.serve.keys import Key, Keyring

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)

DAY_S = 86_400
ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="The server's; its `database` holds the keys.")
]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Who will use it, for you to know it by.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            "--scope",
            metavar="SCOPE",
            help="judge, reward, jobs:read, jobs:write, train, constitutions:write, admin; repeatable.",
        ),
    ] = None,
    days: Annotated[
        float | None, typer.Option("--days", metavar="DAYS", min=0, help="Until when it may be used.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option("--budget", metavar="USD", min=0, help="What may be spent with it, ever.")
    ] = None,
    rate: Annotated[
        int | None, typer.Option("--rate", metavar="INT", min=1, help="Requests a minute, at most.")
    ] = None,
    config: ConfigOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Make a key and show it this once; without --scope it may judge and reward."""
    keys = _keys(config)
    try:
        key, shown = keys.create(
            name,
            scope or ["judge", "reward"],
            expires_at=None if days is None else time.time() + days * DAY_S,
            budget_usd=budget,
            per_minute=rate,
        )
    finally:
        keys.close()
    if as_json:
        console.result({"id": key.id, "key": shown, "scopes": sorted(key.scopes)})
        return
    console.say(f"key {key.id} for {name}: it is shown this once, and only a hash of it is kept")
    console.show(shown)


@app.command("list")
def list_keys(config: ConfigOption = None, as_json: options.JsonOption = False) -> None:
    """Every key: what it may do, until when, and what was spent with it."""
    keys = _keys(config)
    try:
        found = list(keys.all().values())
    finally:
        keys.close()
    if as_json:
        console.result({"keys": [_public(key) for key in found]})
        return
    rows = [
        [
            key.id,
            key.name,
            " ".join(sorted(key.scopes)),
            "revoked" if key.revoked_at else _day(key.expires_at),
            "–" if key.budget_usd is None else f"${key.budget_usd:.2f}",
            f"${key.spent_usd:.4f}",
            "–" if key.per_minute is None else str(key.per_minute),
        ]
        for key in found
    ]
    console.table("keys", ("id", "name", "scopes", "until", "budget", "spent", "a minute"), rows)


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(help="Its id, as `preceptor keys list` shows it.")],
    config: ConfigOption = None,
) -> None:
    """Have a key refused: by a running server within a second."""
    keys = _keys(config)
    try:
        keys.revoke(key)
    finally:
        keys.close()
    console.say(f"{key} is revoked")


def _keys(config: Path | None) -> Keyring:
    from preceptor.doctor import need_serving

    need_serving()
    from preceptor.serve.config import SERVE_DATABASE, read_config
    from preceptor.serve.keys import Keyring

    return Keyring(SERVE_DATABASE if config is None else read_config(config).database)


def _public(key: Key) -> dict[str, object]:
    fields = {name: value for name, value in key._asdict().items() if name != "sha256"}
    return fields | {"scopes": sorted(key.scopes)}


def _day(seconds: float | None) -> str:
    return "–" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
