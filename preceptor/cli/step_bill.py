"""Asking in several steps, as commands do whose later questions depend on earlier answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from preceptor.cli import console

if TYPE_CHECKING:
    from preceptor.asking.stages import AskJob
    from preceptor.constitution.principle import Constitution
    from preceptor.judge.records import Label, Pair
    from preceptor.judge.settings import LabelSettings
    from preceptor.settings import Asking


class StepBill:
    """Asks step after step under one cap, and counts. What stops a step is raised; what was asked is in the ledger."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking
        self.calls = self.from_ledger = 0
        self.cost_usd = 0.0

    def ask(self, what: str, work: AskJob, write: Callable[[Any], None]) -> float:
        """Do the work and hand each row to `write`. Returns what it cost, in USD."""
        from preceptor.asking.work import whole

        with console.progress(what) as watch:
            now = whole(work, self._asking.less(self.cost_usd), write, watch).progress
        self.calls += now.asked
        self.from_ledger += now.from_ledger
        self.cost_usd += now.cost_usd
        return now.cost_usd

    def labels(
        self, what: str, pairs: Sequence[Pair], judge: str, rules: Constitution, way: LabelSettings
    ) -> list[Label]:
        """Of the pairs, by one judge."""
        from preceptor.asking import stages

        made: list[Label] = []
        self.ask(
            what, stages.AskJob(pairs, partial(stages.to_label, judge, self._asking, rules, way)), made.append
        )
        return made

    def said(self) -> str:
        """For the person."""
        return f"{self.calls} calls asked, {self.from_ledger} from the ledger, ${self.cost_usd:.2f}"
