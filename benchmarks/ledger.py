"""What the ledger costs: calls a second through the fan-out, and look-ups beside another process that writes.

    python benchmarks/ledger.py [--calls 10000] [--askers 64] [--rounds 5] [--ledger URL]

`fanout`: a scripted model that answers at once, 64 askers, so that the ledger is what is waited for; CPU seconds
beside, because a shared machine's wall clock swings. `again`: the same calls, answered from the ledger.
`find alone` and `find beside a writer`: look-ups of 1 key, one after the other, in a process of their own, without
and with another process that writes intents and answers all the time.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from preceptor.judge.asking.fanout import Fanout, Limits
from preceptor.judge.asking.prices import Prices
from preceptor.judge.ledger.ledger import open_ledger
from preceptor.judge.models.protocol import Completion, Dialogue, Outcome, Request
from preceptor.judge.models.scripted import ScriptedModel
from preceptor.prompts.records import Message

NAME = "scripted/script"
TEXT = "Which of the two replies follows the principle better? " * 40
"""A comparison's length: 2 kB of request a call."""


class Timed(NamedTuple):
    """One measurement."""

    per_s: float
    cpu_us: float
    """Of this process, a call."""


def request(number: int) -> Request:
    messages = (Message(role="user", content=f"{TEXT}{number}"),)
    return Request(model=NAME, messages=messages, max_tokens=8, stage="label", principle="p")


def row(number: int) -> Dialogue[Outcome]:
    (outcome,) = yield [request(number)]
    return outcome


async def fanout(place: str, calls: int, askers: int) -> Timed:
    model = ScriptedModel(lambda _: "Verdict: A", name=NAME)
    async with open_ledger(place) as ledger:
        run = Fanout({NAME: model}, ledger, Limits(concurrency=askers), Prices.load())
        wall, cpu = time.perf_counter(), time.process_time()
        rows = [outcome async for outcome in run.run(map(row, range(calls)))]
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if not all(isinstance(outcome, Completion) for outcome in rows):
        raise RuntimeError("a call was not answered")
    return Timed(calls / wall, 1e6 * cpu / calls)


async def find(place: str, calls: int) -> Timed:
    async with open_ledger(place) as ledger:
        keys = [request(number).key for number in range(calls)]
        wall, cpu = time.perf_counter(), time.process_time()
        for key in keys:
            if not await ledger.find([key]):
                raise RuntimeError("an answer was not found")
        return Timed(calls / (time.perf_counter() - wall), 1e6 * (time.process_time() - cpu) / calls)


def write_on(place: str, start: int) -> None:
    """Answers without end, from call `start` on."""

    async def forever() -> None:
        model = ScriptedModel(lambda _: "Verdict: A", name=NAME)
        async with open_ledger(place) as ledger:
            run = Fanout({NAME: model}, ledger, Limits(concurrency=64), Prices.load())
            async for _ in run.run(map(row, range(start, 10**9))):
                pass

    asyncio.run(forever())


def beside_a_writer(place: str, calls: int) -> Timed:
    writer = multiprocessing.get_context("spawn").Process(target=write_on, args=(place, 10**6), daemon=True)
    writer.start()
    try:
        time.sleep(3)
        return asyncio.run(find(place, calls))
    finally:
        writer.kill()
        writer.join()


def main() -> None:
    parser = argparse.ArgumentParser(description="What the ledger costs.")
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--askers", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ledger", help="a database URL, empty at the start; default: a new file each round")
    chosen = parser.parse_args()
    best: dict[str, Timed] = {}

    def keep(name: str, timed: Timed) -> None:
        best[name] = max(best.get(name, timed), timed)

    with tempfile.TemporaryDirectory() as folder:
        for number in range(1 if chosen.ledger else chosen.rounds):
            place = chosen.ledger or str(Path(folder) / f"{number}.db")
            keep("fanout", asyncio.run(fanout(place, chosen.calls, chosen.askers)))
            keep("again", asyncio.run(fanout(place, chosen.calls, chosen.askers)))
            keep("find alone", asyncio.run(find(place, chosen.calls // 5)))
        keep("find beside a writer", beside_a_writer(place, chosen.calls // 5))
    for name, timed in best.items():
        sys.stdout.write(f"{name:<22} {timed.per_s:8.0f}/s {timed.cpu_us:8.0f} µs of CPU a call\n")


if __name__ == "__main__":
    main()
