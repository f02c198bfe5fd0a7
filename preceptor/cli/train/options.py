"""How the fields of the trainings' settings become flags."""

from __future__ import annotations

from typing import Annotated

import typer

from preceptor.cli.flags import Flags

PLACES = ("base_url", "timeout_s", "ledger", "concurrency", "max_cost_usd", "prices", "rpm", "tpm")
"""Fields of Asking that a training's judge is asked by."""


def training(*omit: str) -> Flags:
    """The flags of a training's settings."""
    return Flags("Training", omit=omit)


PreferencesArgument = Annotated[
    str, typer.Argument(help="Preferences: prompt, chosen, rejected, probability.")
]
