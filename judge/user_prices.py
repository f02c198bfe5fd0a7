"""Where the user's own prices lie: `PRECEPTOR_PRICES`, else `preceptor/prices.yaml` in the configuration folder."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from preceptor.constitution.errors import UserError
from preceptor.judge.asking.prices import read_prices
from preceptor.judge.settings import Price

VARIABLE = "PRECEPTOR_PRICES"


def user_prices() -> dict[str, Price]:
    """The user's prices by `provider/model`; none where there is no file. Raises UserError for a named one that is
    missing, and for one that cannot be read.
    """
    named = os.environ.get(VARIABLE)
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise UserError(f"{VARIABLE} names {named}, which is no file; correct it, or unset the variable")
        return read_prices(path)
    path = platformdirs.user_config_path("preceptor") / "prices.yaml"
    return read_prices(path) if path.is_file() else {}
