"""The judges of some labels, asked again by a timer: each look is a job, `preceptor drift`, and its alarm a metric.

The looks lie in the labels' own folder, so that those of a person at the command line count as well.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from types import MappingProxyType
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric

from preceptor.constitution.errors import UserError
from preceptor.judge.asking import prices
from preceptor.judge.audit.drift import verdict
from preceptor.judge.dataset.label_folder import LabelFolder
from preceptor.judge.errors import LedgerError
from preceptor.label.drifted import due
from preceptor.serve.config import DriftEntry
from preceptor.serve.jobs.crew import Crew
from preceptor.serve.jobs.store import OPEN, BodyChanged, CreationRuns, JobRecord, JobStore, Work

LOOK_S = 600.0
"""How often the timer looks whether a look is due."""
KIND = "drift"
Entries = Mapping[str, DriftEntry]
log = logging.getLogger(__name__)


async def keep_looking(crew: Crew, entries: Callable[[], Entries]) -> None:
    """Create the jobs that are due, now and every ten minutes. entries: those of the configuration as it stands."""
    while True:
        try:
            if await asyncio.to_thread(create_due, crew.store, entries(), prices.today()):
                crew.wake()
        except (LedgerError, UserError, OSError) as error:
            log.error("drift: %s", error)
        await asyncio.sleep(LOOK_S)


def create_due(store: JobStore, entries: Entries, today: date) -> list[JobRecord]:
    """A job for each entry whose look is due and does not wait already. Of several servers on one database one makes
    it, and none twice on a day. Raises UserError, LedgerError."""
    made = []
    for name, entry in entries.items():
        if not due(LabelFolder(entry.labels).read_drift(), entry.every, today):
            continue
        if any(job.kind == KIND and job.request["name"] == name for job in _open(store)):
            continue
        request = {"name": name, "day": today.isoformat(), "max_cost_usd": entry.max_cost_usd}
        try:
            with store.creation("", f"{KIND}:{name}:{today.isoformat()}", request) as creation:
                if creation.made is None:
                    made.append(creation.make("job", KIND, request, _work(entry), "job-"))
        except (BodyChanged, CreationRuns):
            continue  # another server makes it
    return made


def _open(store: JobStore) -> Iterator[JobRecord]:
    return (job for job in store.jobs(None, "job", 1000) if job.status in OPEN)


def _work(entry: DriftEntry) -> Work:
    words = [KIND, str(entry.labels.absolute()), f"--rows={entry.rows}", f"--every={entry.every:g}"]
    if entry.tolerate is not None:
        words.append(f"--tolerate={entry.tolerate!r}")
    if entry.max_cost_usd is not None:
        words.append(f"--max-cost={entry.max_cost_usd!r}")
    return Work(tuple(words), {}, {}, "")


GAUGES: Mapping[str, str] = MappingProxyType(
    {
        "preceptor_judge_drift_alarm": "1 where the looks prove that the judges of these labels have changed",
        "preceptor_judge_drift_changed": "Share of other outcomes over all looks",
        "preceptor_judge_drift_looks": "Looks so far",
        "preceptor_judge_drift_last_look_timestamp_seconds": "Midnight of the day of the last look",
    }
)


class DriftGauges:
    """What the looks at each entry's labels prove, as metrics. What was never looked at has none but its count."""

    def __init__(self, entries: Entries) -> None:
        self._entries = entries

    def collect(self) -> Iterator[Metric]:
        """As prometheus_client asks for it."""
        gauges = {name: GaugeMetricFamily(name, told, labels=["labels"]) for name, told in GAUGES.items()}
        for name, entry in self._entries.items():
            for gauge, value in _figures(entry).items():
                gauges[f"preceptor_judge_drift_{gauge}"].add_metric([name], value)
        yield from gauges.values()


def _figures(entry: DriftEntry) -> dict[str, Any]:
    try:
        looks = LabelFolder(entry.labels).read_drift()
    except (UserError, OSError) as error:
        log.error("drift: %s", error)
        return {}
    if not looks:
        return {"looks": 0}
    proven = verdict(looks)
    day = datetime.fromisoformat(looks[-1].date).replace(tzinfo=UTC)
    found = {
        "alarm": float(proven["since"] is not None),
        "looks": len(looks),
        "last_look_timestamp_seconds": day.timestamp(),
    }
    return found if proven["changed"] is None else {**found, "changed": proven["changed"]}
