"""What many processes cost: labelling in one process and by Ray's workers, and how fast the keeper of rates answers.

    python benchmarks/scale.py [--pairs N] [--concurrency N] [--latency S] [--ledger URL]

Each run is `preceptor label` in a process of its own, on a fresh ledger or the database of URL (emptied first), against
the tests' server in another process. The clock runs from the first request to the last; what a run takes before and
after, mostly Ray's start, stands apart. Needs the repository's tests/ beside benchmarks/.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
MAIN = "from preceptor.cli.app import main; main()"
SERVER = """
import json, sys, time
from tests.servers.llm import LLMServer, serve
came = []
def note():
    came.append(time.monotonic())
    return {}
with serve(LLMServer(latency_s=float(sys.argv[1]), headers=note)) as server:
    print(server.url, flush=True)
    for _ in sys.stdin:
        print(json.dumps([len(came), came[-1] - came[0] if came else 0]), flush=True)
        came.clear()
"""


def write_pairs(path: Path, pairs: int) -> None:
    """Pairs of some 150 words."""
    filler = "The bakery opens at seven and the bread is still warm when the first guests come in. " * 4
    with path.open("w", encoding="utf-8") as file:
        for number in range(pairs):
            row = {
                "prompt": f"Question {number}: when does the bakery open?",
                "response_a": f"quality={number % 17} {filler}",
                "response_b": f"quality={number % 13} {filler} Number {number}.",
            }
            file.write(json.dumps(row) + "\n")


def label(folder: Path, url: str, concurrency: int, *more: object) -> tuple[float, float]:
    """(wall seconds, CPU seconds of the command's own process) of one run."""
    words = (
        "label",
        folder / "pairs.jsonl",
        "-c",
        "style",
        "--judge",
        "openai/gpt-4o-mini",
        "--base-url",
        url,
    )
    words += ("--out", folder / "out", "--concurrency", concurrency, *more)
    start = time.monotonic()
    running = subprocess.Popen(
        [sys.executable, "-c", MAIN, *map(str, words)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "none"},
        cwd=folder,
        stderr=subprocess.PIPE,
    )
    assert running.stderr is not None
    said = running.stderr.read().decode()
    _, status, used = os.wait4(running.pid, 0)
    assert status == 0, said
    return time.monotonic() - start, used.ru_utime + used.ru_stime


def emptied(ledger: str) -> str:
    """The database without its tables."""
    import psycopg

    with psycopg.connect(ledger, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS calls, charges, ledger_version")
    return ledger


def turns_per_s(calls: int = 2000) -> float:
    """How many calls a second the keeper lets in and out as a Ray actor, asked by one process."""
    import ray

    from preceptor.judge.asking.fanout import Limits
    from preceptor.judge.asking.shared import Keeper, KeeperConnection, SharedBudget, SharedRateLimiter
    from preceptor.judge.models.protocol import Request
    from preceptor.prompts.records import Message

    request = Request(model="m/m", messages=(Message(role="user", content="word " * 400),), max_tokens=5)

    async def run(keeper: Any) -> float:
        line = KeeperConnection("one", lambda method, *words: getattr(keeper, method).remote(*words))
        gate, budget = SharedRateLimiter(line, "m/m"), SharedBudget(line, capped=True)

        async def turn() -> None:
            async with gate.place(request):
                await budget.reserve(0.001)
                budget.settle(0.001, 0.0005)
                gate.answered()

        await turn()
        start = time.monotonic()
        await asyncio.gather(*(turn() for _ in range(calls)))
        return calls / (time.monotonic() - start)

    ray.init(
        address="local",
        include_dashboard=False,
        num_cpus=1,
        object_store_memory=100 * 2**20,
        logging_level=logging.ERROR,
    )
    try:
        limits = Limits(concurrency=256, max_cost_usd=1e9)
        return asyncio.run(run(ray.remote(Keeper).options(max_concurrency=10_000).remote(limits)))
    finally:
        ray.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--ledger")
    chosen = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    sys.stdout.write(f"the keeper lets in and out {turns_per_s():.0f} calls/s\n")
    engines: list[tuple[str, tuple[object, ...]]] = [("local", ())]
    engines += [(f"ray, {n} worker{'s' * (n > 1)}", ("--engine", "ray", "--workers", n)) for n in (1, 2)]
    with tempfile.TemporaryDirectory() as folder:
        write_pairs(Path(folder, "pairs.jsonl"), chosen.pairs)
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(chosen.latency)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdin is not None
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        for number, (name, words) in enumerate(engines):
            ledger = emptied(chosen.ledger) if chosen.ledger else f"{folder}/{number}.db"
            wall_s, cpu_s = label(Path(folder), url, chosen.concurrency, *words, "--ledger", ledger)
            server.stdin.write("\n")
            server.stdin.flush()
            calls, asking_s = json.loads(server.stdout.readline())
            Path(folder, "out", "manifest.json").unlink()
            rate = calls / asking_s
            sys.stdout.write(
                f"{name}: {calls} calls, {rate:.0f}/s; {wall_s:.1f} s in all, {cpu_s:.1f} s CPU here\n"
            )
            sys.stdout.flush()
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
