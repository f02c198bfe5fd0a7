"""The embedded model behind the judge's seam, found through the entry-point group `preceptor.models`."""

from __future__ import annotations

from judge.models.local import LocalModel
from train.embedded import WEIGHTS


def open_model(name: str, *, device: str | None = None, dtype: str | None = None) -> LocalModel:
    """The shipped tiny model, which reads the short wording that it was trained on."""
    return LocalModel(name, str(WEIGHTS), dialect="embedded", device=device, dtype=dtype)
