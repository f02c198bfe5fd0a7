"""What a second order is worth: calls and certificates with and without it, over resplits of recorded judges.

    python benchmarks/second_orders.py DATA [--resplits 100] [--out docs/second-orders.md]

DATA holds LLMBar's recordings (`recorded_judges.py` says from where): every judge was asked about every pair in both
orders, and said letters alone. So a judge is as sure after one order as it can be, and the question is one of yes or
no: does gold certify the target on one order alone? All ways see the same resplits of gold. What stands in the page
above the tables stays as it is.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from certificates import GOLD, TARGETS, both_orders, llmbar_verdicts, recorded

from preceptor.judge.audit.certify import LEVEL, Found, certify

MARK = "## Measured\n"


class Way(NamedTuple):
    """One way of asking, on a recorded judge's pairs."""

    confidence: Any
    """(N,) floats, NaN without a winner."""
    right: Any
    """(N,) bool."""


class Replayed(NamedTuple):
    """How a way fared over resplits, at one target."""

    granted: float
    kept: float
    """Of all pairs, over the resplits in which it was granted."""
    agreement: float
    """Of those kept."""
    violated: float
    """Share of all resplits in which the certificate was granted and is not true of the whole set."""
    calls: float
    """A pair."""


def ways(table: Any, gold: Any, rng: np.random.Generator) -> tuple[Way, Way]:
    """(one order, drawn for each pair; both orders). table: (N, 2) probability of a by order."""
    drawn = table[np.arange(len(table)), rng.integers(0, 2, len(table))]
    made = [recorded("", said, 1.0, gold) for said in (drawn, both_orders(table))]
    one, both = (Way(each.confidence, each.right) for each in made)
    return one, both


def whole(way: Way, threshold: float) -> tuple[float, float]:
    """(share kept, agreement of the kept) over all pairs."""
    kept = way.confidence >= threshold  # NaN is not kept
    return float(kept.mean()), float(way.right[kept].mean()) if kept.any() else 1.0


def replay(table: Any, gold: Any, target: float, resplits: int, seed: int) -> Iterator[Replayed]:
    """One order alone; both always; and what `--adaptive` takes of the two, each at half of the level."""
    rng = np.random.default_rng(seed)
    sizes = min(GOLD, len(gold) // 2)
    outcomes: list[list[tuple[bool, float, float, float]]] = [[], [], []]
    for _ in range(resplits):
        one, both = ways(table, gold, rng)
        some = rng.integers(0, len(gold), sizes)
        found = {
            (name, level): certify(way.confidence[some], way.right[some], target, level)
            for name, way in (("one", one), ("both", both))
            for level in (LEVEL, LEVEL / 2)
        }
        half = found["one", LEVEL / 2]
        picks = [
            (found["one", LEVEL], one, 1.0),
            (found["both", LEVEL], both, 2.0),
            _better((half, one, 1.0), (found["both", LEVEL / 2], both, 2.0)),
        ]
        for at, (certificate, way, calls) in enumerate(picks):
            granted = isinstance(certificate, Found)
            kept, agreement = (
                whole(way, certificate.threshold) if isinstance(certificate, Found) else (0.0, 1.0)
            )
            outcomes[at].append((granted, kept, agreement, calls))
    for rows in outcomes:
        yield _summed(rows, target)


def _better(one: Any, both: Any) -> Any:
    """As `preceptor.label.certified.calibrate` chooses: one order where it keeps at least as many gold rows."""
    kept = [way[0].n if isinstance(way[0], Found) else -1 for way in (one, both)]
    return one if kept[0] >= max(kept[1], 0) else both


def _summed(rows: list[tuple[bool, float, float, float]], target: float) -> Replayed:
    granted = [row for row in rows if row[0]]
    return Replayed(
        granted=len(granted) / len(rows),
        kept=float(np.mean([row[1] for row in granted])) if granted else float("nan"),
        agreement=float(np.mean([row[2] for row in granted])) if granted else float("nan"),
        violated=sum(row[0] and row[2] < target for row in rows) / len(rows),
        calls=float(np.mean([row[3] for row in rows])),
    )


def page(data: Path, resplits: int) -> str:
    """The tables."""
    tables, gold = llmbar_verdicts(data / "llmbar")
    lines = [
        "| judge | prompt | target | way | granted | kept | agreement of the kept | violated | calls a pair |",
        "|---|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    saved: list[float] = []
    cost: list[float] = []
    for number, ((judge, prompt), table) in enumerate(sorted(tables.items())):
        asked = ~np.isnan(table).all(axis=1)
        for target in TARGETS:
            found = list(replay(table[asked], gold[asked], target, resplits, number))
            if max(one.granted for one in found) < 0.5:
                continue
            if found[1].granted >= 0.5:
                saved.append(1 - found[2].calls / found[1].calls)
                cost.append(found[1].agreement - found[2].agreement)
            for name, one in zip(("one order", "both orders", "adaptive"), found, strict=True):
                cells = (one.granted, one.kept, one.agreement, one.violated, one.calls)
                lines.append(
                    f"| {judge} | {prompt} | {target:g} | {name} | "
                    + " | ".join("–" if np.isnan(cell) else f"{cell:.3f}" for cell in cells)
                    + " |"
                )
    lines += [
        "",
        f"Where both orders are certified in at least half of {resplits} resplits ({len(saved)} cases of judge, prompt "
        f"and target), adaptive asking saves {np.mean(saved):.1%} of the calls for rows ({min(saved):.1%} to "
        f"{max(saved):.1%}). The labels kept agree with gold in {np.mean(cost):.3f} less than with both orders "
        f"({min(cost):.3f} to {max(cost):.3f}), and there are more of them.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--resplits", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("docs/second-orders.md"))
    given = parser.parse_args()
    above = given.out.read_text(encoding="utf-8").partition(MARK)[0] if given.out.exists() else ""
    given.out.write_text(f"{above}{MARK}\n{page(given.data, given.resplits)}", encoding="utf-8")


if __name__ == "__main__":
    main()
