"""What became of the rows that came in: used, held out, or set aside and why."""

from __future__ import annotations

from typing import NotRequired

from typing_extensions import TypedDict

from preceptor.train.data.pairs import Encoded
from preceptor.train.errors import TrainDataError

TrainedRows = TypedDict(
    "TrainedRows",
    {
        "in": int,
        "used": int,
        "held_out": int,
        "set_aside": dict[str, int],
        "shortened": int,
        "ids_aside": NotRequired[dict[str, list[str]]],
    },
)
"""What became of the rows of a training: in = used + held out + set aside, which is by reason. `ids_aside`, of pairs:
the ids of those set aside, by reason."""


def pair_counts(train: Encoded, held_out: Encoded) -> TrainedRows:
    """What became of every row; the ids of those set aside too."""
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


def check_rows(rows: TrainedRows) -> None:
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
