"""The judges of labels are looked at by a timer, and a judge that has changed raises the metric's alarm."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from preceptor.judge.asking import prices
from preceptor.serve.config import DriftEntry
from preceptor.serve.jobs.drift import DriftGauges, create_due
from preceptor.serve.jobs.store import JobStore
from preceptor.serve.jobs.worker import work
from tests.command_line import Preceptor

ALARM, LOOKS = "preceptor_judge_drift_alarm", "preceptor_judge_drift_looks"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    made = JobStore(f"sqlite:///{tmp_path / 'jobs.db'}", tmp_path / "served")
    yield made
    made.close()


def write_judge(path: Path, better: str, worse: str) -> None:
    """A judge that prefers one kind of reply, wherever it stands."""
    rules = [
        {"match": f"{better}(?s:.)*{worse}", "text": "Verdict: A"},
        {"match": f"{worse}(?s:.)*{better}", "text": "Verdict: B"},
    ]
    path.write_text("".join(json.dumps(rule) + "\n" for rule in rules))


def metric(entries: dict[str, DriftEntry], name: str) -> float | None:
    registry = CollectorRegistry()
    registry.register(DriftGauges(entries))
    return registry.get_sample_value(name, {"labels": "house"})


def test_looks_are_jobs_and_their_alarm_is_a_metric(
    preceptor: Preceptor, store: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_judge(tmp_path / "judge.jsonl", "GOOD", "BAD")
    pairs = [{"prompt": f"{n}?", "response_a": f"GOOD {n}", "response_b": f"BAD {n}"} for n in range(20)]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    judge = f"scripted/{tmp_path / 'judge.jsonl'}"
    ended = preceptor("label", "pairs.jsonl", "--judge", judge, "--constitution", "style", "--out", "labels")
    assert ended.code == 0, ended.err
    entries = {"house": DriftEntry(labels=Path("labels"), every=7, rows=15, tolerate=0.05)}
    assert (metric(entries, ALARM), metric(entries, LOOKS)) == (None, 0)  # nobody has looked

    today = prices.today()
    (job,) = create_due(store, entries, today)
    assert create_due(store, entries, today) == []  # it waits
    assert create_due(store, entries, today + timedelta(days=1)) == []
    assert work(store, threading.Event(), until_idle=True) == 1
    done = store.job(job.id)
    assert done is not None
    assert (done.status, done.problem) == ("succeeded", None)
    assert done.result is not None
    assert (done.result["looks"], done.result["n"], done.result["changed"]) == (1, 15, 0.0)
    assert (metric(entries, ALARM), metric(entries, LOOKS)) == (0.0, 1.0)
    assert create_due(store, entries, today + timedelta(days=6)) == []
    (again,) = create_due(store, entries, today + timedelta(days=7))
    store.cancel(again.id)
    assert create_due(store, entries, today + timedelta(days=7)) == []  # one a day, whatever became of it

    write_judge(tmp_path / "judge.jsonl", "BAD", "GOOD")
    assert preceptor("drift", "labels", "--rows", "15").code == 1  # a look by hand counts as well
    assert (metric(entries, ALARM), metric(entries, LOOKS)) == (1.0, 2.0)
    assert metric(entries, "preceptor_judge_drift_changed") == 0.5
    assert metric(entries, "preceptor_judge_drift_last_look_timestamp_seconds") is not None


def test_labels_that_are_gone_have_no_figures(tmp_path: Path) -> None:
    entries = {"house": DriftEntry(labels=tmp_path / "labels")}
    assert metric(entries, ALARM) is None
