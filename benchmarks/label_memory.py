"""What labelling takes as files grow: peak memory, CPU time, the way to the first request, and a finished run again.

    python benchmarks/label_memory.py [--rows 10000 50000] [--first 10000 1000000] [--folder DIR]

--rows: `preceptor label` with a scripted model from file to finished folder, in both orders, for each size: its peak
memory and CPU time; then the same command once more, which must ask nothing. --first: seconds from the start of the
process to the first request at a server, for each size. --folder: where files are kept; a million rows take 1 GB, their
folder 3 and their ledger 6. Needs the repository's tests/ beside benchmarks/.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.label_speed import server, write_pairs  # noqa: E402

SECOND_SHOWN_FIRST = r"<<<REPLY_A \w+>>>\n[^<]* Number "
"""By which a script finds the first reply the better in both orders, so that every label is a preference."""
START = "import sys; from preceptor.cli.app import main; sys.argv[0] = 'preceptor'; main()"


class Ran(NamedTuple):
    """One `preceptor label`, as a person starts it."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    """Most memory of the process at any time."""
    asked: int
    """Calls that the model answered."""


def label(pairs: Path, folder: Path, judge: list[str]) -> list[str]:
    """The command."""
    words = ["label", str(pairs), "-c", "style", "--judge", *judge, "--out", str(folder / "out"), "--json"]
    return [sys.executable, "-c", START, *words, "--ledger", str(folder / "ledger.db")]


def run(words: list[str]) -> Ran:
    """A command to its end, measured."""
    started = time.perf_counter()
    process = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=_environment()
    )
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"preceptor label ended with {process.returncode}: {said}")
    wall_s = time.perf_counter() - started
    return Ran(
        wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, json.loads(said)["calls"]["asked"]
    )


def first_request_s(pairs: Path, folder: Path) -> float:
    """From the start of the process to the first request, which is then in flight when the process is ended."""
    import httpx2

    with server(0.05) as url:
        stats = url.removesuffix("/v1") + "/stats"
        started = time.perf_counter()
        process = subprocess.Popen(
            label(pairs, folder, ["openai/fake", "--base-url", url]),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=_environment(),
        )
        try:
            with httpx2.Client(trust_env=False) as client:
                while not client.get(stats).json()["requests"]:
                    if process.poll() is not None:
                        raise SystemExit(f"preceptor label ended with {process.returncode}")
                    time.sleep(0.01)
                return time.perf_counter() - started
        finally:
            process.kill()
            process.wait()


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "none"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 50_000])
    parser.add_argument("--first", type=int, nargs="*", default=[10_000, 1_000_000])
    parser.add_argument("--folder", help="default: one that is removed at the end")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        script = Path(folder) / "script.jsonl"
        rules = [{"match": SECOND_SHOWN_FIRST, "text": "Verdict: B"}, {"match": ".", "text": "Verdict: A"}]
        script.write_text("".join(json.dumps(rule) + "\n" for rule in rules))
        for rows in options.rows:
            pairs, place = Path(folder) / "pairs.jsonl", Path(folder) / str(rows)
            place.mkdir()
            write_pairs(pairs, rows)
            for what in ("first", "again"):
                ran = run(label(pairs, place, [f"scripted/{script}"]))
                print(  # noqa: T201
                    f"{rows:9,} rows, {what}: peak {ran.peak_mb:6.0f} MB, {ran.cpu_s:8.1f} s CPU, {ran.wall_s:8.1f} s, "
                    f"{ran.asked:,} calls asked",
                    flush=True,
                )
        for rows in options.first:
            write_pairs(pairs := Path(folder) / "first.jsonl", rows)
            took_s = min(first_request_s(pairs, Path(tempfile.mkdtemp(dir=folder))) for _ in range(3))
            print(f"{rows:9,} rows: first request after {took_s:.2f} s", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
