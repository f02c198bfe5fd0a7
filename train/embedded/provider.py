"""All that others know of the embedded model and its world, found through the entry-point group `preceptor.models`."""

from __future__ import annotations

from preceptor.judge.models.local.loading import Placement
from preceptor.judge.models.local.model import LocalModel
from preceptor.judge.models.provider import Provider
from preceptor.train.embedded import WEIGHTS


def open_model(
    name: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    device_map: str | None = None,
    four_bit: bool = False,
) -> LocalModel:
    """The shipped tiny model, which reads the short wording that it was trained on; placed as any local model."""
    placement = Placement(device, dtype, device_map, four_bit)
    return LocalModel(name, str(WEIGHTS), dialect="embedded", **placement._asdict())


PROVIDER = Provider(
    open_model=open_model,
    naming="alone",
    weights=lambda _: str(WEIGHTS),
    free=True,
    oracle="preceptor.train.embedded.oracle:oracle",
    probes="preceptor.train.embedded.probes:probe_set",
)
