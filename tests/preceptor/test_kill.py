"""Killed anywhere, a run loses nothing, pays for nothing twice but what was in flight, and ends as an unbroken one."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from preceptor.judge.ledger.location import reading
from preceptor.judge.ledger.queries import BillLine, Wanted, bill, count
from preceptor.prompts.rows import read_rows
from tests.servers.llm import LLMServer, serve

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MAIN = "from preceptor.cli.app import main; main()"
IN_FLIGHT = 16
KILLS = 20
PASSING = ("429", "500", "503", "529", "drop", "badjson", "html")
"""Faults that a second try mends, and for which the server counts no tokens."""


def write_pairs(count: int) -> None:
    rows = (
        {
            "prompt": f"question {n}",
            "response_a": f"one quality={n % 90}",
            "response_b": f"other quality={7 * n % 97}",
        }
        for n in range(count)
    )
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def start(server: LLMServer, out: str, *more: object, before: str = "") -> subprocess.Popen[str]:
    words = ("label", "pairs.jsonl", "-c", "style", "--judge", "openai/gpt-4o-mini", "--base-url", server.url)
    words += ("--out", out, "--concurrency", IN_FLIGHT, "--json", *more)
    return subprocess.Popen(
        [sys.executable, "-c", before + MAIN, *map(str, words)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "none"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Ended(NamedTuple):
    code: int
    out: str
    err: str


def end(running: subprocess.Popen[str], how: signal.Signals | None = None) -> Ended:
    if how is not None:
        running.send_signal(how)
    out, err = running.communicate(timeout=900)
    return Ended(running.returncode, out, err)


def whole_bill(ledger: str = ".preceptor/ledger.db") -> BillLine:
    with reading(ledger) as connection:
        (line,) = bill(connection, ())
    return line


def require_bill_of(server: LLMServer, line: BillLine, kills: int) -> None:
    """The bill is the server's own count, but for what was in flight at a kill.

    More calls than were in flight may be lost: one that waits for its next try holds no place.
    """
    stats = server.stats()
    missing = stats["answered"] - line.calls
    assert 0 <= missing <= min(line.lost, kills * IN_FLIGHT)
    assert stats["answered_twice"] <= line.lost
    assert stats["answered_most"] <= 1 + kills
    longest = max(len(json.dumps(body)) for body in server.bodies)
    assert (stats["tokens_in"] == line.tokens_in) == (missing == 0)
    assert 0 <= stats["tokens_in"] - line.tokens_in <= missing * longest
    assert 0 <= stats["tokens_out"] - line.tokens_out <= missing * 100


def test_killed_at_twenty_points_it_ends_as_an_unbroken_run() -> None:
    write_pairs(1000)
    draw = random.Random(4)
    faults = [draw.choice(PASSING) if draw.random() < 0.1 else "ok" for _ in range(3000)]
    points = sorted(draw.sample(range(1, 2100), KILLS))
    with serve(LLMServer()) as plain:
        unbroken = end(start(plain, "unbroken", "--ledger", "unbroken.db"))
        assert unbroken.code == 0, unbroken.err
        assert plain.stats()["answered"] == 2000
        port = int(plain.root.rpartition(":")[2])
    with serve(LLMServer(faults=faults, once={"badjson"}, retry_after="0"), port) as server:
        for point in points:
            running = start(server, "killed")
            assert server.wait_for(point), end(running, signal.SIGKILL)
            assert end(running, signal.SIGKILL).code == -signal.SIGKILL
        last = end(start(server, "killed"))
        assert last.code == 0, last.err
        assert "in flight when another run ended" in last.err
        require_bill_of(server, whole_bill(), KILLS)
    labels = [row.fields for row in read_rows("killed/labels.jsonl")]
    assert len({label["id"] for label in labels}) == len(labels) == 1000
    calls = [one["call"] for label in labels for one in label["judgements"] if "call" in one]
    assert len(set(calls)) == len(calls) == 2000
    for name in ("labels.jsonl", "preferences.jsonl"):
        assert Path("killed", name).read_bytes() == Path("unbroken", name).read_bytes()
    with reading(".preceptor/ledger.db") as connection:
        assert count(connection, Wanted()) == {"answered": 2000}


def test_two_processes_on_the_same_work_ask_each_call_once() -> None:
    write_pairs(200)
    with serve(LLMServer(latency_s=0.05)) as server:
        running = [start(server, name) for name in ("one", "two")]
        ended = [end(one) for one in running]
        assert [one.code for one in ended] == [0, 0], ended
        stats = server.stats()
        assert (stats["answered"], stats["answered_twice"]) == (400, 0)
        asked = [json.loads(one.out)["calls"]["asked"] for one in ended]
        assert sum(asked) == 400
        require_bill_of(server, whole_bill(), 0)
    assert Path("one/labels.jsonl").read_bytes() == Path("two/labels.jsonl").read_bytes()
    assert len(list(read_rows("one/labels.jsonl"))) == 200


def test_the_other_takes_over_what_a_killed_process_was_asking() -> None:
    """At once, not when the lease runs out: on one host it is known who is gone."""
    write_pairs(200)
    with serve(LLMServer(latency_s=0.2)) as server:
        running = [start(server, name) for name in ("one", "two")]
        assert server.wait_for(100)
        assert end(running[0], signal.SIGKILL).code == -signal.SIGKILL
        left = end(running[1])
        assert left.code == 0, left.err
        line = whole_bill()
        assert line.calls == 400
        require_bill_of(server, line, 1)
    assert len(list(read_rows("two/labels.jsonl"))) == 200


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_told_to_stop_finishes_what_is_in_flight(how: signal.Signals) -> None:
    write_pairs(200)
    with serve(LLMServer(latency_s=0.05)) as server:
        running = start(server, "out")
        assert server.wait_for(100)
        stopped = end(running, how)
        assert stopped.code == 130, stopped.err
        assert "run the same command again" in stopped.err
        assert server.stats()["answered"] < 400
        again = end(start(server, "out"))
        assert again.code == 0, again.err
        assert "in flight" not in again.err
        assert (server.stats()["answered"], server.stats()["answered_twice"]) == (400, 0)
        require_bill_of(server, whole_bill(), 0)


def test_a_full_disk_ends_with_2_and_loses_nothing() -> None:
    """A limit on the size of files, which SQLite meets as it meets the end of a disk."""
    write_pairs(200)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)); "
    with serve(LLMServer()) as server:
        full = end(start(server, "out", before=limit))
        assert full.code == 2, full.err
        assert "Traceback" not in full.err
        assert "make room on the disk" in full.err
        before = whole_bill()
        again = end(start(server, "out"))
        assert again.code == 0, again.err
        assert json.loads(again.out)["calls"]["from_ledger"] == before.calls > 0
        require_bill_of(server, whole_bill(), 1)


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", place], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_ledger_on_a_small_disk_says_what_to_do() -> None:
    write_pairs(200)
    with small_disk(Path("disk"), "400k"), serve(LLMServer()) as server:
        full = end(start(server, "out", "--ledger", "disk/ledger.db"))
        assert (full.code, "make room on the disk" in full.err) == (2, True), full.err
        subprocess.run(["mount", "-o", "remount,size=20m", "disk"], check=True)
        kept = whole_bill("disk/ledger.db").calls
        again = end(start(server, "out", "--ledger", "disk/ledger.db"))
        assert again.code == 0, again.err
        assert json.loads(again.out)["calls"]["from_ledger"] == kept > 0


def test_a_read_only_ledger_ends_with_2() -> None:
    """Before anything is asked; what it can answer by itself it does."""
    write_pairs(2)
    reading_only = "sqlite:///file:.preceptor/ledger.db?mode=ro&uri=true"
    with serve(LLMServer()) as server:
        assert end(start(server, "out")).code == 0
        assert end(start(server, "out", "--ledger", reading_only)).code == 0
        write_pairs(3)
        ended = end(start(server, "out", "--ledger", reading_only))
        assert server.stats()["requests"] == 4
    assert ended.code == 2
    assert "read-only: make it writable" in ended.err
    assert "Traceback" not in ended.err
