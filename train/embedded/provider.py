"""The embedded model behind the judge's seam, found through the entry-point group `preceptor.models`."""

from __future__ import annotations

from typing import Any

from preceptor.judge.models.local.model import LocalModel
from preceptor.train.embedded import WEIGHTS


def open_model(name: str, **placement: Any) -> LocalModel:
    """The shipped tiny model, which reads the short wording that it was trained on."""
    return LocalModel(name, str(WEIGHTS), dialect="embedded", **placement)
