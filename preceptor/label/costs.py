"""What the calls behind labels cost, judge by judge, whenever they were made."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from preceptor.constitution.errors import UserError
from preceptor.judge.dataset.label_folder import LABELS
from preceptor.judge.ledger.ledger import open_ledger
from preceptor.judge.ledger.location import there
from preceptor.judge.records import Label
from preceptor.prompts.rows import read_records
from preceptor.settings import DEFAULT_LEDGER


def read_labels(path: Path) -> list[Label]:
    """Of a label folder, or of its file of labels. Raises UserError where there is none."""
    file = path / LABELS if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"{file} is not there; wanted a folder that `preceptor label` wrote")
    return list(read_records(file, Label)) if file.stat().st_size else []


def cost_by_judge(labels: Sequence[Label], ledger: str | None) -> dict[str, float | None]:
    """USD by judge; None where a price is not known; no judge where there is no ledger that has the calls.

    ledger: None: the one of the working directory, if there is any. Raises UserError where a named one is not there.
    """
    if ledger is not None and not there(ledger):
        raise UserError(
            f"--ledger {ledger}: there is no ledger here; name the one that the labels were made over"
        )
    place = ledger or (DEFAULT_LEDGER if Path(DEFAULT_LEDGER).is_file() else None)
    return asyncio.run(_costs(labels, place)) if place else {}


async def _costs(labels: Sequence[Label], place: str) -> dict[str, float | None]:
    total: dict[str, float | None] = {}
    async with open_ledger(place) as ledger:
        for label in labels:
            calls = {one.call: one.model for one in label.judgements if one.call is not None}
            for call, cost in (await ledger.costs(list(calls))).items():
                so_far = total.get(calls[call], 0.0)
                total[calls[call]] = None if so_far is None or cost is None else so_far + cost
    return total
