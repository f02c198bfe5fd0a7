"""Rows of figures over steps -> what a template needs to draw them and to say them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from preceptor.serve.jobs.worker import rows_of

WIDTH, HEIGHT, EDGE = 560, 150, 34
MOST_POINTS = 400
FIGURES = ("loss", "reward", "kl_nats", "accuracy", "margin")
"""Those that are drawn where a training has them."""


class Curve(NamedTuple):
    """A figure over steps."""

    name: str
    points: str
    """As an SVG polyline has them."""
    first: float
    last: float
    low: float
    high: float
    steps: tuple[int, int]
    width: int = WIDTH
    height: int = HEIGHT
    edge: int = EDGE


def curves(rows: Iterable[Mapping[str, Any]], names: Sequence[str] = FIGURES) -> list[Curve]:
    """A curve for each figure that at least two rows have; numbers alone become points."""
    rows = list(rows)
    found = []
    for name in names:
        points = [
            (row["step"], float(row[name]))
            for row in rows
            if isinstance(row.get("step"), int)
            and isinstance(row.get(name), int | float)
            and not isinstance(row[name], bool)
            and math.isfinite(row[name])
        ]
        if len(points) > 1:
            found.append(_curve(name, points))
    return found


def stage_curves(run: Path) -> list[tuple[str, list[Curve]]]:
    """(stage, its curves) of the trainings in a run folder, as far as each has come."""
    found = [(path.stem, curves(rows_of(path))) for path in sorted((run / "metrics").glob("*.jsonl"))]
    return [(stage, drawn) for stage, drawn in found if drawn]


def _curve(name: str, points: Sequence[tuple[int, float]]) -> Curve:
    every = math.ceil(len(points) / MOST_POINTS)
    shown = [*points[::every], *([] if (len(points) - 1) % every == 0 else points[-1:])]
    start, end = points[0][0], points[-1][0]
    low, high = min(y for _, y in points), max(y for _, y in points)
    wide, tall = (end - start) or 1, (high - low) or 1.0
    across, up = (WIDTH - 2 * EDGE) / wide, (HEIGHT - 2 * EDGE) / tall
    places = (f"{EDGE + (x - start) * across:.1f},{HEIGHT - EDGE - (y - low) * up:.1f}" for x, y in shown)
    return Curve(name, " ".join(places), points[0][1], points[-1][1], low, high, (start, end))
