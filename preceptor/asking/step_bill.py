"""Asking in several steps, where later questions depend on earlier answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from preceptor.asking import stages
from preceptor.asking.work import run_job_or_raise
from preceptor.constitution.principle import Constitution
from preceptor.judge.records import Label, Pair
from preceptor.judge.settings import LabelSettings
from preceptor.settings import Asking


class StepBill:
    """Asks step after step under one cap, and counts. What stops a step is raised; what was asked is in the ledger."""

    def __init__(self, asking: Asking, bar: stages.OpenBar) -> None:
        self._asking, self._bar = asking, bar
        self.calls = self.from_ledger = 0
        self.cost_usd = 0.0

    def ask(self, what: str, job: stages.AskJob, write: Callable[[Any], None]) -> float:
        """Ask under a bar of this name and hand each row to `write`. Returns what it cost, in USD."""
        with self._bar(what) as watch:
            now = run_job_or_raise(job, self._asking.less(self.cost_usd), write, watch).progress
        self.calls += now.asked
        self.from_ledger += now.from_ledger
        self.cost_usd += now.cost_usd
        return now.cost_usd

    def labels(
        self, what: str, pairs: Sequence[Pair], judge: str, rules: Constitution, settings: LabelSettings
    ) -> list[Label]:
        """The labels of the pairs by one judge."""
        made: list[Label] = []
        to_label = partial(stages.to_label, judge, self._asking, rules, settings)
        self.ask(what, stages.AskJob(pairs, to_label), made.append)
        return made

    def said(self) -> str:
        """The sums in words."""
        return f"{self.calls} calls asked, {self.from_ledger} from the ledger, ${self.cost_usd:.2f}"
