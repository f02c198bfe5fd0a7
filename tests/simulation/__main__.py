"""`python -m tests.simulation`: many seeds, or one again."""

from __future__ import annotations

import argparse
import gc
import logging
import multiprocessing
import sys
import time

from tests.simulation.mutations import FAULTS, Fault, planted
from tests.simulation.seed import Told, run_seed, swept

SEEDS_A_FAULT = 1500
"""So many are tried before a planted fault counts as not found."""
WANTED = 27
"""Of the planted faults, at least so many are to be found."""


def replay(number: int) -> int:
    """One seed, with what befell it."""
    with swept():
        told = run_seed(number)
        gc.collect()
    print(told.plan)
    print(*told.trace, sep="\n")
    print(told.problem or "every property holds")
    return 1 if told.problem else 0


def find(fault: Fault) -> Told | None:
    """The first seed that finds a planted fault."""
    with planted(fault):
        told = (run_seed(number) for number in range(SEEDS_A_FAULT))
        return next((one for one in told if one.problem), None)


def find_planted(jobs: int) -> int:
    """How many of the planted faults are found, said one by one."""
    found = 0
    with multiprocessing.Pool(jobs, maxtasksperchild=1) as pool:
        for fault, told in zip(FAULTS, pool.imap(find_number, range(len(FAULTS)), chunksize=1), strict=True):
            found += told is not None
            said = "not found" if told is None else f"seed {told.seed}: {told.problem[:90]}"
            print(f"{fault.name}: {said}", flush=True)
    return found


def find_number(number: int) -> Told | None:
    """`find` by number: what goes to another process is to be small."""
    return find(FAULTS[number])


def main() -> int:
    """The exit code: 0 where every property holds of every seed."""
    flags = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    flags.add_argument("--seed", type=int, help="this one alone, with its trace")
    flags.add_argument("--seeds", type=int, default=10_000)
    flags.add_argument("--first", type=int, default=0)
    flags.add_argument("--jobs", type=int, default=2)
    flags.add_argument(
        "--mutations", action="store_true", help="plant faults, and count those that are found"
    )
    given = flags.parse_args()
    logging.disable(logging.CRITICAL)
    if given.seed is not None:
        return replay(given.seed)
    if given.mutations:
        found = find_planted(given.jobs)
        print(f"{found} of {len(FAULTS)} planted faults are found")
        return 0 if found >= WANTED else 1
    began = time.perf_counter()
    numbers = range(given.first, given.first + given.seeds)
    with multiprocessing.Pool(given.jobs) as pool:
        told = []
        for one in pool.imap_unordered(run_seed, numbers, chunksize=10):
            told.append(one._replace(trace=()))
            if one.problem:
                print(f"seed {one.seed}: {one.problem}", flush=True)
    failed = [one for one in told if one.problem]
    cpu_s = sum(one.cpu_s for one in told)
    took = time.perf_counter() - began
    print(summary(told), f"{took:.0f} s, {1000 * cpu_s / len(told):.0f} ms of CPU a seed")
    return 1 if failed else 0


def summary(told: list[Told]) -> str:
    """What the seeds were, in one line."""
    days = sum(one.virtual_s for one in told) / 86400
    return (
        f"{len(told):,} seeds: {sum(bool(one.problem) for one in told)} fail; "
        f"{sum(one.calls for one in told):,} calls, "
        f"{sum(one.kills for one in told):,} kills at {sum(one.boundaries for one in told):,} boundaries, "
        f"{days:,.0f} days of virtual time;"
    )


if __name__ == "__main__":
    sys.exit(main())
