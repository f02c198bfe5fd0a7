"""What of a label folder would have to be asked again under another constitution."""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

from preceptor.asking import stages
from preceptor.constitution.errors import UserError
from preceptor.constitution.principle import Constitution
from preceptor.judge.asking.plan import AskingPlan
from preceptor.judge.dataset.label_folder import LabelFolder
from preceptor.judge.settings import Price
from preceptor.label.run import job_of_folder, opened, pair_of
from preceptor.settings import Asking


class AskedAgain(NamedTuple):
    """What labelling the folder's pairs anew would take."""

    labels: int
    plan: AskingPlan
    asking: Asking
    """With the prices of the command that labelled them, where no others were given."""

    def figures(self) -> dict[str, Any]:
        """For --json. The cost is None where a price is not known."""
        costs = [line.cost_usd for line in self.plan.lines]
        return {
            "labels": self.labels,
            "calls": sum(line.to_ask for line in self.plan.lines),
            "in_ledger": sum(line.in_ledger for line in self.plan.lines),
            "cost_usd": None if None in costs else sum(cost or 0.0 for cost in costs),
        }


def asked_again(on: Path, constitution: Constitution, asking: Asking, last: int | None = None) -> AskedAgain:
    """The plan of labelling the folder's pairs anew: what the ledger does not answer would be asked. last: of so many
    pairs at the end alone.

    Raises UserError where `on` is no folder that `label` has finished.
    """
    folder = LabelFolder(on)
    manifest = folder.read_manifest()
    if manifest is None:
        raise UserError(
            f"{on} holds no labels with their manifest; wanted a folder that `preceptor label` has finished"
        )
    labels = list(deque(folder.read_labels(), last))
    job = job_of_folder(manifest, constitution)
    known = {name: Price.model_validate(price) for name, price in manifest.get("prices", {}).items()}
    asking = asking.model_copy(update={"prices": known | dict(asking.prices)})
    pairs = [pair_of(label) for label in labels]
    dialogues = stages.judging(pairs, constitution, opened(job), job.settings, job.rule)
    return AskedAgain(len(labels), asyncio.run(stages.price(dialogues, asking)), asking)
