"""A worker takes jobs one after the other, and has a process of its own carry out each.

The process runs the very command. Where it ends before it is done, for whatever reason, the same command goes on where
it stopped: its calls are in the ledger, its training has checkpoints.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from preceptor.constitution.errors import INTERRUPTED
from preceptor.constitution.foreign import json_in, json_of
from preceptor.judge.asking.budget import left_usd
from preceptor.judge.clock import SYSTEM, Clock
from preceptor.judge.ledger.ledger import RENEW_S
from preceptor.judge.ledger.location import location_of
from preceptor.judge.ledger.owner import new_owner
from preceptor.prompts.manifest import files_in
from preceptor.serve.jobs.process import alone, start
from preceptor.serve.jobs.store import MOST_CRASHES, JobRecord, JobStore, Work

LOOK_S = 0.2
"""How often a worker looks at the process of its job, and what is wished of it."""
IDLE_S = 0.5
"""How often it looks for a job."""
TELL_S = 1.0
"""How often it looks for what the command says."""
LONGEST = 2000
"""Characters of a line that becomes an event."""
PROBLEMS = {
    1: "gate_failed",
    2: "invalid_request",
    3: "budget_exceeded",
    4: "provider_stopped",
}
"""Exit code of a command -> code of the job's error."""


def work(store: JobStore, stop: threading.Event, clock: Clock = SYSTEM, *, until_idle: bool = False) -> int:
    """Carry jobs out until told to stop, and say how many. until_idle: or until none waits."""
    owner = new_owner()
    done = 0
    while not stop.is_set():
        job = store.claim(owner)
        if job is None:
            if until_idle:
                break
            stop.wait(IDLE_S)
            continue
        carry_out(store, job, owner, stop, clock)
        done += 1
    return done


def carry_out(store: JobStore, job: JobRecord, owner: str, stop: threading.Event, clock: Clock) -> None:
    """One job, to its end or as far as it is let."""
    folder = store.data / "jobs" / job.id
    folder.mkdir(parents=True, exist_ok=True)
    lease = _Lease(store, job.id, owner, clock)
    while True:
        with alone(folder) as handle:
            if handle is not None:
                _run(store, job, folder, handle, lease, stop)
                return
        if stop.is_set() or not lease.held():
            store.give_back(job.id, owner)
            return
        stop.wait(LOOK_S)


class _Lease:
    """A job's lease, renewed as often as a call's."""

    def __init__(self, store: JobStore, job: str, owner: str, clock: Clock) -> None:
        self.owner = owner
        self._store = store
        self._job = job
        self._clock = clock
        self._due_s = clock.monotonic() + RENEW_S

    def held(self) -> bool:
        """Whether the job is still ours."""
        if self._clock.monotonic() < self._due_s:
            return True
        self._due_s = self._clock.monotonic() + RENEW_S
        return self._store.renew(self._job, self.owner) is not None


def _run(
    store: JobStore, job: JobRecord, folder: Path, handle: int, lease: _Lease, stop: threading.Event
) -> None:
    if store.wish(job.id) == "cancel":
        _stop(store, job, folder, lease, "cancelled")
        return
    lay_out(store, job.work, folder)
    said = _Said(store, job, folder)
    with (folder / "result.json").open("wb") as out, (folder / "log.txt").open("ab") as err:
        words = [*under_cap(store, job), "--json"]
        with start(words, folder, out, err, ledger_of(store), run=job.id, keep=[handle]) as running:
            code = _watch(running, store, job, lease, said, stop)
    if code is None:
        return  # another has the job now
    said.look()
    problem = said.problem()
    wish = store.wish(job.id)
    if code in (INTERRUPTED, -signal.SIGTERM):
        if wish:
            _stop(store, job, folder, lease, {"pause": "paused", "cancel": "cancelled"}[wish])
        else:
            store.give_back(job.id, lease.owner)
    elif code < 0 and wish == "cancel":
        _stop(store, job, folder, lease, "cancelled")
    elif code < 0 and job.crashes + 1 < MOST_CRASHES:
        store.tell(job.id, f"its process died ({signal.Signals(-code).name}) and is started again", "warn")
        store.give_back(job.id, lease.owner, crashed=True)
    else:
        told = None
        if code:
            name = PROBLEMS.get(code, "crashed") if code > 0 else "crashed"
            told = f"{name}: {problem or f'the process ended with {code}'}"
        result = _printed(folder / "result.json")
        store.finish(job, lease.owner, code, told, result, dict(results_of(folder, job.work)))


def _stop(store: JobStore, job: JobRecord, folder: Path, lease: _Lease, status: str) -> None:
    """Of a batch that is cancelled, the rows that are answered are results; of others there is nothing whole."""
    kept = job.family == "batch" and status == "cancelled"
    store.stop(job, lease.owner, status, dict(results_of(folder, job.work)) if kept else {})


def under_cap(store: JobStore, job: JobRecord) -> tuple[str, ...]:
    """The command under what is left of the job's cap, of which its processes before have spent some, and of its
    key's."""
    cap = job.request.get("max_cost_usd")
    if cap is None:
        return job.work.words
    left = left_usd(cap, store.cost_of(job.id)) or 0.0
    of_key = store.left_of_key(job.owner)
    said = f"--max-cost={left if of_key is None else min(left, of_key)!r}"
    return tuple(said if word.startswith("--max-cost=") else word for word in job.work.words)


def _watch(
    running: subprocess.Popen[bytes],
    store: JobStore,
    job: JobRecord,
    lease: _Lease,
    said: _Said,
    stop: threading.Event,
) -> int | None:
    """The process's exit code; None where the lease was lost, and the process was ended."""
    told = False
    looked = 0.0
    while True:
        try:
            return running.wait(LOOK_S)
        except subprocess.TimeoutExpired:
            looked += LOOK_S
        if not lease.held():
            _tell(running, signal.SIGKILL)
            running.wait()
            return None
        if looked >= TELL_S:
            looked = 0.0
            said.look()
        if not told and (stop.is_set() or store.wish(job.id)):
            told = True
            _tell(running, signal.SIGTERM)


def _tell(running: subprocess.Popen[bytes], what: signal.Signals) -> None:
    """To the process and those that it has started, if it is to be killed."""
    if what == signal.SIGKILL:
        os.killpg(running.pid, what)
    else:
        running.send_signal(what)


class _Said:
    """What the command says, as events: lines of its log, and rows of a training's metrics."""

    def __init__(self, store: JobStore, job: JobRecord, folder: Path) -> None:
        self._store = store
        self._job = job
        self._log = folder / "log.txt"
        self._metrics = folder / job.work.out / "metrics.jsonl"
        self._read = self._log.stat().st_size if self._log.exists() else 0
        self._begun = self._read
        steps = [event.data.get("step", 0) for event in store.events(job.id) if event.kind == "metrics"]
        self._step = max(steps, default=0)

    def look(self) -> None:
        """Tell of what is new."""
        with self._log.open("rb") as stream:
            stream.seek(self._read)
            whole = stream.read().rpartition(b"\n")[0]
        if whole:
            self._read += len(whole) + 1
            for line in whole.decode(errors="replace").splitlines():
                if line.strip():
                    self._store.tell(self._job.id, line.strip()[:LONGEST], _level(line))
        for row in rows_of(self._metrics):
            if row.get("step", 0) > self._step:
                self._step = row["step"]
                words = ", ".join(f"{name} {row[name]:.4g}" for name in ("loss", "reward") if row.get(name))
                self._store.tell(self._job.id, f"step {self._step}: {words}", data=row)

    def problem(self) -> str:
        """The command's own words for why it ended: its last `error:` and what follows."""
        with self._log.open("rb") as stream:
            stream.seek(self._begun)
            lines = stream.read().decode(errors="replace").splitlines()
        starts = [number for number, line in enumerate(lines) if line.startswith("error: ")]
        if not starts:
            return lines[-1][:LONGEST] if lines else ""
        return "\n".join(lines[starts[-1] :]).removeprefix("error: ")[:LONGEST]


def _level(line: str) -> str:
    for word in ("error", "warning"):
        if line.startswith(f"{word}:"):
            return "warn" if word == "warning" else word
    return "info"


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The whole rows of a file that is perhaps being written."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json_of(line)
        except ValueError:
            return
        if isinstance(row, dict):
            yield row


def lay_out(store: JobStore, work: Work, folder: Path) -> None:
    """Put what a command reads in its folder."""
    for name, text in work.texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    for name, file in work.files.items():
        if (folder / name).exists():
            continue
        found = store.file(file)
        if found is None:
            continue  # the command says that it is missing
        with (
            tempfile.NamedTemporaryFile(dir=folder, delete=False) as temporary,
            store.path_of(found).open("rb") as source,
        ):
            shutil.copyfileobj(source, temporary)
        Path(temporary.name).replace(folder / name)


def results_of(folder: Path, work: Work) -> Iterator[tuple[str, Path]]:
    """(name, path) of every file that a job has written for its client."""
    place = folder / work.out if work.out else folder / "result.json"
    if place.is_dir():
        for name in files_in(place):
            if not (place / name).is_symlink():
                yield name, place / name
    elif place.is_file() and place.stat().st_size:
        yield place.name, place


def ledger_of(store: JobStore) -> str:
    """The ledger of the jobs' calls, as a command in any folder names it."""
    path = location_of(store.database).path
    return store.database if path is None else str(path.absolute())


def _printed(path: Path) -> dict[str, Any] | None:
    try:
        value = json_in(path)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


class Planned(NamedTuple):
    """What a command says with `--plan`."""

    code: int
    plan: Mapping[str, Any] | None
    problem: str


def plan(store: JobStore, work: Work) -> Planned:
    """What a job would take, by its command; nothing is asked."""
    with tempfile.TemporaryDirectory(dir=store.data / "jobs", prefix="plan-") as name:
        folder = Path(name)
        lay_out(store, work, folder)
        with (
            (folder / "plan.json").open("wb") as out,
            (folder / "log.txt").open("wb") as err,
            start([*work.words, "--plan", "--json"], folder, out, err, ledger_of(store)) as running,
        ):
            code = running.wait()
        log = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip()
        return Planned(code, _printed(folder / "plan.json"), log.rpartition("error: ")[2][:LONGEST])
