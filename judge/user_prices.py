"""Where the user's own prices lie: `PRECEPTOR_PRICES`, else `preceptor/prices.yaml` in the configuration folder."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from preceptor.constitution.errors import UserError
from preceptor.judge.asking.price_file import read_prices
from preceptor.judge.settings import Price

VARIABLE = "PRECEPTOR_PRICES"


def place() -> Path:
    """Where the file lies, or would lie. Raises UserError for a named one that is missing."""
    named = os.environ.get(VARIABLE)
    if not named:
        return platformdirs.user_config_path("preceptor") / "prices.yaml"
    path = Path(named).expanduser()
    if not path.is_file():
        raise UserError(f"{VARIABLE} names {named}, which is no file; correct it, or unset the variable")
    return path


def user_prices() -> dict[str, Price]:
    """The user's prices by `provider/model`; none where there is no file. Raises UserError as `place` does, and for a
    file that cannot be read."""
    path = place()
    return read_prices(path) if path.is_file() else {}
