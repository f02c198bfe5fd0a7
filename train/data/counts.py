"""What became of the rows that came in: used, held out, or set aside and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preceptor.train.data.pairs import Encoded
from preceptor.train.errors import TrainDataError


def pair_counts(train: Encoded, held_out: Encoded) -> dict[str, Any]:
    """What became of every row, as in `Result.rows`; the ids of those set aside too."""
    ids: dict[str, list[str]] = {}
    for reason, more in [*train.ids_aside.items(), *held_out.ids_aside.items()]:
        ids[reason] = [*ids.get(reason, []), *more]
    aside = {reason: len(named) for reason, named in ids.items()}
    return {
        "in": len(train.rows) + len(held_out.rows) + sum(aside.values()),
        "used": len(train.rows),
        "held_out": len(held_out.rows),
        "set_aside": aside,
        "shortened": train.shortened + held_out.shortened,
        "ids_aside": ids,
    }


def check_rows(rows: Mapping[str, Any]) -> None:
    """Rows in = used + held out + set aside; raises TrainDataError where none is left to train on."""
    aside = sum(rows["set_aside"].values())
    assert rows["in"] == rows["used"] + rows["held_out"] + aside, rows
    if rows["used"] == 0:
        reasons = [f"{count} set aside because {reason}" for reason, count in rows["set_aside"].items()]
        if rows["held_out"]:
            reasons.append(f"{rows['held_out']} held out for the report card")
        raise TrainDataError(
            f"nothing to train on among {rows['in']} rows{': ' * bool(reasons)}{'; '.join(reasons)}"
        )
